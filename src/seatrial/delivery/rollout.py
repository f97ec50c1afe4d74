"""Roll a bundle out step by step: look at the guards, and go on, or back.

`seatrial reconcile` begins a roll-out where the environment asks for one; here it is led to its end. Each
step is one append to the record, made by whoever saw the step before (compare-and-swap), so two who do
this at once do it once, and a kill leaves the step before or the next one. A guard that trips takes the
candidate back by a roll-back like a person's: what is served stays, git is told on a branch, and nothing
goes forward again by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from seatrial.bundle import Bundle, load_bundle
from seatrial.contract.schema import Guards
from seatrial.delivery.declared import declared_models, read_declared
from seatrial.delivery.guards import Judged, judge_guards, read_step
from seatrial.delivery.predictors import Seen
from seatrial.delivery.reconcile import check_move
from seatrial.delivery.rollback import roll_back, tell_git
from seatrial.errors import UsageError
from seatrial.promotion.environment import EnvironmentFolder, RollOut, open_environment
from seatrial.promotion.pointer import (
    ROLL_BACK,
    Pointer,
    Stage,
    begin_stage,
    is_move,
    move,
    pointer_log,
    read_pointer,
)
from seatrial.record_log import Record
from seatrial.workspace import Workspace

_SHOWN = 12
State = Literal["rolling out", "served", "rolled back"]


@dataclass(frozen=True)
class RollOutState:
    """Where the roll-out of a model stands.

    Attributes:
        model: The model's name.
        state: ``rolling out``; ``served``: the candidate took all requests just now; ``rolled back``.
        serving: Digest of the bundle that served when this was looked at.
        candidate: Digest of the candidate.
        stage: Number of the record that began the step.
        weight: Requests of a hundred that the candidate answers.
        since: When the step began, ISO 8601.
        judged: What the guards found in the step.
        why: What it waits for, or why it went on or back.
    """

    model: str
    state: State
    serving: str
    candidate: str
    stage: int
    weight: int
    since: str
    judged: Judged
    why: str


@dataclass(frozen=True)
class _Case:
    environment: EnvironmentFolder
    rules: RollOut
    workspace: Workspace
    model: str
    pointer: Pointer
    stage: Stage
    begun: Record
    records: list[Record]

    def state(self, state: State, judged: Judged, why: str) -> RollOutState:
        return RollOutState(
            self.model,
            state,
            str(self.pointer.digest),
            self.stage.digest,
            self.stage.number,
            self.stage.weight,
            str(self.begun.content["at"]),
            judged,
            why,
        )


def look(model: str, name: str) -> RollOutState | None:
    """Return where a roll-out stands, or None where nothing is rolled out.

    Raises:
        UsageError: if there is no such environment.
        BundleError: if the candidate is not in the environment's store, whole and signed.
        TableError: if what was recorded of it cannot be read.
        StoreError: if the store failed.
    """
    case = _open(open_environment(name), model)
    if case is None:
        return None
    judged = _judge(case, _load(case))
    return case.state(
        "rolling out", judged, _decide(case, judged, datetime.now(UTC), git=True, seen=Seen())[1]
    )


def advance(
    name: str,
    *,
    models: list[str] | None = None,
    git: bool = True,
    see: Callable[[str], Seen] = lambda _: Seen(),
) -> list[RollOutState]:
    """Lead each roll-out of an environment on by at most one step, or back.

    Args:
        name: Name of the environment.
        models: Only these models; all for which git names a bundle, without it.
        git: Whether the files at hand are a clone: then a bundle that they do not name any more is taken back, and
            git is told of a roll-back. What a pod has of git may be older than the roll-out.
        see: Returns what of the candidate's pods bears on the roll-out of a model.

    Raises:
        UsageError: if there is no such environment.
        PointerMovedError: if somebody else moved in the meantime.
        BundleError: if a bundle is not in the environment's store, whole and signed.
        GateError: if a gate or a demand failed or was not judged.
        ApprovalError: if too few have approved.
        TableError: if what was recorded of the candidate cannot be read.
        StoreError: if the store failed.
        ToolError: if git failed.
    """
    environment = open_environment(name)
    cases = [_open(environment, model) for model in models or declared_models(environment)]
    return [_advance(case, git=git, seen=see(case.model)) for case in cases if case is not None]


def how_it_ended(tried: RollOutState, name: str) -> RollOutState | None:
    """Return how a roll-out ended that somebody else led to its end; None while it goes on.

    Args:
        tried: Where it stood when it was looked at last.
        name: Name of the environment.

    Raises:
        StoreError: if the store failed.
    """
    records = pointer_log(open_environment(name).open_workspace(), name, tried.model).all()
    later = (record.content for record in records if record.number > tried.stage and is_move(record.content))
    said = next(later, None)
    if said is None:
        return None
    state: State = "rolled back" if said.get("kind") == ROLL_BACK else "served"
    return replace(tried, state=state, why=str(said.get("reason")))


def tell_git_of_roll_backs(name: str, *, models: list[str] | None = None) -> None:
    """Tell git of roll-backs by a guard that were killed before they could.

    Raises:
        UsageError: if there is no such environment.
        StoreError: if the store failed.
        ToolError: if git failed.
    """
    environment = open_environment(name)
    for model in models or declared_models(environment):
        tell_git(environment, model, by_guard=True)


def _open(environment: EnvironmentFolder, model: str) -> _Case | None:
    workspace = environment.open_workspace()
    pointer = read_pointer(workspace, environment.name, model)
    stage, rules = pointer.stage, environment.rules.rollout
    if stage is None:
        return None
    records = pointer_log(workspace, environment.name, model).all()
    begun = next(record for record in records if record.number == stage.number)
    return _Case(environment, rules or RollOut(), workspace, model, pointer, stage, begun, records)


def _load(case: _Case) -> Bundle:
    return load_bundle(case.workspace, case.stage.digest, case.environment.open_trust_root())


def guards_of(environment: EnvironmentFolder, rules: RollOut, bundle: Bundle) -> Guards:
    """Return what a candidate must keep to: its contract's own bounds for an environment, or the environment's."""
    own = bundle.contract.contract.environments.get(environment.name)
    return (own.guards if own else None) or rules.guards


def _judge(case: _Case, bundle: Bundle) -> Judged:
    rows = read_step(case.workspace, case.model, case.stage)
    guards = guards_of(case.environment, case.rules, bundle)
    return judge_guards(guards, rows, minimum_rows=case.rules.minimum_rows)


def _decide(
    case: _Case, judged: Judged, now: datetime, *, git: bool, seen: Seen
) -> tuple[Literal["on", "back", "wait"], str]:
    """Say what becomes of a roll-out, and why."""
    age = now - datetime.fromisoformat(str(case.begun.content["at"]))
    declared = read_declared(case.environment, case.model)
    named = declared is not None and (declared.digest, declared.follows) == (
        case.stage.digest,
        case.pointer.generation,
    )
    if git and not named:
        return "back", "git does not name it any more"
    tripped = [f"{v.check} is {v.value}, beyond {v.bound}: {v.message}" for v in judged.failed]
    if reasons := [reason for reason in (*tripped, seen.lost) if reason]:
        return "back", " ".join(reasons)
    unnamed = "" if named else "git, as it is known here, to name it"
    waiting = [*judged.waiting, *(one for one in (unnamed, seen.awaited) if one)]
    if waiting:
        if age > case.rules.maximum_time:
            return "back", f"not decided within {case.rules.maximum_time}: {', '.join(waiting)}"
        return "wait", f"waits for {', '.join(waiting)}"
    if age < case.rules.minimum_time:
        rest = timedelta(seconds=round((case.rules.minimum_time - age).total_seconds()))
        return "wait", f"every guard holds; the step lasts another {rest}"
    return "on", "every guard holds"


def _advance(case: _Case, *, git: bool, seen: Seen) -> RollOutState:
    bundle = _load(case)
    judged = _judge(case, bundle)
    decision, why = _decide(case, judged, datetime.now(UTC), git=git, seen=seen)
    said = [verdict.model_dump(mode="json") for verdict in judged.verdicts]
    if decision == "wait":
        return case.state("rolling out", judged, why)
    if decision == "back":
        roll_back(case.model, case.environment.name, reason=why, guards=said, expected=case.pointer, git=git)
        return case.state("rolled back", judged, why)
    declared = read_declared(case.environment, case.model)
    if declared is None:
        raise UsageError(f"Git does not name a bundle of {case.model} any more.")
    checked = check_move(case.environment, case.records, bundle, declared, at=datetime.now(UTC))
    content = {**checked, "guards": said, "reason": why}
    place = (case.workspace, case.environment.name, case.model)
    following = [weight for weight in case.rules.steps if weight > case.stage.weight]
    if following:
        begin_stage(*place, content, weight=following[0], expected=case.pointer)
        return case.state("rolling out", judged, f"{why}: on to {following[0]}%")
    move(*place, content, expected=case.pointer)
    return case.state("served", judged, why)
