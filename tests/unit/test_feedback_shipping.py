"""Shipping the log into tables, and joining outcomes to predictions."""

from __future__ import annotations

import errno
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.errors import StoreError, TableError
from seatrial.feedback import FeedbackLog, Shipper, count_outcomes, join_outcomes, read_predictions
from seatrial.feedback.ids import is_id, new_id
from seatrial.feedback.joining import winning_outcomes
from seatrial.feedback.recent import RecentPredictions
from seatrial.feedback.rows import OUTCOMES, PREDICTIONS, read_rows
from seatrial.feedback.segments import scan
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support.feedback_records import NOW, outcome, prediction

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def later_id(before: str) -> str:
    """Return an id that sorts after ``before``: ids made in the same millisecond are in no order."""
    deadline = time.monotonic() + 30
    while (made := new_id()) <= before:
        assert time.monotonic() < deadline
    return made


def test_rows_come_back_as_they_were_logged() -> None:
    """A record's rows have the tables' columns and the very values that were written, NaN included."""
    ids = [new_id(), new_id()]
    rows = read_rows([prediction(*ids, known_at=None), outcome(ids[0], 1.0, NOW + 1), b'{"a newer kind":{}}'])
    assert rows.predictions.schema == PREDICTIONS
    assert rows.outcomes.schema == OUTCOMES
    assert rows.predictions["prediction_id"].to_list() == ids
    assert rows.predictions["known_at"].to_list() == [None, None]
    assert rows.predictions["request_id"].to_list() == ["the client's own"] * 2
    np.testing.assert_array_equal(np.array(rows.predictions["features"].to_list()), [[1.5, np.nan, -1]] * 2)
    assert rows.outcomes["occurred_at"].dt.epoch("us").to_list() == [NOW + 1]


def test_log_and_table_of_an_earlier_version_are_read(workspace: Workspace) -> None:
    """Records without a client, and a table without that column, are read, joined and added to."""
    name, later = new_id(), new_id()
    record = orjson.loads(prediction(name))
    del record["predictions"]["client"]
    record["predictions"]["request_id"] = "one for all rows"
    old = read_rows([orjson.dumps(record)]).predictions
    assert old.select("request_id", "client").rows() == [("one for all rows", None)]
    tables = feedback_tables(workspace, "ferry")
    tables.append("predictions", old.drop("client"), positions={"old": 1}, facts={})
    assert read_predictions(workspace, "ferry").columns == list(PREDICTIONS)

    log = FeedbackLog(workspace.folder / "log")
    log.append(prediction(later)).result()
    ship(log, tables)
    log.close()
    found = read_predictions(workspace, "ferry").select("prediction_id", "client").rows()
    assert dict(found) == {name: None, later: "10.0.0.7"}


def test_ids_are_distinct_and_sort_by_time() -> None:
    """Ids are UUIDs of version 7: distinct, and those made later are greater."""
    before = [new_id() for _ in range(1000)]
    assert len(set(before)) == 1000
    assert all(is_id(name) for name in before)
    assert max(before) < later_id(max(before))
    assert not is_id(new_id().upper())
    assert not is_id(f"{new_id()}\n")


def test_shipped_segments_are_in_the_tables_and_gone(workspace: Workspace, tables: Tables) -> None:
    """What the log held is in the tables, each id once, and the log is empty."""
    log = FeedbackLog(workspace.folder / "log")
    ids = [new_id() for _ in range(5)]
    for name in ids:
        log.append(prediction(name)).result()
    log.append(outcome(ids[0], 1.0)).result()
    assert ship(log, tables).segments == 1
    assert log.segments() == []
    joined = join_outcomes(workspace, "ferry")
    assert joined["prediction_id"].to_list() == sorted(ids)
    assert joined.filter(pl.col("outcome") == 1.0)["prediction_id"].to_list() == [ids[0]]
    log.close()


