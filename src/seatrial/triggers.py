"""When a model is trained again: the contract's rules, a cool-down, and one run for one cause.

Firing is one create-only append to a record log. Of any number of monitors that see the same
drift at the same time, one writes the record and the others are told; whoever looks later sees it
and its cool-down. So the number of runs does not depend on how many look, how often, or how a
value flaps around its bound, and a clock that goes back finds itself within the cool-down
(threats: T1, T2, T4, T6).

A failed verdict that rests on one client's predictions asks for nothing unless the contract says
that one client counts (threats: T5).

The record also names the run that it starts. A process that dies between firing and starting
leaves a record without an end; :func:`unfinished` finds it, and its run is started under the same
name instead of a second one (threats: T3).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from seatrial.contract.schema import Triggers, format_duration
from seatrial.errors import PointerMovedError
from seatrial.monitoring.clients import ONE_CLIENT
from seatrial.monitoring.monitor import MonitorResult
from seatrial.record_log import Record, RecordLog
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace

DRIFT_CHECKS = ("monitor.drift", "monitor.prediction_drift")
QUALITY_CHECKS = ("monitor.quality",)


@dataclass(frozen=True)
class Champion:
    """The model that serves now.

    Attributes:
        digest: Digest of its bundle.
        trained_as_of: Instant of the run that trained it.
        rows: Labelled rows that it learned from.
    """

    digest: str
    trained_as_of: datetime
    rows: int


class Rule(BaseModel):
    """One of the contract's rules, looked at.

    Attributes:
        name: Its key in the contract's ``triggers``.
        fires: Whether it asks for a retraining.
        held_back: Whether it would, but for resting on one client's predictions.
        value: What was found; None where there is nothing to look at.
        bound: From which value it fires.
        unit: Unit of value and bound.
        message: One sentence for a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fires: bool
    held_back: bool = False
    value: float | None = None
    bound: float | None = None
    unit: str = ""
    message: str


