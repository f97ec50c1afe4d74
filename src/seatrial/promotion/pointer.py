"""Which bundle an environment serves: a pointer that moves by compare-and-swap, and is its own history.

All that is done about a model in an environment (what its gates found, approvals, promotions,
roll-backs) is appended to one record log (:mod:`seatrial.record_log`), and the newest move in it is
the pointer. So a move and its entry in the history are one write, which a kill cannot part, and two
who move at once cannot both win. A stage of a roll-out is a record likewise: it names a candidate that
is tried beside what is served, until a move ends the roll-out. Promotion re-checks what the bundle's
signed verdicts say, so a bundle that failed a gate cannot be served by asking nicely (threats: P9).
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from seatrial.bundle import Bundle
from seatrial.errors import BundleError, GateError, PointerMovedError, StoreError, UsageError
from seatrial.record_log import Record, RecordLog
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace

LOOK_SECONDS = 1.0
SAY_SECONDS = 30.0
DATA_TESTS = "data_tests"
"""Name of the verdict over all data tests: no contract can leave it out."""
PROMOTION, ROLL_BACK, STAGE = "promotion", "roll-back", "stage"
MOVES = (PROMOTION, ROLL_BACK)
"""Kinds of records that move the pointer. A stage says which candidate is tried beside it; all others only
tell of something."""
ATTEMPTS = 100


@dataclass(frozen=True)
class Stage:
    """Where a roll-out stands: a candidate that is tried beside the bundle that is served.

    Attributes:
        number: Number of the record that began the stage.
        digest: Digest of the candidate.
        weight: Requests of a hundred that the candidate answers; 0 in the shadow, where its answers are
            compared and not returned.
    """

    number: int
    digest: str
    weight: int

    def __str__(self) -> str:
        """Return the stage in words."""
        return f"canary of {self.weight}%" if self.weight else "shadow"


@dataclass(frozen=True)
class Pointer:
    """What an environment serves.

    Attributes:
        generation: Number of the record that moved it, counted from 1; 0 where nothing is served yet.
        digest: Digest of the bundle; None where nothing is served yet.
        as_of: Instant of the run that moved it, ISO 8601; it is older than the wall clock in a replay.
        stage: Where a roll-out stands; None where nothing is rolled out.
    """

    generation: int
    digest: str | None
    as_of: str | None = None
    stage: Stage | None = None


def pointer_log(workspace: Workspace, environment: str, model: str) -> RecordLog:
    """Return the record of a model in an environment."""
    return RecordLog(workspace, f"environments/{environment}/{model}")


def read_pointer(workspace: Workspace, environment: str, model: str) -> Pointer:
    """Return what an environment serves, and what is tried beside it.

    Raises:
        StoreError: if the store failed or a record is damaged.
    """
    last = pointer_log(workspace, environment, model).newest(is_step)
    return _pointer(last) if last else Pointer(0, None)


def is_move(content: dict[str, Any]) -> bool:
    """Return whether a record moves the pointer; the first version of the format had moves alone."""
    return content.get("kind", PROMOTION) in MOVES


def is_step(content: dict[str, Any]) -> bool:
    """Return whether a record changes what servers do: a move, or a stage of a roll-out."""
    return is_move(content) or content.get("kind") == STAGE


def previous_bundle(records: list[Record]) -> str | None:
    """Return the digest that a roll-back returns to, or None where there is none.

    A promotion puts a bundle upon those before; a roll-back takes off what lies upon the one that it
    returned to. So two roll-backs go back by two, and do not swing to and fro.

    Args:
        records: The record of a model in an environment, oldest first.
    """
    served: list[str] = []
    for content in (record.content for record in records if is_move(record.content)):
        digest = content["digest"]
        if content.get("kind") == ROLL_BACK and digest in served:
            del served[len(served) - served[::-1].index(digest) :]
        else:
            served.append(digest)
    return served[-2] if len(served) > 1 else None


def wait_for_bundle(
    workspace: Workspace,
    environment: str,
    model: str,
    *,
    report: Callable[[str], None],
    limit_seconds: float | None = None,
) -> Pointer:
    """Wait until an environment serves a bundle of a model, also while the store does not answer.

    Args:
        workspace: Where the pointer lies.
        environment: Name of the environment.
        model: The model's name.
        report: Told what is waited for, when that changes and every half minute.
        limit_seconds: How long; None: for ever.

    Raises:
        BundleError: if the time is over.
    """
    begun = time.monotonic()
    told, told_at = "", begun
    while True:
        try:
            pointer = read_pointer(workspace, environment, model)
            why = f"The environment {environment!r} serves no bundle of {model!r} yet."
        except StoreError as error:
            pointer, why = Pointer(0, None), error.message
        if pointer.digest is not None:
            return pointer
        now = time.monotonic()
        if limit_seconds is not None and now - begun >= limit_seconds:
            raise BundleError(why, remedy=f"Train one that passes its gates: seatrial train {model}")
        if why != told or now - told_at > SAY_SECONDS:
            report(f"Waiting: {why}")
            told, told_at = why, now
        time.sleep(LOOK_SECONDS)


def _pointer(record: Record) -> Pointer:
    said = record.content
    if is_move(said):
        return Pointer(record.number, said["digest"], said.get("as_of"))
    try:
        stage = Stage(record.number, str(said["digest"]), int(said["weight"]))
        return Pointer(int(said["follows"]), str(said["previous"]), said.get("as_of"), stage)
    except (LookupError, ValueError) as error:
        raise StoreError(f"The record {record.number} is damaged: it is no stage ({error}).") from None


def promote(
    workspace: Workspace,
    bundle: Bundle,
    *,
    environment: str,
    expected: Pointer,
    reason: str,
    as_of: datetime,
) -> Pointer:
    """Let an environment serve a bundle.

    Args:
        workspace: Where the pointer lies.
        bundle: The bundle, loaded and checked.
        environment: Name of the environment.
        expected: What the environment served when the promotion was decided.
        reason: Why, for the history.
        as_of: Instant of the run.

    Returns:
        The pointer afterwards. Promoting what is served already changes nothing.

    Raises:
        UsageError: if the bundle's contract has no such environment.
        BundleError: if the bundle's verdicts cannot be read.
        GateError: if one of the gates of the bundle's contract failed or has no verdict.
        PointerMovedError: if somebody else promoted in the meantime.
    """
    contract = bundle.contract.contract
    if environment not in contract.environments:
        raise UsageError(
            f"The contract of {contract.name} has no environment {environment!r}. "
            f"It has: {', '.join(contract.environments)}."
        )
    refuse_ungated(bundle, environment)
    as_of_text = as_of.isoformat(timespec="seconds")
    content = {"kind": PROMOTION, "digest": bundle.digest, "previous": expected.digest, "reason": reason}
    return move(workspace, environment, contract.name, {**content, "as_of": as_of_text}, expected=expected)


def move(
    workspace: Workspace, environment: str, model: str, content: dict[str, Any], *, expected: Pointer
) -> Pointer:
    """Let an environment serve the bundle ``content["digest"]``; what is served already changes nothing.

    A move ends a roll-out, also one to what is served already: the candidate is not tried any more.

    Raises:
        PointerMovedError: if somebody else moved it in the meantime.
        StoreError: if the store failed.
    """
    current = read_pointer(workspace, environment, model)
    if current == expected and current.stage is None and current.digest == content["digest"]:
        return current
    return _pointer(append(workspace, environment, model, content, expected=expected))


def begin_stage(
    workspace: Workspace,
    environment: str,
    model: str,
    content: dict[str, Any],
    *,
    weight: int,
    expected: Pointer,
) -> Pointer:
    """Let a candidate be tried beside what is served, or by more requests than before.

    Args:
        workspace: Where the pointer lies.
        environment: Name of the environment.
        model: The model's name.
        content: What the record says, with the candidate's ``digest``.
        weight: Requests of a hundred that the candidate shall answer; 0: none, it is compared alone.
        expected: What the environment served and tried when it was decided.

    Raises:
        PointerMovedError: if somebody else moved in the meantime.
        StoreError: if the store failed.
    """
    said = {**content, "kind": STAGE, "weight": weight, "previous": expected.digest, "as_of": expected.as_of}
    return _pointer(append(workspace, environment, model, said, expected=expected))


def append(
    workspace: Workspace, environment: str, model: str, content: dict[str, Any], *, expected: Pointer
) -> Record:
    """Append to the record of a model in an environment, with who and when.

    Args:
        workspace: Where the record lies.
        environment: Name of the environment.
        model: The model's name.
        content: What was done.
        expected: What the environment served when it was decided.

    Raises:
        PointerMovedError: if the pointer is another by now.
        StoreError: if the store failed.
    """
    log = pointer_log(workspace, environment, model)
    written = {**content, "follows": expected.generation, "by": content.get("by") or user(), "at": now()}
    for _ in range(ATTEMPTS):
        last = log.last()
        # Looked at after the end of the log: what follows that end is seen, or refuses the append.
        current = read_pointer(workspace, environment, model)
        if current != expected:
            raise PointerMovedError(
                f"{environment} has moved from {shown(expected)} to {shown(current)} in the meantime.",
                remedy="Look at what it serves now and try again.",
            )
        try:
            return log.append(written, after=last.number if last else 0)
        except PointerMovedError:
            continue  # Somebody else wrote; unless it was a move, there is room behind it.
    raise PointerMovedError(
        f"The record of {model} in {environment} moved on {ATTEMPTS} times in the meantime.",
        remedy="Try again when fewer write to it.",
    )


def refuse_ungated(bundle: Bundle, environment: str) -> None:
    """Refuse a bundle that one of its own gates failed, or did not judge.

    Raises:
        GateError: if one of the gates of the bundle's contract failed or has no verdict.
        BundleError: if the bundle's verdicts cannot be read.
    """
    contract = bundle.contract.contract
    judged = {verdict.check for verdict in bundle.verdicts}
    demanded = {DATA_TESTS, *(name for name, gate in contract.gates if gate is not None)}
    wrong = [f"{v.check} failed" for v in bundle.verdicts if v.outcome is Outcome.FAIL]
    wrong += [f"{name} has no verdict" for name in sorted(demanded - judged)]
    if wrong:
        raise GateError(
            f"The bundle {bundle.digest[:12]} may not be promoted to {environment}: {', '.join(wrong)}."
        )


def shown(pointer: Pointer) -> str:
    """Return a pointer in words."""
    what = pointer.digest[:12] if pointer.digest else "nothing"
    tried = f", {pointer.stage} of {pointer.stage.digest[:12]}" if pointer.stage else ""
    return f"{what} (generation {pointer.generation}{tried})"


def now() -> str:
    """Return the instant, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def user() -> str:
    """Return who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user may have a number and no name.
        return f"uid {os.getuid()}"
