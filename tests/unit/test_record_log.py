"""Record logs: one writer wins each number, and the history stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.errors import PointerMovedError, StoreError
from seatrial.record_log import RecordLog
from seatrial.workspace import Workspace


@pytest.fixture
def log(tmp_path: Path) -> RecordLog:
    return RecordLog(Workspace.open(tmp_path), "pointers/a")


def test_records_are_numbered_from_one_and_kept(log: RecordLog) -> None:
    """The newest record is the pointer's value, the others its past."""
    assert log.last() is None

    for number in range(12):
        log.append({"n": number}, after=number)

    last = log.last()
    assert last is not None
    assert (last.number, last.content) == (12, {"n": 11})
    assert [record.number for record in log.all()] == list(range(1, 13))


def test_of_two_writers_with_the_same_view_one_wins(log: RecordLog) -> None:
    """The loser is told and what the winner wrote stays."""
    log.append({"by": "winner"}, after=0)

    with pytest.raises(PointerMovedError, match="record 1 is there already"):
        log.append({"by": "loser"}, after=0)
    assert [record.content for record in log.all()] == [{"by": "winner"}]


def test_a_writer_who_looked_at_another_log_is_refused(log: RecordLog) -> None:
    """A number that the log does not have cannot be followed: there would be a hole."""
    log.append({}, after=0)

    with pytest.raises(PointerMovedError, match="has no record 7 to follow"):
        log.append({}, after=7)
    assert len(log.all()) == 1


def test_logs_do_not_see_each_other(log: RecordLog) -> None:
    """A log whose name begins like another's has records of its own."""
    other = RecordLog(log.workspace, "pointers/ab")
    other.append({"who": "other"}, after=0)

    assert log.last() is None


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff"])
def test_a_damaged_record_is_named(log: RecordLog, damage: bytes) -> None:
    """A record that is no JSON is an error with its key, not an older value."""
    log.append({}, after=0)
    (log.workspace.folder / "pointers" / "a" / "0000000001.json").write_bytes(damage)

    with pytest.raises(StoreError, match="pointers/a/0000000001.json is damaged"):
        log.last()
