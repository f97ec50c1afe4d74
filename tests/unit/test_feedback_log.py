"""The write-ahead log: durable before it is confirmed, and healed after a fault."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from seatrial.errors import FeedbackError
from seatrial.feedback import log as log_module
from seatrial.feedback.log import FeedbackLog, Terms
from seatrial.feedback.segments import frame, scan

CALLS = ("open", "pwrite", "ftruncate", "fdatasync", "fsync")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def stored(folder: Path) -> list[bytes]:
    """Return what a reader finds in all segments, seals left out."""
    found = [scan(path.read_bytes()).payloads for path in sorted(folder.glob("*.segment"))]
    return [payload for payloads in found for payload in payloads if b"sealed" not in payload]


def test_records_are_on_disk_when_confirmed(folder: Path) -> None:
    """A record can be read back from the file as soon as its future is done, in the order written."""
    log = FeedbackLog(folder)
    for number in range(20):
        log.append(b"%d" % number).result()
        assert stored(folder) == [b"%d" % n for n in range(number + 1)]
    log.close()


def test_write_comes_before_sync_and_sync_before_confirmation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The confirmation comes after fdatasync of the file, and after fsync of the folder of a new file."""
    events: list[str] = []
    log = FeedbackLog(folder)
    for name in ("pwrite", "fdatasync", "fsync"):
        monkeypatch.setattr(os, name, _noting(events, name, getattr(os, name)))
    done = log.append(b"{}")
    done.add_done_callback(lambda _: events.append("confirmed"))
    done.result()
    room, record = "pwrite", "pwrite"
    assert events == ["fsync", room, record, "fdatasync", "confirmed"]
    log.close()


def _noting(events: list[str], name: str, real: Callable[..., object]) -> Callable[..., object]:
    def noting(*arguments: object) -> object:
        events.append(name)
        return real(*arguments)

    return noting