class Decision(BaseModel):
    """Whether a model is to be trained again, and why.

    Attributes:
        model: The model's name.
        champion: Digest of the bundle that serves.
        as_of: Instant of the decision.
        fires: Whether a run is to start, or, after :func:`fire`, was started by this very decision.
        rules: Every rule of the contract, looked at.
        suppressed: Why no run starts although a rule asks for one; empty otherwise.
        cool_down_until: First instant at which a run may start again; None before the first one.
        seen: Number of the newest record of the log when the decision was made.
        run: Name of the run that was fired; None until then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    champion: str
    as_of: datetime
    fires: bool
    rules: tuple[Rule, ...]
    suppressed: str = ""
    cool_down_until: datetime | None = None
    seen: int
    run: str | None = None

    @property
    def causes(self) -> list[str]:
        """Names of the rules that ask for a retraining."""
        return [rule.name for rule in self.rules if rule.fires]


def trigger_log(workspace: Workspace, model: str) -> RecordLog:
    """Return the log of what was fired for a model."""
    return RecordLog(workspace, f"triggers/{model}")


def decide(
    model: str,
    rules: Triggers,
    result: MonitorResult | None,
    *,
    champion: Champion,
    new_rows: int,
    as_of: datetime,
    log: RecordLog,
) -> Decision:
    """Decide whether a model is to be trained again; nothing is written.

    Args:
        model: The model's name.
        rules: The contract's ``triggers``.
        result: What the monitor found in the newest window; None where it did not run.
        champion: The model that serves now.
        new_rows: Labelled rows that became known since the champion was trained.
        as_of: Instant of the decision, with a time zone.
        log: What was fired before.

    Returns:
        The decision, with every rule's value and bound.

    Raises:
        StoreError: if the log cannot be read.
    """
    last = log.last()
    until = _cool_down_until(rules, last)
    looked_at = tuple(_look(rules, result, champion, new_rows, as_of))
    asked = any(rule.fires for rule in looked_at)
    cooling = until is not None and as_of < until
    suppressed = ""
    if asked and last is not None and until is not None and cooling:
        pause = f"The cool-down of {format_duration(rules.cool_down)} after run {run_name(log, last)}"
        suppressed = f"{pause} lasts until {until:%Y-%m-%d %H:%M} UTC."
    return Decision(
        model=model,
        champion=champion.digest,
        as_of=as_of,
        fires=asked and not cooling,
        rules=looked_at,
        suppressed=suppressed,
        cool_down_until=until,
        seen=last.number if last else 0,
    )


def fire(decision: Decision, log: RecordLog, *, by: str = "") -> Decision:
    """Fire, unless somebody else has since the decision was made.

    Args:
        decision: What :func:`decide` said.
        log: The log that it looked at.
        by: Name of the run that asks, kept in the record.

    Returns:
        The decision with the name of the run to start; or, where somebody else was first or
        nothing was to be fired, one that does not fire.

    Raises:
        StoreError: if the log cannot be written.
    """
    if not decision.fires:
        return decision
    content = decision.model_dump(mode="json", include={"model", "champion", "as_of", "rules"})
    try:
        record = log.append({**content, "causes": decision.causes, "by": by}, after=decision.seen)
    except PointerMovedError:
        suppressed = "Somebody else fired in the meantime; one run is enough."
        return decision.model_copy(update={"fires": False, "suppressed": suppressed})
    return decision.model_copy(update={"run": run_name(log, record)})


def run_name(log: RecordLog, record: Record) -> str:
    """Return the name of the run that a record started; the same record always names the same run."""
    return f"{log.prefix.rsplit('/', 1)[-1]}-trigger-{record.number:04d}"


def finish(log: RecordLog, record: Record, *, outcome: dict[str, Any]) -> bool:
    """Say that the run of a record has ended, well or not.

    Args:
        log: The log of the record.
        record: What was fired.
        outcome: What came of it; JSON-serializable.

    Returns:
        Whether this call said so; False if it was said before.
    """
    try:
        RecordLog(log.workspace, _ends(log, record)).append(outcome, after=0)
    except PointerMovedError:
        return False
    return True


def unfinished(log: RecordLog) -> Record | None:
    """Return the newest record if its run has not ended, so that it can be started again under its name."""
    last = log.last()
    if last is None or RecordLog(log.workspace, _ends(log, last)).last() is not None:
        return None
    return last


def _ends(log: RecordLog, record: Record) -> str:
    return f"{log.prefix}-ends/{record.number:010d}"


def cool_down_until(rules: Triggers, log: RecordLog) -> datetime | None:
    """Return the first instant at which a run may start again; None before the first one.

    Raises:
        StoreError: if the log cannot be read.
    """
    return _cool_down_until(rules, log.last())


def _cool_down_until(rules: Triggers, last: Record | None) -> datetime | None:
    return _fired_at(last) + rules.cool_down if last else None


def _fired_at(record: Record) -> datetime:
    return datetime.fromisoformat(record.content["as_of"])


def _look(
    rules: Triggers, result: MonitorResult | None, champion: Champion, new_rows: int, as_of: datetime
) -> list[Rule]:
    looked_at = []
    if rules.on_drift:
        looked_at.append(_verdicts_rule("on_drift", DRIFT_CHECKS, rules, result, champion))
    if rules.on_quality:
        looked_at.append(_verdicts_rule("on_quality", QUALITY_CHECKS, rules, result, champion))
    if rules.new_rows is not None:
        looked_at.append(
            Rule(
                name="new_rows",
                fires=new_rows >= rules.new_rows,
                value=new_rows,
                bound=rules.new_rows,
                unit="rows",
                message=f"{new_rows:,} new rows beside the {champion.rows:,} that the champion learned from.",
            )
        )
    if rules.every is not None:
        age = as_of - champion.trained_as_of
        looked_at.append(
            Rule(
                name="every",
                fires=age >= rules.every,
                value=age.total_seconds() / 86_400,
                bound=rules.every.total_seconds() / 86_400,
                unit="days",
                message=f"The champion was trained as of {champion.trained_as_of:%Y-%m-%d %H:%M} UTC.",
            )
        )
    return looked_at


def _verdicts_rule(
    name: str, checks: tuple[str, ...], rules: Triggers, result: MonitorResult | None, champion: Champion
) -> Rule:
    if result is None:
        return Rule(name=name, fires=False, message="There is no monitored window to look at.")
    if result.bundle != champion.digest:
        message = f"The window was of bundle {result.bundle[:12]}, which does not serve any more."
        return Rule(name=name, fires=False, message=message)
    verdicts = [result.verdict(check) for check in checks]
    failed = [verdict for verdict in verdicts if verdict.outcome is Outcome.FAIL]
    asking = [verdict for verdict in failed if rules.one_client or ONE_CLIENT not in verdict.evidence]
    shown = (asking or failed or verdicts)[0]
    held_back = bool(failed and not asking)
    no_cause = " One client alone is no cause (triggers.one_client in the contract)." if held_back else ""
    return Rule(
        name=name,
        fires=bool(asking),
        held_back=held_back,
        value=shown.value,
        bound=shown.bound,
        unit=shown.unit,
        message=f"{shown.check}: {shown.message}{no_cause}",
    )
