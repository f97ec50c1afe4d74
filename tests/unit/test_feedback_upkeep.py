"""Compacting, retaining and erasing feedback, also while a shipper writes."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seatrial.contract import load_contract
from seatrial.contract.schema import Contract, Feedback
from seatrial.errors import FeedbackError, StoreError, UsageError
from seatrial.feedback import FeedbackLog, count_outcomes, join_outcomes, read_predictions, upkeep
from seatrial.feedback.concealing import Concealer
from seatrial.feedback.ids import first_id_at, new_id
from seatrial.feedback.joining import labelled_data, read_comparisons, read_outcomes
from seatrial.feedback.rows import STATISTICS, TABLES, PredictionRecord, read_rows
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support.feedback_records import NOW, comparison, outcome, prediction
from support.small_model import write_model

DAY = 86_400_000_000
KEY = b"k" * 32


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    return load_contract(str(write_model(tmp_path, rows=1))).contract


@pytest.fixture
def tables(workspace: Workspace) -> Tables:
    return feedback_tables(workspace, "visits")


def id_at(instant: datetime, number: int = 0) -> str:
    """Return an id as it would have been made at an instant."""
    return f"{first_id_at(instant)}-7000-8000-{number:012x}"


def visit(name: str, *, shop: str = "AA", amount: float | None = 1.5) -> bytes:
    """Return a logged record of one prediction of a visit."""
    amounts = "null" if amount is None else repr(amount)
    return PredictionRecord(
        prediction_id=[name],
        request_id=[None],
        client=[None],
        served_at=NOW,
        latency_microseconds=[1],
        known_at=[NOW],
        bundle="d" * 64,
        key=['["v"]'],
        inputs=[
            f'{{"visit":"v","at":"2024-01-01T00:00:00+00:00","shop":"{shop}","amount":{amounts},"items":3}}'
        ],
        features=np.zeros((1, 2), dtype=np.float32),
        probability=[0.25],
        flagged=[False],
    ).to_bytes()


def put(tables: Tables, *records: bytes, position: int = 1, stream: str = "s") -> None:
    """Put records into the tables, as a shipper does."""
    log_rows = read_rows(records)
    for table in TABLES:
        frame = log_rows.of(table)
        if frame.height:
            tables.append(table, frame, positions={stream: position}, facts={}, statistics=STATISTICS[table])


def data_files(workspace: Workspace) -> list[Path]:
    """Return all data files of the feedback tables, of whatever version."""
    return [
        path
        for path in (workspace.folder / "tables" / "visits" / "feedback").rglob("*.parquet")
        if "_delta_log" not in path.parts
    ]


def test_compacting_keeps_every_row_and_what_is_read_still(
    workspace: Workspace, tables: Tables, contract: Contract
) -> None:
    """Many files become one, the positions stay, and versions of the last days can still be read."""
    names = [new_id() for _ in range(12)]
    for position, name in enumerate(names, 1):
        put(tables, prediction(name), outcome(name, 1.0), position=position)
    before = tables.open("predictions")
    assert before is not None
    found = upkeep.compact(workspace, contract)
    assert [(one.table, one.files_before, one.files_after, one.deleted_files) for one in found] == [
        ("predictions", 12, 1, 0),
        ("outcomes", 12, 1, 0),
        ("comparisons", 0, 0, 0),
    ]
    assert read_predictions(workspace, "visits")["prediction_id"].to_list() == sorted(names)
    assert tables.positions("predictions", ["s"])["s"] == 12
    assert tables.read("predictions", before.version()).collect().height == 12
    again = upkeep.compact(workspace, contract)
    assert [(one.files_before, one.files_after) for one in again] == [(1, 1), (1, 1), (0, 0)]


def test_compacting_deletes_what_nobody_reads_any_more(
    workspace: Workspace, tables: Tables, contract: Contract
) -> None:
    """Files of versions older than the contract keeps them go, those of a writer that is gone, too, no fresh ones."""
    for position in range(1, 4):
        put(tables, prediction(new_id()), position=position)
    folder = workspace.folder / "tables" / "visits" / "feedback" / "predictions"
    old, fresh = folder / "part-00000-old-c000.parquet", folder / "part-00000-fresh-c000.parquet"
    for path in (old, fresh):
        path.write_bytes(b"not committed")
    then = time.time() - 7_200
    os.utime(old, (then, then))
    short = contract.model_copy(update={"feedback": Feedback(versions=timedelta(0))})
    upkeep.compact(workspace, short)
    assert not old.exists()
    assert fresh.exists()
    assert tables.read("predictions").collect().height == 3


def test_a_model_without_feedback_has_nothing_to_keep(workspace: Workspace, contract: Contract) -> None:
    """Before anything was served, all commands do nothing."""
    assert [one.files_after for one in upkeep.compact(workspace, contract)] == [0, 0, 0]
    kept = contract.model_copy(update={"feedback": Feedback(retention=timedelta(days=1))})
    assert upkeep.retain(workspace, kept, now=datetime.now(UTC)) == upkeep.Deleted(0, 0, 0)
    assert upkeep.erase(workspace, "visits", {new_id()}) == upkeep.Deleted(0, 0, 0)
    assert labelled_data(workspace, contract).is_empty()


def test_retention_deletes_what_is_older(workspace: Workspace, tables: Tables, contract: Contract) -> None:
    """What was answered before the limit goes with its outcomes, to the millisecond; orphans go by their arrival."""
    now = datetime(2024, 6, 1, tzinfo=UTC)
    limit = now - timedelta(days=30)
    old = [id_at(limit - timedelta(days=1)), id_at(limit - timedelta(milliseconds=1))]
    young = [id_at(limit), id_at(now - timedelta(days=1))]
    late = int((now - timedelta(days=1)).timestamp() * 1e6)
    early = int((limit - timedelta(days=1)).timestamp() * 1e6)
    made_up = id_at(now + timedelta(days=900))
    put(
        tables,
        *(prediction(name) for name in (*old, *young)),
        *(outcome(name, 1.0, received_at=late) for name in (old[0], *young)),
        outcome(made_up, 1.0, received_at=early),
        comparison(*old, *young),
    )
    assert upkeep.retain(workspace, contract, now=now) == upkeep.Deleted(0, 0)
    assert read_predictions(workspace, "visits").height == len(old) + len(young)
    kept = contract.model_copy(update={"feedback": Feedback(retention=timedelta(days=30))})
    assert upkeep.retain(workspace, kept, now=now) == upkeep.Deleted(2, 2, 0)
    assert read_predictions(workspace, "visits")["prediction_id"].to_list() == young
    assert sorted(read_outcomes(workspace, "visits").collect()["prediction_id"]) == young
    assert sorted(read_comparisons(workspace, "visits").collect()["prediction_id"]) == young
    assert upkeep.retain(workspace, kept, now=now) == upkeep.Deleted(0, 0, 0)
    counts = count_outcomes(workspace, "visits")
    assert (counts.predictions, counts.joined, counts.unknown) == (2, 2, 0)


def test_erasing_reaches_every_version_and_the_tables_log(workspace: Workspace, tables: Tables) -> None:
    """A subject's rows are gone from the newest version, from all earlier ones, and from the log's statistics."""
    names = {shop: [new_id() for _ in range(3)] for shop in ("AA", "zz-secret")}
    position = 0
    for shop, ids in names.items():
        for name in ids:
            position += 1
            put(tables, visit(name, shop=shop), outcome(name, 1.0), comparison(name), position=position)
    table = tables.open("predictions")
    assert table is not None
    table.optimize.compact()
    put(tables, visit(new_id()), position=99)
    holding = [path for path in data_files(workspace) if "zz-secret" in str(pl.read_parquet(path).rows())]
    assert len(holding) == 4

    erased = upkeep.erase(workspace, "visits", set(names["zz-secret"]))

    assert (erased.predictions, erased.outcomes) == (3, 3)
    assert erased.files >= 4 + 3 + 3
    assert sorted(read_comparisons(workspace, "visits").collect()["prediction_id"]) == sorted(names["AA"])
    assert len(read_predictions(workspace, "visits")) == 4
    assert not [path for path in data_files(workspace) if "secret" in str(pl.read_parquet(path).rows())]
    assert not [
        path for path in workspace.folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()
    ]
    assert upkeep.erase(workspace, "visits", set(names["zz-secret"])) == upkeep.Deleted(0, 0, 0)
    assert tables.positions("predictions", ["s"])["s"] == 99


def test_erasing_goes_on_where_it_was_killed(
    workspace: Workspace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the commit and the deletion of files, the next run deletes the files."""
    name = new_id()
    put(tables, visit(name, shop="zz-secret"), visit(new_id()))

    def fail(*_: object, **__: object) -> int:
        raise StoreError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "vacuum", fail)
        with pytest.raises(StoreError):
            upkeep.erase(workspace, "visits", {name})
    assert len(data_files(workspace)) == 2
    assert upkeep.erase(workspace, "visits", {name}) == upkeep.Deleted(0, 0, 1)
    assert len(data_files(workspace)) == 1


