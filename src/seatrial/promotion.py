"""Which bundle an environment serves: a pointer that moves by compare-and-swap.

The pointer of a model in an environment is a record log (:mod:`seatrial.record_log`): its newest
record names the bundle, the earlier ones are the history. Promotion re-checks what the bundle's
signed verdicts say, so a bundle that failed a gate cannot be served by asking nicely (threats: P9).
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime

from seatrial.bundle import Bundle
from seatrial.errors import GateError
from seatrial.record_log import Record, RecordLog
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace


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
        GateError: if one of the bundle's gates failed, or it has no verdicts.
        PointerMovedError: if somebody else promoted in the meantime.
    """
    failed = [verdict.check for verdict in bundle.verdicts if verdict.outcome is Outcome.FAIL]
    if failed or not bundle.verdicts:
        raise GateError(
            f"The bundle {bundle.digest[:12]} may not be promoted to {environment}: "
            f"{'these gates failed: ' + ', '.join(failed) if failed else 'it has no verdicts'}."
        )
    if expected.digest == bundle.digest:
        return expected
    content = {
        "digest": bundle.digest,
        "previous": expected.digest,
        "reason": reason,
        "by": getpass.getuser(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "as_of": as_of.isoformat(timespec="seconds"),
    }
    log = pointer_log(workspace, environment, bundle.manifest.model)
    return _pointer(log.append(content, after=expected.generation))
