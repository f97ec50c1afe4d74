"""Prepare a move: find the bundle, judge it, copy it, and write the change on a branch of git.

Nothing is served by this. Every step can be made again: the copy is create-only, the verdicts are
appended to the record, the branch moves by compare-and-swap. So a kill at any moment leaves nothing
that must be repaired by hand, and the same command finishes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from seatrial.bundle import Bundle, TrustRoot, copy_bundle, load_bundle
from seatrial.bundle.store import find_bundle
from seatrial.delivery.declared import Declared, changed_files
from seatrial.delivery.demands import Case, judge_demands
from seatrial.delivery.difference import describe
from seatrial.delivery.git import Branch, repository_of, write_branch
from seatrial.errors import BundleError, GateError, UntrustedBundleError
from seatrial.promotion.approvals import GATES
from seatrial.promotion.environment import EnvironmentFolder, environment_before, open_environment
from seatrial.promotion.pointer import Pointer, append, read_pointer, refuse_ungated
from seatrial.verdicts import Outcome, Verdict
from seatrial.workspace import Workspace

_SHOWN = 12


@dataclass(frozen=True)
class Proposal:
    """A move that was prepared, or would be.

    Attributes:
        environment: Where to.
        model: The model's name.
        digest: The bundle's digest.
        serving: Digest of what is served there now; None where there is nothing.
        verdicts: What the environment's demands found.
        text: What changes, as Markdown.
        branch: The branch of git with the change; None if only shown, or if it is served already.
    """

    environment: str
    model: str
    digest: str
    serving: str | None
    verdicts: list[Verdict]
    text: str
    branch: Branch | None


@dataclass(frozen=True)
class _Move:
    """What is known of a move before anything is written."""

    environment: EnvironmentFolder
    source: Workspace
    target: Workspace
    trust: TrustRoot
    bundle: Bundle
    serving: Bundle | None
    pointer: Pointer


def approvals_needed(environment: EnvironmentFolder, bundle: Bundle) -> int:
    """Return how many persons must approve: what the environment asks for, or the contract if that is more."""
    contract = bundle.contract.contract.environments.get(environment.name)
    return max(environment.rules.approvals, contract.approvals if contract else 0)


def propose(model: str, to: str, *, digest: str = "", as_of: datetime, dry_run: bool = False) -> Proposal:
    """Prepare that an environment serves a bundle.

    Args:
        model: The model's name.
        to: Name of the environment.
        digest: Beginning of the bundle's digest; without it, what the environment before serves.
        as_of: Instant of the promotion.
        dry_run: Whether only to look.

    Returns:
        What was prepared; its branch is None where only looked, or where it is served already.

    Raises:
        UsageError: if there is no such environment.
        BundleError: if there is no bundle to promote, or it is not what it must be.
        GateError: if a gate of the bundle or a demand of the environment failed; it is recorded.
        PointerMovedError: if the environment moved in the meantime.
        StoreError: if a store failed.
        ToolError: if git failed.
    """
    move = _look(model, to, digest)
    refuse_ungated(move.bundle, to)
    case = Case(move.bundle, move.serving, move.source, move.target, as_of, move.trust, move.environment)
    verdicts = judge_demands(move.environment.rules.demands, case)
    needed = approvals_needed(move.environment, move.bundle)
    text = describe(move.environment, move.bundle, move.serving, move.pointer, verdicts, approvals=needed)
    branch = None
    if not dry_run and move.pointer.digest != move.bundle.digest:
        branch = _prepare(move, verdicts, text)
    return Proposal(to, model, move.bundle.digest, move.pointer.digest, verdicts, text, branch)


def _look(model: str, to: str, digest: str) -> _Move:
    environment = open_environment(to)
    before = environment_before(environment)
    source, target = before.open_workspace(), environment.open_workspace()
    wanted = find_bundle(source, digest) if digest else read_pointer(source, before.name, model).digest
    if wanted is None:
        raise BundleError(
            f"{before.name} serves no bundle of {model!r}, so there is none to promote to {to}.",
            remedy=f"Name one: seatrial promote {model} --to {to} --bundle DIGEST",
        )
    trust = environment.open_trust_root()
    try:
        bundle = load_bundle(source, wanted, trust)
    except UntrustedBundleError as error:
        remedy = f"If you trust its maker: seatrial environments trust {to} KEY.pem"
        raise UntrustedBundleError(f"{to}: {error.message}", remedy=remedy) from None
    if bundle.manifest.model != model:
        raise BundleError(
            f"The bundle {wanted[:_SHOWN]} is one of the model {bundle.manifest.model!r}. Expected {model!r}."
        )
    pointer = read_pointer(target, to, model)
    serving = load_bundle(target, pointer.digest, trust) if pointer.digest else None
    return _Move(environment, source, target, trust, bundle, serving, pointer)


def _prepare(move: _Move, verdicts: list[Verdict], text: str) -> Branch:
    environment, digest, model = move.environment, move.bundle.digest, move.bundle.manifest.model
    copy_bundle(move.source, move.target, digest, move.trust)
    content: dict[str, Any] = {
        "kind": GATES,
        "digest": digest,
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
    }
    append(move.target, environment.name, model, content, expected=move.pointer)
    refuse_failed(verdicts, digest, environment.name)
    files = changed_files(environment, model, Declared(digest, move.pointer.generation))
    subject = f"{environment.name} serves {model} {digest[:_SHOWN]}"
    return write_branch(
        repository_of(environment.folder),
        f"promote/{environment.name}/{model}/{digest[:_SHOWN]}",
        files,
        f"{subject}\n\n{text}",
    )


def refuse_failed(verdicts: list[Verdict], digest: str, environment: str) -> None:
    """Refuse a bundle that does not meet an environment's demands.

    Raises:
        GateError: if one of them failed; all that did are named.
    """
    failed = [f"{v.check} ({v.message})" for v in verdicts if v.outcome is Outcome.FAIL]
    if failed:
        raise GateError(
            f"The bundle {digest[:_SHOWN]} does not meet what {environment} demands: {' '.join(failed)}"
        )
