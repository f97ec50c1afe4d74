"""Ship the log's finished segments into the Delta tables ``predictions`` and ``outcomes``.

The segments of one epoch of the log go in order, several to a commit, and each commit carries the
number of its last segment as a Delta application transaction. A shipper that is killed between the
commit and the deletion of the segments ships them again, the table answers that it has them, and
they count once (threats: F5). A store that fails only delays: the segments stay where they are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import polars as pl

from seatrial.errors import FeedbackError, SeatrialError
from seatrial.feedback.log import FeedbackLog, Segment
from seatrial.feedback.rows import OUTCOMES_TABLE, PREDICTIONS_TABLE, Rows, read_rows
from seatrial.feedback.segments import scan
from seatrial.tables import Tables
from seatrial.workspace import Workspace

LAYER = "feedback"
COMMIT_BYTES = 64 * 1024 * 1024
LONGEST_WAIT = 60.0
DAMAGED = ".damaged"


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
    for epoch, found in groupby(log.segments(), key=lambda segment: segment.epoch):
        for chunk in _chunks(list(found)):
            read = [_read(segment) for segment in chunk]
            for table in (PREDICTIONS_TABLE, OUTCOMES_TABLE):
                _append(tables, table, f"feedback:{epoch}", read)
            # The tables' files are not synced when they are committed; the segments are, and go only after.
            os.sync()
            for one in read:
                _dispose(one)
            segments += len(read)
            damaged += sum(one.damaged for one in read)
    return Shipped(segments, damaged)


def _chunks(segments: list[Segment]) -> Iterator[list[Segment]]:
    """Yield segments in groups that fit into memory, so that a long backlog drains all the same."""
    chunk: list[Segment] = []
    size = 0
    for segment in segments:
        size += segment.path.stat().st_size
        if chunk and size > COMMIT_BYTES:
            yield chunk
            chunk, size = [], segment.path.stat().st_size
        chunk.append(segment)
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


def _append(tables: Tables, table: str, stream: str, read: list[_Read]) -> None:
    there = tables.position(table, stream)
    new = [one for one in read if one.segment.number > there]
    frames = [one.rows.predictions if table == PREDICTIONS_TABLE else one.rows.outcomes for one in new]
    if any(frame.height for frame in frames):
        position = max(one.segment.number for one in new)
        tables.append(
            table, pl.concat(frames), stream=stream, position=position, facts={"source": "feedback log"}
        )


def _dispose(read: _Read) -> None:
    path: Path = read.segment.path
    if read.damaged:
        # Kept for a person to look at; its name is no segment's any more.
        path.rename(path.with_suffix(DAMAGED))
    else:
        path.unlink()


class Shipper:
    """A thread that ships every few seconds, and once more when it is stopped.

    Args:
        log: The log.
        tables: The feedback tables.
        every: Seconds between two rounds.
        report: Where to say what went wrong, a line at a time.
    """

    def __init__(
        self, log: FeedbackLog, tables: Tables, *, every: float, report: Callable[[str], None]
    ) -> None:
        self._log = log
        self._tables = tables
        self._every = every
        self._report = report
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
        except (SeatrialError, OSError) as error:
            self._report(f"Feedback was not shipped, and stays in {self._log.folder}: {error}")
            return False
        if shipped.damaged:
            self._report(
                f"{shipped.damaged} bytes of the feedback log were damaged; the segments are kept as "
                f"*{DAMAGED} in {self._log.folder}."
            )
        return True

    def _run(self) -> None:
        wait = self._every
        while not self._stop.wait(wait):
            wait = self._every if self.ship() else min(2 * wait, max(LONGEST_WAIT, self._every))
