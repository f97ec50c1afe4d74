"""Return to the bundle before, at once; git is told afterwards.

A roll-back wants no gates, and nobody is waited for: what it returns to had its approvals. Where the
environment wants approvals, the one person who rolls back signs it. It is one append to the
record, and the change of git that says the same is written on a branch and into the files that
`kubectl apply -k` takes. Until git is in step, nothing moves forward again by itself: what git says
follows an older move, and is refused. A roll-back that was killed before git was told, or a cluster before
it, is finished by the same command; only then does the next one go back further. While a bundle is rolled
out, the way back is to the one that serves: the candidate is taken back, and what is served stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.bundle import Bundle, Signer, load_bundle
from seatrial.bundle.store import find_bundle
from seatrial.delivery.declared import Declared, bundle_file, changed_files, read_declared
from seatrial.delivery.git import Branch, fetch_branch, push_branch, repository_of, write_branch
from seatrial.delivery.proposal import approvals_needed
from seatrial.errors import ApprovalError, BundleError, UsageError
from seatrial.promotion.approvals import sign_roll_back
from seatrial.promotion.environment import EnvironmentFolder, open_environment
from seatrial.promotion.pointer import (
    ROLL_BACK,
    Pointer,
    is_move,
    move,
    pointer_log,
    previous_bundle,
    read_pointer,
)
from seatrial.record_log import Record
from seatrial.workspace import Workspace

Told = Callable[[dict[Path, bytes]], object]
"""Is told of a roll-back, by the files that say so."""
GUARDS = "guards"
"""Key of a record for what the guards of a roll-out found."""
_SHOWN = 12


@dataclass(frozen=True)
class RolledBack:
    """A roll-back.

    Attributes:
        digest: The bundle that is served now.
        previous: The one that was served before it.
        generation: The pointer's generation.
        branch: The branch on which git says so; None where git names no bundle of this model.
        files: The files that say so, by their paths.
    """

    digest: str
    previous: str | None
    generation: int
    branch: Branch | None
    files: dict[Path, bytes]


def roll_back(
    model: str,
    name: str,
    *,
    to: str = "",
    reason: str,
    signer: Signer | None = None,
    guards: list[dict[str, Any]] | None = None,
    expected: Pointer | None = None,
    git: bool = True,
    first: Told | None = None,
    then: Told | None = None,
) -> RolledBack:
    """Let an environment serve the bundle that it served before, or take a candidate back.

    Args:
        model: The model's name.
        name: Name of the environment.
        to: Beginning of another bundle's digest that it has served; without it, the one before.
        reason: Why, for the record.
        signer: The person's key, where the environment wants approvals.
        guards: What the guards of a roll-out found, where it is they who take the candidate back.
        expected: What the environment served and tried when it was decided; without it, what it does now.
        git: Whether git is told; if not, whoever reconciles in a clone next tells it.
        first: Is given the files that will say so, by their paths, before anything is moved, and may refuse.
        then: Is given them when it is moved, before git is told, as to tell a cluster. Where it fails, the same
            command does it again.

    Raises:
        UsageError: if there is none to return to, or it was never served there.
        BundleError: if it is not in the store any more, whole and signed.
        ApprovalError: if the environment wants approvals, and the key is missing or may not approve.
        PointerMovedError: if somebody else moved in the meantime.
        StoreError: if the store failed.
        ToolError: if git failed; it is rolled back all the same.
    """
    environment = open_environment(name)
    workspace = environment.open_workspace()
    expected = expected or read_pointer(workspace, name, model)
    records = pointer_log(workspace, name, model).all()
    moves = [record for record in records if is_move(record.content)]
    tried = expected.stage.digest if expected.stage else None
    if not to and not tried and (untold := _finish(environment, model, moves, then)) is not None:
        return untold
    if to:
        digest: str | None = find_bundle(workspace, to)
    else:
        digest = expected.digest if tried else previous_bundle(records)
    if digest is None or digest not in [record.content["digest"] for record in moves]:
        raise UsageError(
            f"{name} has not served {'another bundle' if digest is None else f'bundle {to}'} of {model} before, "
            "so there is none to return to.",
            remedy=f"See what was served: seatrial history {model} --env {name}",
        )
    bundle = _load(environment, workspace, digest)
    previous = tried or expected.digest
    content: dict[str, Any] = {"kind": ROLL_BACK, "digest": digest, "previous": previous, "reason": reason}
    if guards is not None:
        content[GUARDS] = guards
    elif approvals_needed(environment, bundle) or signer is not None:
        content |= _signature(environment, model, digest, signer, expected.generation, reason)
    declared = Declared(digest, expected.generation)
    if first is not None:
        first(_files(environment, model, declared))
    pointer = move(workspace, name, model, content, expected=expected)
    if then is not None:
        then(_files(environment, model, declared))
    branch, files = _tell_git(environment, model, declared, reason) if git else (None, {})
    return RolledBack(digest, previous, pointer.generation, branch, files)


def _load(environment: EnvironmentFolder, workspace: Workspace, digest: str) -> Bundle:
    try:
        return load_bundle(workspace, digest, environment.open_trust_root())
    except BundleError as error:
        raise BundleError(
            f"{environment.name} cannot return to bundle {digest[:_SHOWN]}: {error.message}",
            remedy="Copy its files back from the store of the environment that it came from.",
        ) from None


def _signature(
    environment: EnvironmentFolder, model: str, digest: str, signer: Signer | None, follows: int, reason: str
) -> dict[str, Any]:
    if signer is None:
        raise ApprovalError(
            f"{environment.name} wants to know who rolls {model} back: one of its approvers.",
            remedy=f"Sign it: seatrial rollback {model} --env {environment.name} --key KEY.pem",
        )
    return sign_roll_back(environment, model, digest, signer=signer, follows=follows, reason=reason)


@dataclass(frozen=True)
class Untold:
    """A roll-back that git, as it is checked out, does not say yet.

    Attributes:
        model: The model's name.
        digest: The bundle that is served now.
        previous: The one that was served, or tried, before it.
        by: Who rolled back.
        at: When, ISO 8601.
        reason: Why.
        branch: The branch on which git says so.
        new: Whether the branch was written, or given to the remote, just now.
    """

    model: str
    digest: str
    previous: str | None
    by: str
    at: str
    reason: str
    branch: Branch
    new: bool


def tell_git(
    environment: EnvironmentFolder, model: str, *, remote: str = "", by_guard: bool = False
) -> Untold | None:
    """Tell git on a branch of the newest move, if it is a roll-back of which it does not know; move nothing.

    Args:
        environment: The environment.
        model: The model's name.
        remote: Name or address of a remote that is to have the branch, too; empty: none.
        by_guard: Whether only of one that a guard made.

    Returns:
        The roll-back; None where git knows of it, where there is none, or git names no bundle of the model.

    Raises:
        StoreError: if the store failed.
        ToolError: if git failed, or the remote refused.
    """
    record = pointer_log(environment.open_workspace(), environment.name, model).newest(is_move)
    if record is None or (by_guard and GUARDS not in record.content):
        return None
    declared = _untold(environment, model, [record])
    if declared is None or not _files(environment, model, declared):
        return None
    repository = repository_of(environment.folder)
    before = fetch_branch(repository, remote, _branch(environment, model, declared)) if remote else ""
    said = record.content
    branch, _ = _tell_git(environment, model, declared, said["reason"])
    assert branch is not None
    new = branch.new
    if remote and branch.commit != before:
        push_branch(repository, remote, branch, before=before)
        new = True
    return Untold(
        model,
        declared.digest,
        said["previous"],
        said["by"],
        said["at"],
        said["reason"],
        branch,
        new,
    )


def _untold(environment: EnvironmentFolder, model: str, moves: list[Record]) -> Declared | None:
    """Return what a roll-back that is the newest move would have git say; None where git says it, or what follows."""
    if not moves or moves[-1].content.get("kind") != ROLL_BACK:
        return None
    said, now = moves[-1].content, read_declared(environment, model)
    declared = Declared(said["digest"], said["follows"])
    is_known = now is not None and (now == declared or now.follows >= moves[-1].number)
    return None if is_known else declared


def _finish(
    environment: EnvironmentFolder, model: str, moves: list[Record], then: Told | None
) -> RolledBack | None:
    """Tell git, and who hears of it before, of a roll-back that was killed before that; None where there is none."""
    declared = _untold(environment, model, moves)
    if declared is None:
        return None
    said = moves[-1].content
    if then is not None:
        then(_files(environment, model, declared))
    branch, files = _tell_git(environment, model, declared, said["reason"])
    if branch is None or not branch.new:
        return None
    return RolledBack(declared.digest, said["previous"], moves[-1].number, branch, files)


def _branch(environment: EnvironmentFolder, model: str, declared: Declared) -> str:
    return f"rollback/{environment.name}/{model}/{declared.digest[:_SHOWN]}"


def _files(environment: EnvironmentFolder, model: str, declared: Declared) -> dict[Path, bytes]:
    """Return the files that say which bundle is served; none where git names no bundle of the model."""
    there = bundle_file(environment, model).is_file()
    return changed_files(environment, model, declared) if there else {}


def _tell_git(
    environment: EnvironmentFolder, model: str, declared: Declared, reason: str
) -> tuple[Branch | None, dict[Path, bytes]]:
    files = _files(environment, model, declared)
    if not files:
        return None, files
    branch = write_branch(
        repository_of(environment.folder),
        _branch(environment, model, declared),
        files,
        f"{environment.name} serves {model} {declared.digest[:_SHOWN]} again\n\n{reason}\n",
    )
    return branch, files
