"""Faults between log and tables, by their numbers in the list of threats: F2, F5, F6, F12, F13, F14, F16, F17."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial import tables as tables_module
from seatrial.errors import FeedbackError, TableError
from seatrial.feedback import FeedbackLog, Shipper, join_outcomes, read_predictions
from seatrial.feedback import shipping as shipping_module
from seatrial.feedback.ids import is_id, new_id, new_ids
from seatrial.feedback.joining import read_outcomes, read_recorded
from seatrial.feedback.rows import PredictionRecord, read_rows
from seatrial.feedback.segments import frame, scan
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support import mutant_logs
from support.feedback_records import NOW, outcome, prediction


class Killed(BaseException):
    """Stands for a kill of the process: nothing in the code under test catches it."""


class Fuse:
    """Kills at the k-th of the steps of shipping, before it or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kill_at: int, *, after: bool) -> None:
        self.steps = 0
        self.blown = False
        self._kill_at = kill_at
        self._after = after
        for owner, name in ((Tables, "append"), (FeedbackLog, "release"), (tables_module, "sync_files")):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.steps += 1
            hit = self.steps == self._kill_at
            if hit and not self._after:
                self.blown = True
                raise Killed
            result = real(*arguments, **named)
            if hit:
                self.blown = True
                raise Killed
            return result

        return call


def kill_shipping_everywhere(folder: Path, ship_all: Callable[[FeedbackLog, Tables], Any]) -> list[str]:
    """Kill shipping before and after each of its steps, ship again, and return what was wrong."""
    wrong = []
    for kill_at in range(1, 40):
        blown = False
        for after in (False, True):
            place = folder / f"{kill_at}-{after}"
            workspace = Workspace.open(place / "workspace")
            tables = feedback_tables(workspace, "ferry")
            log = FeedbackLog(place / "log")
            names = []
            for _ in range(3):
                names.append(new_id())
                log.append(prediction(names[-1])).result()
                log.append(outcome(names[-1], 1.0)).result()
                log.seal()
            with pytest.MonkeyPatch.context() as patch:
                fuse = Fuse(patch, kill_at, after=after)
                with suppress(Killed):
                    ship_all(log, tables)
            ship(log, tables)
            log.close()
            blown |= fuse.blown
            for read in (read_recorded, read_outcomes):
                found = read(workspace, "ferry").collect()["prediction_id"].to_list()
                if sorted(found) != sorted(names):
                    wrong.append(f"killed at {kill_at}: {len(names)} records, {len(found)} rows")
            if list((place / "log").glob("*.segment")):
                wrong.append(f"killed at {kill_at}: segments are left")
        if wrong or not blown:
            return wrong
    raise AssertionError("shipping has more steps than were tried")


def test_shipping_may_be_killed_at_each_step(tmp_path: Path) -> None:
    """Before or after whichever step a shipper is killed: the next one ships the rest, and nothing twice (F2, F5)."""
    assert kill_shipping_everywhere(tmp_path, ship) == []


def test_a_shipper_that_deletes_first_is_caught(tmp_path: Path) -> None:
    """A shipper that deletes segments and commits them then loses them in that very test (Z10)."""

    def delete_first(log: FeedbackLog, tables: Tables) -> None:
        log.seal()
        for segment in log.segments():
            rows = read_rows(scan(segment.path.read_bytes()).payloads)
            log.release(segment, keep=False)
            for table, found in (("predictions", rows.predictions), ("outcomes", rows.outcomes)):
                stream = f"feedback:{segment.epoch}"
                tables.append(table, found, positions={stream: segment.number}, facts={})

    assert kill_shipping_everywhere(tmp_path, delete_first)


def test_a_shipper_that_forgets_its_position_is_caught(tmp_path: Path) -> None:
    """A shipper whose commits do not say how far they come counts twice in that very test (Z10)."""

    def forget(log: FeedbackLog, tables: Tables) -> None:
        real = Tables.append

        def nameless(self: Tables, *arguments: Any, **named: Any) -> bool:
            return real(self, *arguments, **{**named, "positions": {new_id(): 1}})

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Tables, "append", nameless)
            ship(log, tables)

    assert kill_shipping_everywhere(tmp_path, forget)