def test_waiting_records_share_a_sync(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records wait, they cost far fewer syncs than records."""
    syncs: list[str] = []
    monkeypatch.setattr(os, "fdatasync", _noting(syncs, "fdatasync", os.fdatasync))
    log = FeedbackLog(folder)
    for done in [log.append(b"{}") for _ in range(500)]:
        done.result()
    assert len(syncs) < 100
    log.close()


def test_folder_has_one_writer(folder: Path) -> None:
    """A second log in the same folder is refused, naming the process, until the first is closed."""
    log = FeedbackLog(folder)
    with pytest.raises(FeedbackError, match=f"in use by process {os.getpid()}"):
        FeedbackLog(folder)
    log.close()
    FeedbackLog(folder).close()


def test_closed_log_refuses(folder: Path) -> None:
    """Nothing can be appended after the log was closed; closing twice does nothing."""
    log = FeedbackLog(folder)
    log.close()
    log.close()
    with pytest.raises(FeedbackError, match="closed"):
        log.append(b"{}")


def test_full_queue_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is too slow makes the log refuse more records than may wait, rather than keep them all."""
    go = threading.Event()
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        go.wait()
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    log = FeedbackLog(folder, waiting=5)
    accepted = []
    with suppress(FeedbackError):
        for _ in range(100):
            accepted.append(log.append(b"{}"))  # noqa: PERF401 -- it ends by an exception
    with pytest.raises(FeedbackError, match="too many"):
        log.append(b"{}")
    assert 5 <= len(accepted) < 100
    go.set()
    for done in accepted:
        done.result()
    assert len(stored(folder)) == len(accepted)
    log.close()


def test_segments_are_sealed_by_size_and_at_the_end(folder: Path) -> None:
    """A segment that is full is followed by a new one, and each says how many records it has."""
    log = FeedbackLog(folder, segment_bytes=100)
    for _ in range(10):
        log.append(b"x" * 60).result()
    log.close()
    paths = sorted(folder.glob("*.segment"))
    assert len(paths) == 5
    for path in paths:
        *records, seal = scan(path.read_bytes()).payloads
        assert orjson.loads(seal) == {"sealed": len(records)}


def test_sealed_segment_has_no_room_left(folder: Path) -> None:
    """The zeros ahead of the records go with the seal: a sealed segment is its records and nothing more."""
    log = FeedbackLog(folder)
    log.append(b"{}").result()
    (path,) = folder.glob("*.segment")
    ahead = path.stat().st_size
    log.close()
    found = scan(path.read_bytes())
    assert ahead > path.stat().st_size == sum(len(frame(payload)) for payload in found.payloads)


def test_disk_without_room_ahead_takes_the_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk has room for a record and for no zeros ahead of it, the record is taken."""
    real = os.pwrite

    def small(descriptor: int, content: bytes, place: int) -> int:
        if place + len(content) > 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, content, place)

    monkeypatch.setattr(os, "pwrite", small)
    log = FeedbackLog(folder)
    said = []
    for number in range(20):
        try:
            log.append(b'{"n":%03d}' % number).result()
        except FeedbackError:
            said.append(False)
        else:
            said.append(True)
    log.close()
    assert said.count(True) > 2
    assert stored(folder) == [b'{"n":%03d}' % number for number, ok in enumerate(said) if ok]


def test_segment_being_written_is_not_listed(folder: Path) -> None:
    """Only segments that nobody writes to any more are given to the shipper."""
    log = FeedbackLog(folder)
    assert log.segments() == []
    log.append(b"{}").result()
    assert log.segments() == []
    log.seal()
    assert [segment.number for segment in log.segments()] == [1]
    log.append(b"{}").result()
    assert [segment.number for segment in log.segments()] == [1]
    log.close()


def test_numbers_never_come_again(folder: Path) -> None:
    """A folder that was emptied between two openings gives no segment a name that was there before."""
    names = []
    for _ in range(3):
        log = FeedbackLog(folder)
        log.append(b"{}").result()
        log.close()
        names += [path.name for path in folder.glob("*.segment")]
        for path in folder.glob("*.segment"):
            path.unlink()
    assert len(set(names)) == 3


class Faulty:
    """Makes the k-th call of the log to the operating system fail, and all later ones go through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int, number: int) -> None:
        self.calls = 0
        self.failed = ""
        self._fail_at = fail_at
        self._number = number
        for name in CALLS:
            monkeypatch.setattr(log_module.os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            self.calls += 1
            if self.calls != self._fail_at:
                return real(*arguments)
            self.failed = name
            if name == "pwrite":
                # Half of it reaches the file before the disk is full.
                descriptor, content, place = arguments
                real(descriptor, bytes(content)[: len(content) // 2], place)  # type: ignore[arg-type, call-overload]
            raise OSError(self._number, os.strerror(self._number))

        return call


def _write_and_seal(log: FeedbackLog) -> Iterator[tuple[bytes, bool]]:
    for number in range(6):
        payload = b'{"n":%d}' % number
        try:
            log.append(payload).result()
        except FeedbackError:
            yield payload, False
        else:
            yield payload, True
        if number % 2:
            log.seal()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_any_failing_call_is_told_and_survived(folder: Path, number: int) -> None:
    """Whichever call fails: what was confirmed is stored once, the log goes on, nothing is damaged."""
    failed: list[str] = []
    for fail_at in range(1, 60):
        place = folder / str(fail_at)
        log = FeedbackLog(place)
        with pytest.MonkeyPatch.context() as patch:
            fault = Faulty(patch, fail_at, number)
            said = list(_write_and_seal(log))
            log.append(b'{"after":1}').result() if fault.failed else None
        log.close()
        if not fault.failed:
            break
        failed.append(fault.failed)
        found = stored(place)
        confirmed = [payload for payload, ok in said if ok] + [b'{"after":1}']
        assert found == confirmed
        assert sum(not ok for _, ok in said) <= 1
        for path in place.glob("*.segment"):
            assert scan(path.read_bytes()).damaged == 0
    assert set(failed) == set(CALLS)


def test_torn_tail_of_a_crash_is_left_out(folder: Path) -> None:
    """A log that is opened after a crash lists the old segment, whole records only."""
    folder.mkdir()
    torn = folder / "01a209e4-2232-7373-8b2c-64a6e4000000-00000001.segment"
    torn.write_bytes(frame(b'{"a":1}') + frame(b'{"b":2}')[:-1])
    log = FeedbackLog(folder)
    assert [segment.path for segment in log.segments()] == [torn]
    assert stored(folder) == [b'{"a":1}']
    log.close()


def test_interval_confirms_first_and_syncs_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interval a record is confirmed once it is written, and synced when the interval is over."""
    events: list[str] = []
    synced = threading.Event()
    log = FeedbackLog(folder)
    for name in ("pwrite", "fdatasync"):
        monkeypatch.setattr(os, name, _noting(events, name, getattr(os, name)))
    confirmed = threading.Event()

    def done(error: FeedbackError | None) -> None:
        assert error is None
        events.append("confirmed")
        confirmed.set()

    log.append_and_tell(b"{}", done, Terms(sync_within=0.05))
    assert confirmed.wait(30)
    assert stored(folder) == [b"{}"]
    deadline = time.monotonic() + 30
    while "fdatasync" not in events:
        assert time.monotonic() < deadline
        synced.wait(0.01)
    assert events == ["pwrite", "pwrite", "confirmed", "fdatasync"]
    log.close()
    assert log.unsynced == 0


def test_one_careful_record_makes_its_whole_group_careful(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that wants the disk before it is confirmed gets it, whatever the others of its group want."""
    syncs: list[str] = []
    log = FeedbackLog(folder)
    monkeypatch.setattr(os, "fdatasync", _noting(syncs, "fdatasync", os.fdatasync))
    log.append_and_tell(b"{}", lambda _: None, Terms(sync_within=60.0))
    log.append(b"{}").result()
    assert syncs
    log.close()


def test_late_sync_that_fails_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was confirmed and then could not be synced is counted, and the log goes on in another file."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "no")

    log = FeedbackLog(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        confirmed = threading.Event()
        log.append_and_tell(b'{"n":1}', lambda _: confirmed.set(), Terms(sync_within=0.01))
        assert confirmed.wait(30)
        deadline = time.monotonic() + 30
        while not log.unsynced:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    log.append(b'{"n":2}').result()
    log.close()
    assert log.unsynced == 1
    assert len(list(folder.glob("*.segment"))) == 2


def test_full_log_keeps_the_oldest_and_takes_more_when_some_is_shipped(folder: Path) -> None:
    """A folder holds at most so many bytes, also after a restart; what is refused leaves no trace."""
    terms = Terms(maximum_bytes=1_000)
    payloads = [b'{"n":%03d,"x":"%s"}' % (number, b"x" * 80) for number in range(30)]

    def append(log: FeedbackLog, numbers: range) -> list[int]:
        taken = []
        for number in numbers:
            with suppress(FeedbackError):
                log.append(payloads[number], terms).result()
                taken.append(number)
        return taken

    log = FeedbackLog(folder, segment_bytes=300)
    taken = append(log, range(10))
    with pytest.raises(
        FeedbackError, match=r"is full: it may hold 1,000 bytes \(feedback.maximum_log_bytes\)"
    ):
        log.append(payloads[20], terms)
    log.close()
    log = FeedbackLog(folder, segment_bytes=300)
    assert append(log, range(10, 12)) == []
    size = sum(path.stat().st_size for path in folder.glob("*.segment"))
    assert log.held_bytes == size <= 1_100  # The seals are beyond the bound.
    (gone, *_) = log.segments()
    log.release(gone, keep=False)
    assert log.held_bytes < size
    later = append(log, range(12, 30))
    log.close()
    assert taken == list(range(len(taken)))
    assert 0 < len(later) < 18
    assert stored(folder) == [payloads[number] for number in [*taken, *later]][-len(stored(folder)) :]
    assert len(stored(folder)) < len(taken) + len(later)


def test_age_of_what_waits_is_told(folder: Path) -> None:
    """The oldest finished segment says since when nothing was shipped; without one it is 0."""
    log = FeedbackLog(folder)
    assert log.unshipped_seconds == 0
    log.append(b"{}").result()
    log.seal()
    (segment,) = log.segments()
    then = time.time() - 1_000
    os.utime(segment.path, (then, then))
    assert 1_000 <= log.unshipped_seconds < 2_000
    os.utime(segment.path, (then + 10_000, then + 10_000))  # The clock went back since.
    assert log.unshipped_seconds == 0
    log.close()
