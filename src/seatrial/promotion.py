"""Which bundle an environment serves: a pointer that moves by compare-and-swap.

The pointer of a model in an environment is a record log (:mod:`seatrial.record_log`): its newest
record names the bundle, the earlier ones are the history. Promotion re-checks what the bundle's
signed verdicts say, so a bundle that failed a gate cannot be served by asking nicely (threats: P9).
"""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from seatrial.bundle import Bundle
from seatrial.errors import BundleError, GateError, PointerMovedError, StoreError, UsageError
from seatrial.record_log import Record, RecordLog
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace

LOOK_SECONDS = 1.0
SAY_SECONDS = 30.0
DATA_TESTS = "data_tests"
"""Name of the verdict over all data tests: no contract can leave it out."""


@dataclass(frozen=True)
class Pointer:
    """What an environment serves.

    Attributes:
        generation: Number of the move, counted from 1; 0 where nothing is served yet.
        digest: Digest of the bundle; None where nothing is served yet.
        as_of: Instant of the run that moved it, ISO 8601; it is older than the wall clock in a replay.
    """

    generation: int
    digest: str | None
    as_of: str | None = None


def pointer_log(workspace: Workspace, environment: str, model: str) -> RecordLog:
    """Return the log behind a pointer."""
    return RecordLog(workspace, f"environments/{environment}/{model}")


def read_pointer(workspace: Workspace, environment: str, model: str) -> Pointer:
    """Return what an environment serves."""
    last = pointer_log(workspace, environment, model).last()
    return _pointer(last) if last else Pointer(0, None)


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
    return Pointer(record.number, record.content["digest"], record.content.get("as_of"))


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
    _refuse_ungated(bundle, environment)
    current = read_pointer(workspace, environment, bundle.manifest.model)
    if current != expected:
        raise PointerMovedError(
            f"{environment} has moved from {_shown(expected)} to {_shown(current)} in the meantime.",
            remedy="Look at what it serves now and try again.",
        )
    if current.digest == bundle.digest:
        return current
    content = {
        "digest": bundle.digest,
        "previous": expected.digest,
        "reason": reason,
        "by": _user(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "as_of": as_of.isoformat(timespec="seconds"),
    }
    log = pointer_log(workspace, environment, bundle.manifest.model)
    return _pointer(log.append(content, after=expected.generation))


def _refuse_ungated(bundle: Bundle, environment: str) -> None:
    contract = bundle.contract.contract
    if environment not in contract.environments:
        raise UsageError(
            f"The contract of {contract.name} has no environment {environment!r}. "
            f"It has: {', '.join(contract.environments)}."
        )
    judged = {verdict.check for verdict in bundle.verdicts}
    demanded = {DATA_TESTS, *(name for name, gate in contract.gates if gate is not None)}
    wrong = [f"{v.check} failed" for v in bundle.verdicts if v.outcome is Outcome.FAIL]
    wrong += [f"{name} has no verdict" for name in sorted(demanded - judged)]
    if wrong:
        raise GateError(
            f"The bundle {bundle.digest[:12]} may not be promoted to {environment}: {', '.join(wrong)}."
        )


def _shown(pointer: Pointer) -> str:
    what = pointer.digest[:12] if pointer.digest else "nothing"
    return f"{what} (generation {pointer.generation})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A container's user may have a number and no name.
        return f"uid {os.getuid()}"