def test_a_log_that_lists_what_it_writes_is_caught(tmp_path: Path) -> None:
    """A segment that is shipped while it is written loses what comes after; the right log gives none such (Z10)."""
    left = {}
    for log_class in (FeedbackLog, mutant_logs.ListsWhatItWrites):
        place = tmp_path / log_class.__name__
        workspace = Workspace.open(place / "workspace")
        log = log_class(place / "log")
        names = new_ids(4)
        for name in names:
            log.append(prediction(name)).result()
            ship(log, feedback_tables(workspace, "ferry"))
        log.close()
        later = FeedbackLog(place / "log")
        ship(later, feedback_tables(workspace, "ferry"))
        later.close()
        left[log_class] = set(names) - set(read_predictions(workspace, "ferry")["prediction_id"])
    assert left[FeedbackLog] == set()
    assert left[mutant_logs.ListsWhatItWrites]


def test_a_long_backlog_is_shipped_in_parts(
    workspace: Workspace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the store was away, no more is read at once than a commit takes, and little at first (F6)."""
    read_at_once: list[int] = []
    real = shipping_module._append

    def noting(*arguments: Any) -> None:
        read_at_once.append(sum(one.segment.path.stat().st_size for one in arguments[2]))
        real(*arguments)

    monkeypatch.setattr(shipping_module, "FIRST_COMMIT_BYTES", 2_000)
    monkeypatch.setattr(shipping_module, "COMMIT_BYTES", 5_000)
    monkeypatch.setattr(shipping_module, "_append", noting)
    log = FeedbackLog(workspace.folder / "log", segment_bytes=1_000)
    names = new_ids(60)
    for name in names:
        log.append(prediction(name)).result()
    backlog = log.held_bytes
    assert ship(log, tables).segments >= 20
    log.close()
    assert backlog > 4 * 5_000
    assert read_at_once[0] <= 2_000 < max(read_at_once) <= 5_000
    assert read_predictions(workspace, "ferry")["prediction_id"].to_list() == sorted(names)
    assert log.held_bytes == 0


def test_a_clock_that_goes_back_harms_nothing(
    workspace: Workspace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids stay ids of ours and unique, segments and openings are shipped in whatever order, late outcomes win (F12)."""
    instants = [NOW * 1_000, (NOW - 3_600_000_000) * 1_000, (NOW + 1) * 1_000]
    names: list[str] = []
    for instant in instants:
        monkeypatch.setattr("seatrial.feedback.ids.time.time_ns", lambda now=instant: now)
        log = FeedbackLog(workspace.folder / "log")
        names += new_ids(3)
        assert log.unshipped_seconds >= 0
        for name in names[-3:]:
            log.append(prediction(name)).result()
        # Told first, by a clock that was ahead; what became known later counts all the same.
        log.append(outcome(names[-1], 0.0, NOW, received_at=NOW + 3_600_000_000)).result()
        log.append(outcome(names[-1], 1.0, NOW + 5, received_at=NOW)).result()
        log.close()
    assert all(is_id(name) for name in names)
    assert len(set(names)) == 9
    log = FeedbackLog(workspace.folder / "log")
    ship(log, tables)
    log.close()
    joined = join_outcomes(workspace, "ferry")
    assert joined["prediction_id"].to_list() == sorted(names)
    assert joined["outcome"].drop_nulls().to_list() == [1.0] * 3
    outcomes = read_outcomes(workspace, "ferry").collect()
    assert set(outcomes["received_at"].dt.epoch("us")) == {NOW, NOW + 3_600_000_000}


def test_records_of_every_version_share_a_segment(workspace: Workspace, tables: Tables) -> None:
    """A record of an earlier format, of another bundle, of a newer kind: each is read, or left out, by itself (F13)."""
    new = orjson.loads(prediction(fresh := new_id()))
    old = orjson.loads(prediction(aged := new_id()))
    for name in ("client", "latency_microseconds"):
        del old["predictions"][name]
    old["predictions"]["request_id"] = "of all rows"
    old["predictions"]["bundle"] = "e" * 64
    log = FeedbackLog(workspace.folder / "log")
    for record in (old, new, {"a kind to come": {"x": 1}}):
        log.append(orjson.dumps(record)).result()
    ship(log, tables)
    log.close()
    rows = {row["prediction_id"]: row for row in read_predictions(workspace, "ferry").to_dicts()}
    assert set(rows) == {fresh, aged}
    assert (rows[fresh]["bundle"], rows[aged]["bundle"]) == ("d" * 64, "e" * 64)
    assert (rows[aged]["client"], rows[aged]["latency_microseconds"]) == (None, None)
    assert rows[aged]["request_id"] == "of all rows"
    assert rows[fresh]["latency_microseconds"] == 250


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=TEXTS,
    number=NUMBERS,
    probability=st.floats(0, 1),
    features=st.lists(st.floats(width=32), min_size=1, max_size=5),
)
def test_values_come_back_as_they_were(
    text: str, number: float, probability: float, features: list[float]
) -> None:
    """Whatever a request may hold comes back bit by bit from log and rows, missing numbers and newlines too (F14)."""
    inputs = orjson.dumps({"text": text, "number": number}).decode()
    record = PredictionRecord(
        prediction_id=[name := new_id()],
        request_id=[text],
        client=[text],
        served_at=NOW,
        latency_microseconds=[1],
        known_at=[None],
        bundle="d" * 64,
        key=[orjson.dumps([text]).decode()],
        inputs=[inputs],
        features=np.array([features], dtype=np.float32),
        probability=[probability],
        flagged=[True],
    )
    segment = frame(prediction(new_id())) + frame(record.to_bytes()) + frame(prediction(new_id()))
    found = read_rows(scan(segment).payloads).predictions
    assert found.height == 3
    row = found.row(1, named=True)
    assert row["prediction_id"] == name
    assert (row["request_id"], row["client"], row["inputs"]) == (text, text, inputs)
    assert orjson.loads(row["key"]) == [text]
    assert row["probability"] == probability
    kept = np.array(row["features"], dtype=np.float32)
    sent = np.array(features, dtype=np.float32)
    finite = np.isfinite(sent)
    np.testing.assert_array_equal(kept[finite], sent[finite])
    assert np.isnan(kept[~finite]).all()  # JSON has neither, and the model's numbers are finite.


