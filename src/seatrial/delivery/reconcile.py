"""Make an environment what git says it is; the one way by which a prepared move comes true.

The move itself is one append to the record, after everything that it rests on was checked once more:
the bundle in the environment's own store, what its gates found, who approved. Run again, it finds
the move made and does only what is left, such as telling Kubernetes. A change in git that follows
another move than the newest is refused: somebody moved in the meantime (threats: P5).

Where the environment rolls bundles out, it is not the move that is made but the first step towards it;
:mod:`seatrial.delivery.rollout` makes those that follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from seatrial.bundle import Bundle, load_bundle
from seatrial.delivery.declared import Declared, declared_models, read_declared
from seatrial.delivery.proposal import approvals_needed, refuse_failed
from seatrial.errors import GateError, PointerMovedError
from seatrial.promotion.approvals import check_approvals, gates_record
from seatrial.promotion.environment import Demands, EnvironmentFolder, open_environment
from seatrial.promotion.pointer import (
    PROMOTION,
    Stage,
    begin_stage,
    is_move,
    move,
    pointer_log,
    read_pointer,
    refuse_ungated,
)
from seatrial.record_log import Record
from seatrial.verdicts import Verdict
from seatrial.workspace import Workspace

State = Literal["moved", "in step", "rolling out"]
_SHOWN = 12


@dataclass(frozen=True)
class Reconciled:
    """What became of one model.

    Attributes:
        model: The model's name.
        state: ``moved``: it is served since now; ``in step``: it was already; ``rolling out``: it is tried
            beside the one that serves.
        digest: The bundle that git names.
        generation: The pointer's generation.
        stage: Where its roll-out stands; None where it is served.
    """

    model: str
    state: State
    digest: str
    generation: int
    stage: Stage | None = None


def reconcile(name: str, *, models: list[str] | None = None) -> list[Reconciled]:
    """Let an environment serve what git says.

    Args:
        name: Name of the environment.
        models: Only these models; all for which git names a bundle, without it.

    Raises:
        UsageError: if there is no such environment.
        PointerMovedError: if git's change was prepared before somebody else moved.
        BundleError: if the bundle is not in the environment's store, whole and signed.
        GateError: if a gate or a demand failed or was not judged.
        ApprovalError: if too few have approved.
        StoreError: if the store failed.
    """
    environment = open_environment(name)
    workspace = environment.open_workspace()
    return [
        _reconcile_one(environment, workspace, model, declared)
        for model in models or declared_models(environment)
        if (declared := read_declared(environment, model)) is not None
    ]


def _reconcile_one(
    environment: EnvironmentFolder, workspace: Workspace, model: str, declared: Declared
) -> Reconciled:
    records = pointer_log(workspace, environment.name, model).all()
    made = move_to(records, declared, environment.name, model)
    if made is not None:
        return Reconciled(model, "in step", declared.digest, made.number)
    expected = read_pointer(workspace, environment.name, model)
    if expected.stage is not None and expected.stage.digest == declared.digest and environment.rules.rollout:
        return Reconciled(model, "rolling out", declared.digest, expected.generation, expected.stage)
    bundle = load_bundle(workspace, declared.digest, environment.open_trust_root())
    content = check_move(environment, records, bundle, declared, at=datetime.now(UTC))
    if expected.generation != declared.follows:
        raise _stale(environment.name, model, records, declared)
    if environment.rules.rollout is not None and expected.digest is not None:
        refuse_other_inputs(bundle, load_bundle(workspace, expected.digest, environment.open_trust_root()))
        weight = environment.rules.rollout.steps[0]
        pointer = begin_stage(workspace, environment.name, model, content, weight=weight, expected=expected)
        return Reconciled(model, "rolling out", declared.digest, pointer.generation, pointer.stage)
    pointer = move(workspace, environment.name, model, content, expected=expected)
    return Reconciled(model, "moved", declared.digest, pointer.generation)


def refuse_other_inputs(bundle: Bundle, serving: Bundle) -> None:
    """Refuse to roll a bundle out whose requests are not those of the one that serves.

    Raises:
        GateError: if its inputs are others: it cannot answer what the other is asked.
    """
    if bundle.schema.inputs != serving.schema.inputs:
        raise GateError(
            f"Bundle {bundle.digest[:_SHOWN]} has other inputs than {serving.digest[:_SHOWN]}, which serves: it cannot "
            "be tried with the same requests.",
            remedy="Take `rollout` out of environment.yaml for this one move.",
        )


def move_to(records: list[Record], declared: Declared, environment: str, model: str) -> Record | None:
    """Return the move that git's change asks for if it is the newest one, or None if it is yet to be made.

    Raises:
        PointerMovedError: if the newest move is another one, or the one that it follows is not recorded.
    """
    moves = [record for record in records if is_move(record.content)]
    if declared.follows and declared.follows not in [record.number for record in moves]:
        raise PointerMovedError(
            f"Git says that {environment} serves {declared.digest[:_SHOWN]} of {model} after move {declared.follows}, "
            "and no such move is recorded.",
            remedy="Is this the environment's own workspace? See: seatrial audit",
        )
    later = [record for record in moves if record.number > declared.follows]
    if not later:
        return None
    if len(later) == 1 and later[0].content["digest"] == declared.digest:
        return later[0]
    raise _stale(environment, model, records, declared)


def _stale(environment: str, model: str, records: list[Record], declared: Declared) -> PointerMovedError:
    last = [record for record in records if is_move(record.content)][-1]
    said = last.content
    return PointerMovedError(
        f"{environment} has moved on to {said['digest'][:_SHOWN]} of {model} ({said.get('kind', PROMOTION)} "
        f"{last.number} by {said['by']}, {said['at']}), and git still says {declared.digest[:_SHOWN]} after move "
        f"{declared.follows}.",
        remedy=f"Bring git in step with it, or propose anew: seatrial promote {model} --to {environment}",
    )


def check_move(
    environment: EnvironmentFolder,
    records: list[Record],
    bundle: Bundle,
    declared: Declared,
    *,
    at: datetime,
) -> dict[str, Any]:
    """Return what is recorded of a promotion, after all that it rests on was checked.

    Args:
        environment: The environment.
        records: The record of the model in it, before the move.
        bundle: The bundle, as the environment's store has it.
        declared: What git says.
        at: When the move is made.

    Raises:
        GateError: if a gate or a demand failed or was not judged.
        ApprovalError: if too few have approved.
    """
    refuse_ungated(bundle, environment.name)
    judged = gates_record(records, bundle.digest)
    verdicts = _read_verdicts(judged, environment, bundle.digest)
    refuse_failed(verdicts, bundle.digest, environment.name)
    model = bundle.manifest.model
    approvals = check_approvals(
        environment,
        records,
        model=model,
        digest=bundle.digest,
        follows=declared.follows,
        needed=approvals_needed(environment, bundle),
        at=at,
    )
    moves = [record for record in records if is_move(record.content)]
    return {
        "kind": PROMOTION,
        "digest": bundle.digest,
        "previous": moves[-1].content["digest"] if moves else None,
        "gates": judged.number if judged else None,
        "approvals": approvals,
        "reason": "git says so",
    }


def _read_verdicts(judged: Record | None, environment: EnvironmentFolder, digest: str) -> list[Verdict]:
    try:
        verdicts = TypeAdapter(list[Verdict]).validate_python(judged.content["verdicts"] if judged else [])
    except (ValidationError, LookupError):
        raise GateError(
            f"What the gates of {environment.name} found for bundle {digest[:_SHOWN]} cannot be read."
        ) from None
    demanded = {name for name in Demands.model_fields if getattr(environment.rules.demands, name) is not None}
    if missing := sorted({"serves", *demanded} - {verdict.check for verdict in verdicts}):
        raise GateError(
            f"{environment.name} demands of bundle {digest[:_SHOWN]} what was not judged: {', '.join(missing)}.",
            remedy=f"Let it be judged: seatrial promote MODEL --to {environment.name}",
        )
    return verdicts
