"""Ship the log's finished segments into the Delta tables ``predictions``, ``outcomes`` and ``comparisons``.

Segments go in order, several to a commit, and each commit carries for every epoch of the log the
number of its last segment as a Delta application transaction. A shipper that is killed between the
commit and the deletion of the segments ships them again, the table answers that it has them, and
they count once (threats: F5). A store that fails only delays: the segments stay where they are.

Where several servers keep their logs side by side, a folder each, one that never comes back leaves
its folder to the others: whoever gets its lock ships what is in it, and removes it (threats: F8).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from seatrial.errors import FeedbackError, SeatrialError
from seatrial.feedback.log import DAMAGED, LOCK, FeedbackLog, Segment
from seatrial.feedback.rows import STATISTICS, TABLES, Rows, read_rows
from seatrial.feedback.segments import scan
from seatrial.tables import Tables
from seatrial.workspace import Workspace

LAYER = "feedback"
FIRST_COMMIT_BYTES, COMMIT_BYTES = 8 * 1024 * 1024, 64 * 1024 * 1024
"""What the first commit of a round takes at most, and what any does."""
LONGEST_WAIT = 60.0
LEFT_AFTER_SECONDS = 60.0
"""A log that nobody has touched for so long is left behind; a server that crashed is back before."""


@dataclass(frozen=True)
class Shipped:
    """What one round of shipping did.

    Attributes:
        segments: Segments that are in the tables now.
        damaged: Bytes in them that belonged to no record.
    """

    segments: int = 0
    damaged: int = 0


@dataclass(frozen=True)
class _Read:
    segment: Segment
    rows: Rows
    damaged: int


def feedback_tables(workspace: Workspace, model: str) -> Tables:
    """Return the tables that a model's feedback is in."""
    return Tables(workspace, model, LAYER)


def ship(log: FeedbackLog, tables: Tables) -> Shipped:
    """Put all that the log holds into the tables, and delete what is there.

    Args:
        log: The log; the segment being written is sealed first.
        tables: The feedback tables.

    Raises:
        TableError: if a table cannot be used; what was not shipped stays in the log.
        StoreError: if the store failed, likewise.
        FeedbackError: if a segment cannot be read, likewise.
    """
    log.seal()
    segments = damaged = 0
    # Of all epochs together: a server that crashes again and again leaves one of a few records each time.
    for chunk in _chunks(log.segments()):
        read = [_read(segment) for segment in chunk]
        for table in TABLES:
            _append(tables, table, read)
        for one in read:
            log.release(one.segment, keep=one.damaged > 0)
        segments += len(read)
        damaged += sum(one.damaged for one in read)
    return Shipped(segments, damaged)


def ship_left_behind(log: FeedbackLog, tables: Tables, *, after: float = LEFT_AFTER_SECONDS) -> Shipped:
    """Ship the logs that servers that are gone left beside this one, and remove their folders.

    A folder that a server has is locked and is left alone; so is one that was touched a moment ago,
    because its server may only be starting again. A damaged segment stays, and its folder with it.

    Args:
        log: The log of this server; the folders beside its own are looked at.
        tables: The feedback tables.
        after: Seconds that nobody must have touched a log for.

    Raises:
        TableError: if a table cannot be used; what was not shipped stays in its folder.
        StoreError: if the store failed, likewise.
        FeedbackError: if a segment cannot be read, likewise.
    """
    segments = damaged = 0
    for lock in log.folder.parent.glob(f"*/{LOCK}"):
        if lock.parent == log.folder or not _rests(lock.parent, after):
            continue
        try:
            left = FeedbackLog(lock.parent)
        except FeedbackError:
            continue  # A server has it.
        try:
            shipped = ship(left, tables)
            _remove(left)
        finally:
            left.close()
        segments += shipped.segments
        damaged += shipped.damaged
    return Shipped(segments, damaged)


def _rests(folder: Path, after: float) -> bool:
    """Whether there is something to ship or to remove, and nobody has touched it for a while."""
    try:
        found = {path.name: path.stat().st_mtime for path in folder.iterdir()}
    except FileNotFoundError:
        return False  # Another server was faster.
    if any(name.endswith(DAMAGED) for name in found) and not any(".segment" in name for name in found):
        return False
    return max(found.values(), default=time.time()) < time.time() - after