def test_a_reader_sees_one_version_throughout(workspace: Workspace, tables: Tables) -> None:
    """What was opened before stays as it was while rows are added, deleted and put together (F16)."""
    names = new_ids(6)
    for position, name in enumerate(names[:5], 1):
        tables.append(
            "predictions", read_rows([prediction(name)]).predictions, positions={"s": position}, facts={}
        )
    before = read_recorded(workspace, "ferry")
    tables.append("predictions", read_rows([prediction(names[5])]).predictions, positions={"s": 6}, facts={})
    tables.delete("predictions", pl.DataFrame({"prediction_id": names[:2]}), facts={})
    tables.compact("predictions", keep=timedelta(days=7))
    assert sorted(before.collect()["prediction_id"]) == sorted(names[:5])
    assert sorted(read_recorded(workspace, "ferry").collect()["prediction_id"]) == sorted(names[2:])


def test_servers_that_ship_at_once_lose_nothing(workspace: Workspace, tables: Tables) -> None:
    """Four servers write into the same tables at the same time; a commit that lost its turn is made later (F5, F17)."""
    said: list[str] = []
    logs = [FeedbackLog(workspace.folder / "logs" / str(number)) for number in range(4)]
    shippers = [Shipper(log, tables, every=0.01, report=said.append) for log in logs]
    names: list[str] = []
    for shipper in shippers:
        shipper.start()
    for _ in range(8):
        for log in logs:
            names.append(new_id())
            log.append(prediction(names[-1])).result()
            log.append(outcome(names[-1], 1.0)).result()
        time.sleep(0.01)  # So that shipping has something to do more than once.
    threads = [threading.Thread(target=shipper.stop) for shipper in shippers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        with suppress(TableError, FeedbackError):  # Others may have kept it from its last turn, too.
            ship(log, tables)
        ship(log, tables)
        log.close()
    for read in (read_recorded, read_outcomes):
        assert sorted(read(workspace, "ferry").collect()["prediction_id"]) == sorted(names)
