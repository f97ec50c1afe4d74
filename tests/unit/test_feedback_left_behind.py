"""Logs that servers left behind, beside the log of one that lives."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.test_feedback_shipping import prediction

from seatrial.errors import StoreError
from seatrial.feedback import FeedbackLog, read_predictions
from seatrial.feedback.ids import new_id
from seatrial.feedback.log import LOCK
from seatrial.feedback.shipping import LEFT_AFTER_SECONDS, ship_left_behind
from seatrial.tables import Tables
from seatrial.workspace import Workspace

A_WHILE = LEFT_AFTER_SECONDS + 10


@pytest.fixture
def living(tmp_path: Path) -> Iterator[FeedbackLog]:
    with closing(FeedbackLog(tmp_path / "logs" / "living")) as log:
        yield log


def leave(folder: Path, *ids: str, ago: float = A_WHILE) -> Path:
    """Leave a log as a killed server does: a segment without a seal, and a lock that nobody holds."""
    log = FeedbackLog(folder)
    log.append(prediction(*ids)).result()
    content = {path.name: path.read_bytes() for path in folder.glob("*.segment")}
    log.close()
    for name, unsealed in content.items():
        (folder / name).write_bytes(unsealed)
    age(folder, ago)
    return folder


def age(folder: Path, seconds: float) -> None:
    """Let the files of a folder be some seconds old."""
    then = time.time() - seconds
    for path in folder.iterdir():
        os.utime(path, (then, then))


def test_what_is_left_behind_is_shipped(
    tmp_path: Path, workspace: Workspace, tables: Tables, living: FeedbackLog
) -> None:
    """The predictions of a server that is gone reach the tables once, and its folder goes."""
    name = new_id()
    gone = leave(tmp_path / "logs" / "gone", name)

    shipped = [ship_left_behind(living, tables).segments for _ in range(2)]

    assert shipped == [1, 0]
    assert read_predictions(workspace, "ferry")["prediction_id"].to_list() == [name]
    assert not gone.exists()


def test_what_is_in_use_is_left_alone(tmp_path: Path, tables: Tables, living: FeedbackLog) -> None:
    """The log of a server that lives is its own, however long nothing came; so is one touched a moment ago."""
    with closing(FeedbackLog(tmp_path / "logs" / "quiet")) as quiet:
        quiet.append(prediction(new_id())).result()
        age(quiet.folder, A_WHILE)
        crashed = leave(tmp_path / "logs" / "crashed", new_id(), ago=1)

        assert ship_left_behind(living, tables).segments == 0
        assert list(quiet.folder.glob("*.segment"))
        assert list(crashed.glob("*.segment"))


def test_folder_without_anything_to_ship_goes(tmp_path: Path, tables: Tables, living: FeedbackLog) -> None:
    """A server that ended in order leaves a folder with a lock in it, which is removed like any other."""
    folder = tmp_path / "logs" / "ended"
    FeedbackLog(folder).close()
    age(folder, A_WHILE)

    ship_left_behind(living, tables)

    assert not folder.exists()
    assert living.folder.exists()


def test_damage_stays_to_be_looked_at(
    tmp_path: Path, workspace: Workspace, tables: Tables, living: FeedbackLog
) -> None:
    """A damaged segment is shipped as far as it can be read, and stays with its folder, once."""
    names = [new_id(), new_id()]
    gone = leave(tmp_path / "logs" / "gone", names[0])
    (segment,) = gone.glob("*.segment")
    log = FeedbackLog(tmp_path / "other")
    log.append(prediction(names[1])).result()
    log.close()
    (whole,) = (tmp_path / "other").glob("*.segment")
    segment.write_bytes(segment.read_bytes().rstrip(b"\0") + b"damage" + whole.read_bytes())
    age(gone, A_WHILE)

    damaged = ship_left_behind(living, tables).damaged
    age(gone, A_WHILE)
    again = ship_left_behind(living, tables).damaged

    assert (damaged, again) == (len(b"damage"), 0)
    assert read_predictions(workspace, "ferry")["prediction_id"].to_list() == sorted(names)
    assert [path.suffix for path in gone.iterdir() if path.name != LOCK] == [".damaged"]


def test_failing_store_leaves_the_folder(
    tmp_path: Path, tables: Tables, living: FeedbackLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be shipped stays, and the folder is free for whoever tries next."""
    gone = leave(tmp_path / "logs" / "gone", new_id())

    def fail(*_: object, **__: object) -> None:
        raise StoreError("The store failed.")

    monkeypatch.setattr(Tables, "append", fail)
    with pytest.raises(StoreError):
        ship_left_behind(living, tables)

    assert list(gone.glob("*.segment"))
    FeedbackLog(gone).close()


def test_server_that_starts_while_its_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is removed between opening and locking is made anew, so what is written stays."""
    folder = tmp_path / "logs" / "restarted"
    removals = iter([True, True, False])

    def remove_and_lock(descriptor: int, operation: int) -> None:
        if next(removals):
            (folder / LOCK).unlink()
            folder.rmdir()
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr("seatrial.feedback.log.fcntl", SimpleNamespace(**vars(fcntl)))
    monkeypatch.setattr("seatrial.feedback.log.fcntl.flock", remove_and_lock)
    with closing(FeedbackLog(folder)) as log:
        log.append(prediction(new_id())).result()

        assert list(folder.glob("*.segment"))
        assert next(removals, None) is None
