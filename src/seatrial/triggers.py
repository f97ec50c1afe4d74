"""When a model is trained again: the contract's rules, a cool-down, and one run for one cause.

Firing is one create-only append to a record log. Of any number of monitors that see the same
drift at the same time, one writes the record and the others are told; whoever looks later sees it
and its cool-down. So the number of runs does not depend on how many look, how often, or how a
value flaps around its bound, and a clock that goes back finds itself within the cool-down
(threats: T1, T2, T4, T6).

A failed verdict that rests on one client's predictions asks for nothing unless the contract says
that one client counts (threats: T5).

The run that fired goes on to train. What becomes of it is a log of its own beside the record: who
has taken it up after it had died, and its end. A run has died when it has not ended after the
contract's ``run_limit`` by the clock of whoever looks; then one more run, at most, takes its place,
because both a take-over and an end are the next record of that log and only one of them can be
(threats: T3). A run that was given up and lives all the same is told before it promotes
(:func:`owner`); should it be past that, the environment's pointer lets only one of them move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
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
MOST_RUNS = 3
"""How many runs one cause gets, the first included: what kills three would kill a fourth."""


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
    now: datetime | None = None,
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
        now: The time of the clock, by which a run is still at work; the present by default.

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
    at_work = _at_work(log, rules, now)
    if asked and at_work and not cooling:
        suppressed = (
            f"Run {at_work.owner} is at work for the last cause. It counts as died after its run_limit."
        )
    return Decision(
        model=model,
        champion=champion.digest,
        as_of=as_of,
        fires=asked and not cooling and at_work is None,
        rules=looked_at,
        suppressed=suppressed,
        cool_down_until=until,
        seen=last.number if last else 0,
    )


def fire(decision: Decision, log: RecordLog, *, by: str = "", now: datetime | None = None) -> Decision:
    """Fire, unless somebody else has since the decision was made.

    Args:
        decision: What :func:`decide` said.
        log: The log that it looked at.
        by: Name of the run that asks and goes on to train, kept in the record.
        now: The time of the clock, from which the run's limit counts; the present by default. It is not
            ``as_of``, which may be long ago.

    Returns:
        The decision with the name of the run to start; or, where somebody else was first or
        nothing was to be fired, one that does not fire.

    Raises:
        StoreError: if the log cannot be written.
    """
    if not decision.fires:
        return decision
    content = decision.model_dump(mode="json", include={"model", "champion", "as_of", "rules"})
    content |= {"causes": decision.causes, "by": by, "started": _clock(now).isoformat()}
    try:
        record = log.append(content, after=decision.seen)
    except PointerMovedError:
        suppressed = "Somebody else fired in the meantime; one run is enough."
        return decision.model_copy(update={"fires": False, "suppressed": suppressed})
    return decision.model_copy(update={"run": run_name(log, record)})


def run_name(log: RecordLog, record: Record) -> str:
    """Return the name of what a record started; the same record always has the same name."""
    return f"{log.prefix.rsplit('/', 1)[-1]}-trigger-{record.number:04d}"


@dataclass(frozen=True)
class Course:
    """What has become of what a record started.

    Attributes:
        record: What was fired.
        owner: The run that trains for it: the one that fired, or the last that took it up.
        started: When the owner began, by its clock; None if an earlier version has fired it.
        runs: How many runs it has had.
        outcome: What came of it; None while it has not ended.
        seen: Number of the newest record of its own log.
    """

    record: Record
    owner: str
    started: datetime | None
    runs: int
    outcome: dict[str, Any] | None
    seen: int


def course(log: RecordLog, record: Record) -> Course:
    """Return what has become of what a record started.

    Raises:
        StoreError: if the log cannot be read.
    """
    steps = _runs(log, record).all()
    taken = [step.content for step in steps if "outcome" not in step.content]
    last = taken[-1] if taken else record.content
    started = last.get("started")
    return Course(
        record=record,
        owner=str(last.get("by", "")),
        started=datetime.fromisoformat(started) if started else None,
        runs=1 + len(taken),
        outcome=next((step.content["outcome"] for step in steps if "outcome" in step.content), None),
        seen=steps[-1].number if steps else 0,
    )


def unfinished(log: RecordLog) -> Course | None:
    """Return what the newest record started, if it has not ended.

    Raises:
        StoreError: if the log cannot be read.
    """
    last = log.last()
    found = course(log, last) if last else None
    return found if found and found.outcome is None else None


def owner(log: RecordLog, run: str) -> str | None:
    """Return the run that trains for the cause for which this run began to; None if it began for none.

    Raises:
        StoreError: if the log cannot be read.
    """
    for record in reversed(log.all()):
        takers = [step.content.get("by") for step in _runs(log, record).all()]
        if run in {record.content.get("by"), *takers}:
            return course(log, record).owner
    return None


def has_died(found: Course, rules: Triggers, *, now: datetime | None = None) -> bool:
    """Whether a run that has not ended counts as died; a clock that was set back makes it seem younger."""
    return found.started is None or _clock(now) - found.started >= rules.run_limit


def may_be_taken_up(
    found: Course, rules: Triggers, *, champion: str | None, as_of: datetime, now: datetime | None = None
) -> bool:
    """Whether another run may take the place of one that has not ended.

    Args:
        found: What :func:`unfinished` said.
        rules: The contract's ``triggers``.
        champion: Digest of the bundle that serves now.
        as_of: Instant of the decision: when the cool-down is over, the rules decide anew.
        now: The time of the clock; the present by default.

    Returns:
        Whether it has died, and its cause still stands and has not had all its runs. One that an earlier
        version has fired may not: when it began is not known.
    """
    stands = (
        found.record.content["champion"] == champion and as_of < _fired_at(found.record) + rules.cool_down
    )
    return stands and found.started is not None and found.runs < MOST_RUNS and has_died(found, rules, now=now)


def take_up(log: RecordLog, found: Course, *, by: str, now: datetime | None = None) -> bool:
    """Take the place of a run that has died.

    Args:
        log: The log of the record.
        found: What :func:`unfinished` said.
        by: Name of the run that takes its place.
        now: The time of the clock; the present by default.

    Returns:
        Whether it is this run's now; False if it ended, or somebody else was first.

    Raises:
        StoreError: if the log cannot be written.
    """
    return _say_next(log, found, {"by": by, "started": _clock(now).isoformat()})


def finish(log: RecordLog, found: Course, *, outcome: dict[str, Any]) -> bool:
    """Say that what a record started has ended, well or not.

    Args:
        log: The log of the record.
        found: What :func:`unfinished` said.
        outcome: What came of it; JSON-serializable.

    Returns:
        Whether this call said so; False if it was said before, or somebody has taken it up in the meantime.

    Raises:
        StoreError: if the log cannot be written.
    """
    return _say_next(log, found, {"outcome": outcome})


def _at_work(log: RecordLog, rules: Triggers, now: datetime | None) -> Course | None:
    found = unfinished(log)
    return None if found is None or has_died(found, rules, now=now) else found


def _say_next(log: RecordLog, found: Course, content: dict[str, Any]) -> bool:
    if found.outcome is not None:
        return False
    try:
        _runs(log, found.record).append(content, after=found.seen)
    except PointerMovedError:
        return False
    return True


def _runs(log: RecordLog, record: Record) -> RecordLog:
    return RecordLog(log.workspace, f"{log.prefix}-runs/{record.number:010d}")


def _clock(now: datetime | None) -> datetime:
    return now or datetime.now(UTC)


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
