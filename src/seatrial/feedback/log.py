"""A write-ahead log on local disk: a record is durable before whoever wrote it is told so.

One thread writes. It takes all that waits in a bounded queue, writes it at once, asks the disk to
keep it (``fdatasync``), and only then completes the futures of the waiting requests: however many
requests wait, they share one trip to the disk (group commit). A write that fails fails the
requests that waited for it and no others; the segment is cut back to its last good record and
left, and the next write begins a new one, so the log heals when the disk has room again. After a
failed ``fdatasync`` the same file is never trusted again, as the kernel may have dropped the pages
(Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020).

Where the contract prefers speed (``durability: interval``), a record is confirmed when the operating
system has it, and the disk has it at most so many milliseconds later: a killed process loses nothing,
a killed machine what was confirmed since. What such a late sync failed for is counted.

A segment has room ahead of its records: zeros that were written before. A record then takes the place
of bytes that the file has already, so the disk keeps the record alone and not the file's new length
too, which takes half of the time (measured on ext4).

A store that is away for long lets segments gather. Whoever writes says how many bytes the folder may hold
at most; a record beyond that is refused, and the oldest stay.

Segments are called ``EPOCH-NUMBER.segment``. An epoch is one opening of the log, a UUIDv7, so names
sort by time and never come again, even if the folder was emptied in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from seatrial.errors import FeedbackError
from seatrial.feedback.ids import new_id
from seatrial.feedback.segments import HEADER, MAXIMUM_PAYLOAD, frame

SEGMENT_BYTES = 8 * 1024 * 1024
WAITING_RECORDS = 2_000
BATCH_BYTES = 4 * 1024 * 1024
ROOM_BYTES = 128 * 1024
"""Room that a segment gets ahead of its records, at a time."""
LOCK = "lock"
DAMAGED = ".damaged"
LOCK_ATTEMPTS = 5
_NAME = re.compile(r"^([0-9a-f-]{36})-(\d{8})\.segment$")


@dataclass(frozen=True, order=True)
class Segment:
    """A segment file.

    Attributes:
        epoch: The opening of the log that wrote it.
        number: Its number in the epoch, counted from 1.
        path: The file.
    """

    epoch: str
    number: int
    path: Path


class FolderInUseError(FeedbackError):
    """Another process writes to the log's folder."""


@dataclass
class _Open:
    descriptor: int
    segment: Segment
    size: int = 0
    room: int = 0
    records: int = 0
    late: int = 0