def test_a_subject_is_found_by_a_field(workspace: Workspace, tables: Tables, contract: Contract) -> None:
    """A value is found as it was recorded, of whatever type; a text that only looks like it is not."""
    names = [new_id() for _ in range(5)]
    forged = 'x\\",\\"shop\\":\\"BB\\",\\"'
    put(
        tables,
        visit(names[0], shop="BB"),
        visit(names[1], shop="B"),
        visit(names[2], shop=forged),
        visit(names[3], amount=7.0),
        visit(names[4], amount=None),
    )

    def find(field: str, value: str) -> set[str]:
        return upkeep.find_subject(workspace, contract, None, field, value)

    assert find("shop", "BB") == {names[0]}
    assert find("amount", "7") == {names[3]}
    assert find("items", "3") == set(names)
    assert find("items", "33") == set()
    assert find("at", "2024-01-01T00:00:00Z") == set(names)
    for field, value, message in (
        ("colour", "red", "has no field 'colour'"),
        ("items", "many", "is of type integer"),
        ("at", "noon", "is of type time"),
    ):
        with pytest.raises(UsageError, match=message):
            find(field, value)


def test_a_private_subject_is_found_by_its_hash(
    workspace: Workspace, tables: Tables, contract: Contract
) -> None:
    """Where a field is hashed, its value finds both hashed records and those of before; a dropped one finds none."""
    concealer = Concealer({"shop": "hash", "items": "drop"}, KEY)
    before, after = new_id(), new_id()
    put(tables, visit(before, shop="BB"), visit(after, shop=concealer.hash("shop", "BB")), visit(new_id()))
    assert upkeep.find_subject(workspace, contract, concealer, "shop", "BB") == {before, after}
    with pytest.raises(UsageError, match="is dropped before it is recorded"):
        upkeep.find_subject(workspace, contract, concealer, "items", "3")