def _remove(log: FeedbackLog) -> None:
    """Remove a log's folder while its lock is held; a server that wants it makes it anew."""
    if list(log.folder.iterdir()) == [log.folder / LOCK]:
        (log.folder / LOCK).unlink()
        with contextlib.suppress(OSError):
            log.folder.rmdir()


def _chunks(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield segments in groups that fit into memory, so that a long backlog drains all the same.

    The first is small, and each may be twice as large as the one before: a server that is killed again and again,
    soon after its start, ships something each time, and one that lives does it in few commits.
    """
    chunk: list[Segment] = []
    size, limit = 0, min(FIRST_COMMIT_BYTES, COMMIT_BYTES)
    for segment in segments:
        own = segment.path.stat().st_size
        if chunk and size + own > limit:
            yield chunk
            chunk, size, limit = [], 0, min(2 * limit, COMMIT_BYTES)
        chunk.append(segment)
        size += own
    if chunk:
        yield chunk


def _read(segment: Segment) -> _Read:
    try:
        found = scan(segment.path.read_bytes())
    except OSError as error:
        raise FeedbackError(f"The segment {segment.path} cannot be read: {error.strerror}.") from error
    rows = read_rows(found.payloads)
    # A sealed segment is whole, so what follows its last record is damage; without a seal its
    # writer was killed, and a torn record at the end was never answered.
    return _Read(segment, rows, found.damaged + (found.torn if rows.seals else 0))


def _append(tables: Tables, table: str, read: list[_Read]) -> None:
    there = tables.positions(table, {_stream(one.segment) for one in read})
    new = [one for one in read if one.segment.number > there[_stream(one.segment)]]
    frames = [one.rows.of(table) for one in new]
    if any(frame.height for frame in frames):
        tables.append(
            table,
            pl.concat(frames),
            # In the segments' order, so the last of an epoch stays.
            positions={_stream(one.segment): one.segment.number for one in new},
            facts={"source": "feedback log"},
            statistics=STATISTICS[table],
        )


def _stream(segment: Segment) -> str:
    return f"feedback:{segment.epoch}"


class Shipper:
    """A thread that ships every few seconds, and once more when it is stopped.

    Args:
        log: The log.
        tables: The feedback tables.
        every: Seconds between two rounds.
        report: Where to say what went wrong, a line at a time.
        collect: Whether to ship what servers that are gone left in the folders beside the log's own.
    """

    def __init__(
        self,
        log: FeedbackLog,
        tables: Tables,
        *,
        every: float,
        report: Callable[[str], None],
        collect: bool = False,
    ) -> None:
        self._log = log
        self._tables = tables
        self._every = every
        self._report = report
        self._collect = collect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feedback-shipper", daemon=True)

    def start(self) -> None:
        """Begin shipping in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Ship a last time and end the thread; what the store refuses stays in the log."""
        self._stop.set()
        self._thread.join()
        self.ship()

    def ship(self) -> bool:
        """Ship once, and report what went wrong; return whether nothing did."""
        try:
            shipped = ship(self._log, self._tables)
            left = ship_left_behind(self._log, self._tables) if self._collect else Shipped()
        except (SeatrialError, OSError) as error:
            self._report(f"Feedback was not shipped, and stays in {self._log.folder}: {error}")
            return False
        if left.segments:
            self._report(f"{left.segments} segments that a server left behind were shipped.")
        for damaged, folder in ((shipped.damaged, self._log.folder), (left.damaged, self._log.folder.parent)):
            if damaged:
                self._report(
                    f"{damaged} bytes of the feedback log were damaged; the segments are kept as "
                    f"*{DAMAGED} in {folder}."
                )
        return True

    def _run(self) -> None:
        wait = self._every
        while not self._stop.wait(wait):
            wait = self._every if self.ship() else min(2 * wait, max(LONGEST_WAIT, self._every))