def test_segment_shipped_twice_counts_once(workspace: Workspace, tables: Tables) -> None:
    """A shipper killed after the commit of one table, or of both, ships again and adds nothing."""
    log = FeedbackLog(workspace.folder / "log")
    ids = [new_id() for _ in range(30)]
    for number in range(10):
        log.append(prediction(*ids[3 * number : 3 * number + 3])).result()
        log.append(outcome(ids[3 * number], 1.0)).result()
        log.seal()
        kept = {segment.path: segment.path.read_bytes() for segment in log.segments()}
        ship(log, tables)
        for path, content in kept.items():
            path.write_bytes(content)
        if number % 2:
            ship(log, tables)
    log.close()
    later = FeedbackLog(workspace.folder / "log")
    ship(later, tables)
    later.close()
    assert tables.read("predictions").collect().height == 30
    assert tables.read("outcomes").collect().height == 10


def test_shipper_killed_between_the_two_tables(
    workspace: Workspace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the second table's commit fails, nothing is deleted, and the next round adds only what lacks."""
    log = FeedbackLog(workspace.folder / "log")
    name = new_id()
    log.append(prediction(name)).result()
    log.append(outcome(name, 1.0)).result()
    real = Tables.append

    def failing(self: Tables, table: str, *arguments: object, **named: object) -> bool:
        if table == "outcomes":
            raise StoreError("The store is away.")
        return real(self, table, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "append", failing)
        with pytest.raises(StoreError):
            ship(log, tables)
    assert len(log.segments()) == 1
    ship(log, tables)
    log.close()
    assert tables.read("predictions").collect().height == 1
    assert tables.read("outcomes").collect().height == 1


def test_damaged_segment_is_shipped_but_kept(workspace: Workspace, tables: Tables) -> None:
    """Of a damaged segment the good records are shipped, and the file is kept for a person."""
    log = FeedbackLog(workspace.folder / "log")
    ids = [new_id() for _ in range(3)]
    for name in ids:
        log.append(prediction(name)).result()
    log.seal()
    (segment,) = log.segments()
    content = bytearray(segment.path.read_bytes())
    content[len(content) // 2] ^= 1
    segment.path.write_bytes(content)
    said: list[str] = []
    assert Shipper(log, tables, every=60, report=said.append).ship()
    log.close()
    assert read_predictions(workspace, "ferry")["prediction_id"].to_list() == sorted([ids[0], ids[2]])
    assert "damaged" in said[0]
    assert segment.path.with_suffix(".damaged").read_bytes() == content


def test_failing_store_only_delays(workspace: Workspace, tables: Tables) -> None:
    """While the store fails the log keeps everything and says so; afterwards it is all shipped."""
    log = FeedbackLog(workspace.folder / "log")
    said: list[str] = []
    shipper = Shipper(log, tables, every=0.01, report=said.append)
    name = new_id()
    log.append(prediction(name)).result()
    obstacle = workspace.folder / "tables"
    obstacle.write_text("a file where the folder of the tables should be")
    shipper.start()
    deadline = time.monotonic() + 30
    while not said and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "was not shipped" in said[0]
    assert len(log.segments()) == 1
    obstacle.unlink()
    shipper.stop()
    log.close()
    assert read_predictions(workspace, "ferry")["prediction_id"].to_list() == [name]


def test_full_disk_of_the_tables_leaves_the_log(
    workspace: Workspace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment is not deleted when its deletion fails either; it is shipped again and counts once."""
    log = FeedbackLog(workspace.folder / "log")
    log.append(prediction(new_id())).result()

    def failing(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    said: list[str] = []
    shipper = Shipper(log, tables, every=60, report=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing)
        assert not shipper.ship()
    assert "was not shipped" in said[0]
    assert shipper.ship()
    log.close()
    assert tables.read("predictions").collect().height == 1


def test_many_commits_are_put_together(
    workspace: Workspace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that grew by many small commits is compacted, and loses no row."""
    monkeypatch.setattr("seatrial.tables.COMPACT_EVERY", 10)
    frame = read_rows([prediction(new_id())]).predictions
    for position in range(1, 24):
        tables.append("predictions", frame, positions={"s": position}, facts={})
    table = tables.open("predictions")
    assert table is not None
    assert len(table.file_uris()) < 10
    assert tables.read("predictions").collect().height == 23
    assert tables.positions("predictions", ["s"])["s"] == 23


def test_position_of_a_stream_is_kept_by_the_table(tables: Tables) -> None:
    """Rows of a stream that has come that far already are not added, those of another stream are."""
    frame = read_rows([prediction(new_id())]).predictions
    assert tables.positions("predictions", ["s"])["s"] == 0
    assert tables.append("predictions", frame, positions={"s": 3}, facts={})
    assert not tables.append("predictions", frame, positions={"s": 3}, facts={})
    assert not tables.append("predictions", frame, positions={"s": 2}, facts={})
    assert tables.append("predictions", frame, positions={"other": 1}, facts={})
    assert tables.positions("predictions", ["s"])["s"] == 3
    assert tables.read("predictions").collect().height == 2


def test_streams_that_come_together_are_refused_apart(tables: Tables) -> None:
    """Rows of two streams are added when neither has come that far, are there when both have, and else are an error."""
    frame = read_rows([prediction(new_id())]).predictions
    assert tables.append("predictions", frame, positions={"a": 1, "b": 2}, facts={})
    assert not tables.append("predictions", frame, positions={"a": 1, "b": 2}, facts={})
    with pytest.raises(TableError, match="those of a"):
        tables.append("predictions", frame, positions={"a": 1, "b": 3}, facts={})
    assert tables.positions("predictions", ["a", "b", "c"]) == {"a": 1, "b": 2, "c": 0}
    assert tables.read("predictions").collect().height == 1


def test_what_many_crashes_left_is_shipped_at_once(workspace: Workspace, tables: Tables) -> None:
    """The segments of many openings of the log, one of which had been shipped, take one commit a table."""
    folder, ids = workspace.folder / "log", [new_id() for _ in range(12)]
    for name in ids[:-1]:
        log = FeedbackLog(folder)
        log.append(prediction(name)).result()
        log.append(outcome(name, 1.0)).result()
        log.close()
    log = FeedbackLog(folder)
    first = log.segments()[0]
    kept = first.path.read_bytes()
    rows = read_rows(scan(kept).payloads)
    tables.append("predictions", rows.predictions, positions={f"feedback:{first.epoch}": 1}, facts={})
    log.append(prediction(ids[-1])).result()

    assert ship(log, tables).segments == len(ids)

    log.close()
    assert sorted(tables.read("predictions").collect()["prediction_id"]) == sorted(ids)
    assert tables.read("outcomes").collect().height == len(ids) - 1
    assert [len(tables.history(table)) for table in ("predictions", "outcomes")] == [2, 1]


def test_predictions_are_chosen_by_their_own_time(workspace: Workspace, tables: Tables) -> None:
    """A period holds the predictions from its start (inclusive) to its end (exclusive), by event time."""
    hours = [NOON + timedelta(hours=n) for n in range(4)]
    ids = [new_id() for _ in hours]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    payloads = [
        prediction(name, known_at=(hour - epoch) // timedelta(microseconds=1))
        for name, hour in zip(ids, hours, strict=True)
    ]
    rows = read_rows([*payloads, payloads[1]]).predictions
    tables.append("predictions", rows, positions={"s": 1}, facts={})
    found = read_predictions(workspace, "ferry", start=hours[1], end=hours[3])
    assert found["prediction_id"].to_list() == sorted(ids[1:3])


def test_model_without_predictions_gives_no_rows(workspace: Workspace) -> None:
    """Before anything was served, reading and joining give empty frames with their columns."""
    assert join_outcomes(workspace, "ferry").columns == [*PREDICTIONS, "outcome", "outcome_at"]
    assert count_outcomes(workspace, "ferry").outcomes == 0


ARRIVALS = st.lists(
    st.tuples(st.sampled_from("abcx"), st.sampled_from([0.0, 1.0]), st.integers(0, 3), st.integers(0, 3)),
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ARRIVALS)
def test_last_outcome_wins(arrivals: list[tuple[str, float, int, int]]) -> None:
    """The join and the index in memory agree with a model of ten lines on which outcome counts."""
    model: dict[str, tuple[int, int, float]] = {}
    for name, value, occurred, received in arrivals:
        model[name] = max(model.get(name, (-1, -1, 0.0)), (occurred, received, value))
    frame = pl.DataFrame(
        arrivals, schema=["prediction_id", "value", "occurred_at", "received_at"], orient="row"
    )
    frame = frame.cast(
        {"prediction_id": pl.String, "value": pl.Float64, "occurred_at": pl.Int64, "received_at": pl.Int64}
    )
    won = winning_outcomes(frame.lazy()).collect()
    assert {name: rest for name, *rest in won.iter_rows()} == {n: [v, o, r] for n, (o, r, v) in model.items()}
    recent = RecentPredictions()
    for name in "abc":
        recent.add(name, "[]", "{}")
    for name, value, occurred, received in sorted(arrivals, key=lambda arrival: (arrival[3], arrival[1])):
        if (known := recent.get(name)) is not None:
            known.settle(value, occurred, received)
    for name in "abc":
        known = recent.get(name)
        assert known is not None
        got = None if known.value is None else (known.occurred_at, known.received_at, known.value)
        assert got == model.get(name)


def test_index_in_memory_is_bounded_and_restored(workspace: Workspace, tables: Tables) -> None:
    """The newest predictions and their outcomes are found again, from the tables and from the log."""
    log = FeedbackLog(workspace.folder / "log")
    ids = []
    for _ in range(3):
        ids.append(later_id(ids[-1] if ids else ""))
        log.append(prediction(ids[-1])).result()
    log.append(outcome(ids[1], 1.0)).result()
    ship(log, tables)
    ids.append(later_id(ids[-1]))
    log.append(prediction(ids[-1])).result()
    log.append(outcome(ids[-1], 0.0)).result()
    log.close()
    log = FeedbackLog(workspace.folder / "log")
    recent = RecentPredictions(capacity=3)
    recent.restore(workspace, "ferry", log)
    log.close()
    assert len(recent) == 3
    assert recent.get(ids[0]) is None
    found = [recent.get(name) for name in ids[1:]]
    assert [known.value for known in found if known is not None] == [1.0, None, 0.0]


def test_a_long_history_is_not_read_to_begin_with(workspace: Workspace, tables: Tables) -> None:
    """Neither files of the tables nor segments of the log are opened that are older than what is kept in memory."""
    log = FeedbackLog(workspace.folder / "log", segment_bytes=1)
    ids: list[str] = []
    for number in range(8):
        ids.append(later_id(ids[-1] if ids else ""))
        log.append(prediction(ids[-1])).result()
        log.append(outcome(ids[-1], float(number % 2))).result()
        if number < 4:
            ship(log, tables)
    log.close()
    for table in ("predictions", "outcomes"):
        oldest = pl.DataFrame(tables.open(table).get_add_actions(flatten=True)).sort("min.prediction_id")[
            "path"
        ][0]  # type: ignore[union-attr]
        (workspace.folder / "tables" / "ferry" / "feedback" / table / oldest).unlink()
    log = FeedbackLog(workspace.folder / "log")
    read = []

    def reading(path: Path) -> bytes:
        read.append(path)
        return real(path)

    real = Path.read_bytes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", reading)
        recent = RecentPredictions(capacity=2)
        recent.restore(workspace, "ferry", log)
    opened = [path for path in read if path.suffix == ".segment"]

    assert [known.value for known in map(recent.get, ids[-2:]) if known is not None] == [0.0, 1.0]
    assert len(recent) == 2
    assert 0 < len(opened) < len(log.segments())
    log.close()