Told = Callable[[FeedbackError | None], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a record is written.

    Attributes:
        sync_within: None confirms the record once the disk has it; else it is confirmed when the
            operating system has it, and the disk has it at most so many seconds later.
        maximum_bytes: Most bytes that the folder may hold with this record; None: as many as the disk takes.
    """

    sync_within: float | None = None
    maximum_bytes: int | None = None


DURABLE = Terms()


@dataclass(frozen=True, slots=True)
class _Work:
    kind: Literal["record", "seal", "stop"]
    payload: bytes
    done: Told
    terms: Terms = DURABLE


class FeedbackLog:
    """The log in one folder, of which there is one writer at a time.

    Args:
        folder: Where the segments are; made if it is not there. It must be a local disk.
        segment_bytes: Size from which a segment is sealed.
        waiting: Most records that may wait for the disk; more are refused.

    Raises:
        FolderInUseError: if another process has the folder.
        FeedbackError: if the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        waiting: int = WAITING_RECORDS,
    ) -> None:
        self.folder = folder
        self.unsynced = 0
        """Records that were confirmed, and that a later sync failed for."""
        self._segment_bytes = segment_bytes
        self._sync_at: float | None = None
        self._epoch = new_id()
        self._number = 0
        self._finished = 0
        self._open: _Open | None = None
        self._closed = False
        self._gate = threading.Lock()
        self._lock = _lock(folder)
        self._held = sum(path.stat().st_size for path in folder.iterdir() if _is_held(path))
        self._queue: queue.SimpleQueue[_Work] = queue.SimpleQueue()
        self._most_waiting = waiting
        self._writer = threading.Thread(target=self._write_all, name="feedback-log", daemon=True)
        self._writer.start()

    @property
    def waiting(self) -> int:
        """Records that wait for the disk."""
        return self._queue.qsize()

    @property
    def held_bytes(self) -> int:
        """Bytes of the records that wait to be shipped, damaged segments included."""
        return self._held

    @property
    def unshipped_seconds(self) -> float:
        """Age of the oldest finished segment that is not shipped yet; 0 if there is none."""
        with contextlib.suppress(FileNotFoundError):  # It was shipped meanwhile.
            oldest = min((segment.path.stat().st_mtime for segment in self.segments()), default=None)
            return 0.0 if oldest is None else max(time.time() - oldest, 0.0)
        return 0.0

    def append(self, payload: bytes, terms: Terms = DURABLE) -> Future[None]:
        """Write a record.

        Args:
            payload: JSON text.
            terms: On what terms.

        Returns:
            A future that completes when the record is on disk, and fails with a FeedbackError if
            it could not be written.

        Raises:
            FeedbackError: if too many records wait already, the folder holds too many bytes, the record is
                too large, or the log is closed.
        """
        future: Future[None] = Future()

        def done(error: FeedbackError | None) -> None:
            # A request that was given up has cancelled its future.
            if future.set_running_or_notify_cancel():
                future.set_result(None) if error is None else future.set_exception(error)

        self.append_and_tell(payload, done, terms)
        return future

    def append_and_tell(self, payload: bytes, done: Told, terms: Terms = DURABLE) -> None:
        """Write a record as :meth:`append` does, and call ``done`` when it is on disk.

        Args:
            payload: JSON text.
            done: Called in the log's own thread, with the error if it could not be written. It must
                return at once.
            terms: On what terms.

        Raises:
            FeedbackError: as :meth:`append` does.
        """
        if len(payload) > MAXIMUM_PAYLOAD:
            raise FeedbackError(
                f"A record may have at most {MAXIMUM_PAYLOAD:,} bytes. Got {len(payload):,} instead."
            )
        with self._gate:
            if self._closed:
                raise FeedbackError("The feedback log is closed.")
            if self._queue.qsize() >= self._most_waiting:
                raise FeedbackError(
                    "The feedback log has too many records waiting for the disk.",
                    remedy="Try again in a moment.",
                )
            size = HEADER.size + len(payload)
            if terms.maximum_bytes is not None and self._held + size > terms.maximum_bytes:
                raise FeedbackError(
                    f"The feedback log in {self.folder} is full: it may hold {terms.maximum_bytes:,} bytes "
                    f"(feedback.maximum_log_bytes), and holds {self._held:,} that no table has yet.",
                    remedy="See to it that the tables can be written; the server says why they cannot.",
                )
            self._held += size
            self._queue.put(_Work("record", payload, done, terms))

    def seal(self) -> None:
        """Close the segment that is being written, so that it can be shipped; wait until it is."""
        self._order("seal")

    def close(self) -> None:
        """Write what waits, seal the segment and let go of the folder."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
        self._order("stop")
        self._writer.join()
        os.close(self._lock)

    def segments(self) -> list[Segment]:
        """Return the segments that nobody writes to any more, oldest first."""
        finished = self._finished
        found = (_segment(path) for path in self.folder.iterdir())
        return sorted(s for s in found if s is not None and (s.epoch != self._epoch or s.number <= finished))

    def release(self, segment: Segment, *, keep: bool) -> None:
        """Delete a segment whose records are in the tables.

        Args:
            segment: The segment, as :meth:`segments` gave it.
            keep: Whether to keep the file, as ``*.damaged``, for a person to look at.

        Raises:
            OSError: if the file cannot be deleted or renamed.
        """
        if keep:
            # Its name is no segment's any more.
            segment.path.rename(segment.path.with_suffix(DAMAGED))
            return
        size = segment.path.stat().st_size
        segment.path.unlink()
        self._hold(-size)

    def _hold(self, more: int) -> None:
        with self._gate:
            self._held = max(self._held + more, 0)

    def _order(self, kind: Literal["seal", "stop"]) -> None:
        done = threading.Event()
        self._queue.put(_Work(kind, b"", lambda _: done.set()))
        done.wait()

    def _write_all(self) -> None:
        running = True
        while running:
            works = self._next_works()
            if self._sync_at is not None and time.monotonic() >= self._sync_at:
                self._sync_late()
            records = [work for work in works if work.kind == "record"]
            if records:
                self._write(records)
            orders = [work for work in works if work.kind != "record"]
            if orders or (self._open is not None and self._open.size >= self._segment_bytes):
                self._seal()
            running = not any(work.kind == "stop" for work in orders)
            _complete(orders, None)

    def _next_works(self) -> list[_Work]:
        try:
            wait = None if self._sync_at is None else max(self._sync_at - time.monotonic(), 0.0)
            works = [self._queue.get(timeout=wait)]
        except queue.Empty:
            return []
        size = len(works[0].payload)
        while size < BATCH_BYTES:
            try:
                works.append(self._queue.get_nowait())
            except queue.Empty:
                break
            size += len(works[-1].payload)
        return works

    def _write(self, works: list[_Work]) -> None:
        try:
            if self._open is None:
                self._open = self._begin()
            content = b"".join(frame(work.payload) for work in works)
            self._append(self._open, content, len(works), _soonest(works))
        except OSError as error:
            self._abandon()
            self._hold(-sum(HEADER.size + len(work.payload) for work in works))
            reason = FeedbackError(
                f"The feedback log in {self.folder} cannot be written: {error.strerror or error}.",
                remedy="Nothing was answered that is not in the log. Free some space, then try again.",
            )
            _complete(works, reason)
        else:
            _complete(works, None)

    def _begin(self) -> _Open:
        self._number += 1
        path = self.folder / f"{self._epoch}-{self._number:08d}.segment"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        begun = _Open(descriptor, Segment(self._epoch, self._number, path))
        try:
            _sync_folder(self.folder)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return begun

    def _append(self, file: _Open, content: bytes, records: int, sync_within: float | None = None) -> None:
        end = file.size + len(content)
        if end > file.room:
            _make_room(file, end)
        _write_at(file.descriptor, content, file.size)
        if sync_within is None:
            os.fdatasync(file.descriptor)
            file.late = 0
        else:
            file.late += records
            sync_at = time.monotonic() + sync_within
            self._sync_at = sync_at if self._sync_at is None else min(sync_at, self._sync_at)
        file.size += len(content)
        file.records += records

    def _sync_late(self) -> None:
        """Ask the disk to keep what was confirmed before; if it cannot, say how much that was."""
        self._sync_at = None
        file = self._open
        if file is None or not file.late:
            return
        try:
            os.fdatasync(file.descriptor)
        except OSError:
            self.unsynced += file.late
            self._open = None
            self._finish(file)
        else:
            file.late = 0

    def _abandon(self) -> None:
        """Leave a segment after a failed write, cut back to what is known to be on disk."""
        file, self._open = self._open, None
        if file is None:
            return
        try:
            os.ftruncate(file.descriptor, file.size)
            if file.late:
                os.fdatasync(file.descriptor)
            if file.size == 0:
                file.segment.path.unlink()
        except OSError:
            # What is left behind is a torn tail, and reading knows those.
            self.unsynced += file.late
        self._finish(file)

    def _seal(self) -> None:
        file, self._open = self._open, None
        if file is None:
            return
        late = file.late
        # The seal only tells a finished segment from a torn one; the records are safe without it.
        with contextlib.suppress(OSError):
            os.ftruncate(file.descriptor, file.size)
            file.room = sys.maxsize
            seal = frame(orjson.dumps({"sealed": file.records}))
            self._append(file, seal, 0)
            self._hold(len(seal))
        # Where the seal could not be synced, neither could what was confirmed without a sync.
        self.unsynced += late if file.late else 0
        self._finish(file)

    def _finish(self, file: _Open) -> None:
        os.close(file.descriptor)
        self._finished = file.segment.number


def _make_room(file: _Open, end: int) -> None:
    """Write zeros after what will be written up to ``end``; a full disk may have room for a record only."""
    room = end + ROOM_BYTES
    try:
        _write_at(file.descriptor, bytes(room - file.size), file.size)
    except OSError:
        room = sys.maxsize
        os.ftruncate(file.descriptor, file.size)
    file.room = room


def _write_at(descriptor: int, content: bytes, place: int) -> None:
    left = memoryview(content)
    while left:
        written = os.pwrite(descriptor, left, place)
        left, place = left[written:], place + written


def _soonest(works: Iterable[_Work]) -> float | None:
    """Return within which time the disk must have all of these; None: before anybody is told."""
    found = [work.terms.sync_within for work in works if work.terms.sync_within is not None]
    return min(found) if len(found) == len(list(works)) else None


def _complete(works: Iterable[_Work], error: FeedbackError | None) -> None:
    for work in works:
        work.done(error)


def _segment(path: Path) -> Segment | None:
    found = _NAME.match(path.name)
    return Segment(found[1], int(found[2]), path) if found else None


def _is_held(path: Path) -> bool:
    return path.suffix == DAMAGED or _segment(path) is not None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int:
    """Take the folder for this process; the kernel gives it back whenever the process ends."""
    for _ in range(LOCK_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            descriptor = _open_lock(folder)
            # Between opening and locking, whoever had the folder may have removed it with the lock.
            if _is_the_same(descriptor, folder / LOCK):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
            os.close(descriptor)
    raise FeedbackError(f"The feedback log's folder {folder} is removed again and again.")


def _open_lock(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FeedbackError(
            f"The feedback log's folder {folder} cannot be used: {error.strerror}.",
            remedy="Name another one: --log-folder FOLDER",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise FolderInUseError(
            f"The feedback log's folder {folder} is in use by process {holder}.",
            remedy="Stop that server, or give this one a folder of its own: --log-folder FOLDER",
        ) from None
    return descriptor


def _is_the_same(descriptor: int, path: Path) -> bool:
    held = os.fstat(descriptor)
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(held, path.stat())
    return False