def test_a_log_without_a_server_is_emptied(workspace: Workspace, tables: Tables, tmp_path: Path) -> None:
    """What a server left in its folder gets into the tables first; damaged segments go."""
    folder = tmp_path / "log"
    log = FeedbackLog(folder)
    name = new_id()
    log.append(visit(name)).result()
    log.close()
    (folder / "an-old-one.damaged").write_bytes(b"?")
    assert upkeep.empty_logs(workspace, "visits", [folder, tmp_path / "absent"], wait=0) == 1
    assert upkeep.erase(workspace, "visits", {name}).predictions == 1
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_server_is_waited_for(workspace: Workspace, tables: Tables, tmp_path: Path) -> None:
    """A log in use is left to its server: erased is only after it has shipped, and never if it does not."""
    with closing(FeedbackLog(tmp_path / "log")) as log:
        log.append(visit(new_id())).result()
        with pytest.raises(FeedbackError, match="has not shipped 1 of its segments yet"):
            upkeep.empty_logs(workspace, "visits", [log.folder], wait=0)
        shipper = threading.Timer(0.3, ship, (log, tables))
        shipper.start()
        assert upkeep.empty_logs(workspace, "visits", [log.folder], wait=60) == 0
        shipper.join()
        assert read_predictions(workspace, "visits").height == 1


def test_data_have_inputs_and_the_outcome_that_counts(
    workspace: Workspace, tables: Tables, contract: Contract
) -> None:
    """Each prediction with an outcome is a row of typed inputs; the history has a row for each outcome."""
    first, second, third = new_id(), new_id(), new_id()
    put(
        tables,
        visit(first),
        visit(second, amount=None),
        visit(third),
        outcome(first, 0.0, NOW + DAY, NOW),
        outcome(first, 1.0, NOW, NOW + DAY),
        outcome(second, 1.0),
        outcome(new_id(), 1.0),
    )
    rows = labelled_data(workspace, contract)
    assert dict(rows.select("prediction_id", "outcome").iter_rows()) == {first: 0.0, second: 1.0}
    assert rows.schema["inputs.at"] == pl.Datetime("us", "UTC")
    assert dict(rows.select("prediction_id", "inputs.amount").iter_rows()) == {first: 1.5, second: None}
    assert rows["inputs.items"].to_list() == [3, 3]

    history = labelled_data(workspace, contract, history=True)
    assert history.filter(pl.col("prediction_id") == first).select("outcome", "counts").rows() == [
        (1.0, False),
        (0.0, True),
    ]
    assert history.height == 3
    assert dict(history.filter("counts").select("prediction_id", "outcome").iter_rows()) == {
        name: value
        for name, value in join_outcomes(workspace, "visits").select("prediction_id", "outcome").iter_rows()
        if value is not None
    }


def test_what_was_private_is_text(workspace: Workspace, tables: Tables, contract: Contract) -> None:
    """A field that was hashed for a while is a column of texts, whatever type it has by the contract."""
    name = new_id()
    put(
        tables,
        visit(name, shop=Concealer({}, KEY).hash("shop", "BB")),
        outcome(name, 1.0),
        visit(other := new_id()),
        outcome(other, 1.0),
    )
    table = contract.tables["visits"]
    hidden = table.columns["shop"].model_copy(update={"private": "hash"})
    changed = table.model_copy(update={"columns": {**table.columns, "shop": hidden}})
    private = contract.model_copy(update={"tables": {**contract.tables, "visits": changed}})
    found = labelled_data(workspace, private)["inputs.shop"].to_list()
    assert "AA" in found
    assert sum(text.startswith("hash:") for text in found) == 1
