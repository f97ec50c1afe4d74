"""Data tests: what breaks a rule is set aside with its reasons, and too much of it stops the run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandera.polars  # noqa: F401 -- it takes seconds, which are no test's own
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.contract import LoadedContract, load_contract
from seatrial.contract.schema import Column, FileSource, Table
from seatrial.data_tests import REASONS, BatchCheck, row_problems, validate
from seatrial.errors import TableError
from seatrial.sources import PROBLEMS, UNDATED, conform, ingest
from seatrial.tables import Tables
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace
from support.small_model import CONTRACT, START, loaded_model, visits, write_csv

MAY = datetime(2024, 5, 1, tzinfo=UTC)


def table(key: list[str], **columns: dict[str, Any]) -> Table:
    """Return a table with these columns."""
    made = {name: Column(**rules) for name, rules in columns.items()}
    return Table(source=FileSource(kind="file", path="a.csv"), key=key, columns=made)


def reasons(rows: dict[str, list[Any]], of: Table, **more: Any) -> dict[int, list[str]]:
    """Return the reasons of each broken row, by its place."""
    frame = conform(pl.DataFrame(rows, strict=False), of)
    return dict(row_problems(frame, of, MAY, **more).iter_rows())


def test_each_rule_has_its_reason() -> None:
    """Missing, too small, too large, not allowed, not matching: each in words."""
    of = table(
        ["k"],
        k={"type": "integer"},
        a={"type": "number", "required": True, "minimum": 0, "maximum": 10},
        s={"type": "string", "allowed": ["x", "y"], "pattern": "^[a-z]$"},
        b={"type": "boolean", "required": True},
    )
    rows = {
        "k": [1, 2, 3, 4, 5],
        "a": [0, 10, -0.5, 10.5, None],
        "s": ["x", None, "z", "zz", "y"],
        "b": [True, False, None, True, False],
    }

    assert reasons(rows, of) == {
        2: ["a: is below 0", "b: is missing", "s: is not among the allowed texts"],
        3: ["a: is above 10", "s: does not match ^[a-z]$", "s: is not among the allowed texts"],
        4: ["a: is missing"],
    }


def test_a_value_that_could_not_be_read_is_a_reason_without_the_value() -> None:
    """The value is in the raw layer; as a reason it would make every row one of its own."""
    of = table(["k, but"], **{"k, but": {"type": "integer"}, "t": {"type": "time"}})

    found = reasons({"k, but": ["1", "2", "3"], "t": ["noon", "one, but\ntwo", "2024-01-01"]}, of)

    assert found == {0: ["t: is not a time"], 1: ["t: is not a time"]}


def test_of_rows_that_are_alike_the_first_is_kept() -> None:
    """The same row three times is one row, and two that are set aside."""
    of = table(["k"], k={"type": "string"}, a={"type": "integer"})

    found = reasons({"k": ["x", "y", "x", "x"], "a": [1, 1, 1, 1]}, of)

    assert found == {2: ["k: the row is there twice"], 3: ["k: the row is there twice"]}


def test_rows_that_differ_under_one_key_are_all_set_aside() -> None:
    """Which of them is right cannot be known; a missing value differs from one that is there."""
    of = table(["k", "l"], k={"type": "string"}, l={"type": "integer"}, a={"type": "integer"})

    found = reasons({"k": ["x", "x", "y", "y"], "l": [1, 1, 1, 2], "a": [1, None, 1, 1]}, of)

    assert found == {0: ["k, l: other rows have the same key"], 1: ["k, l: other rows have the same key"]}


def test_a_row_without_its_whole_key_is_set_aside() -> None:
    """Missing keys are not duplicates of each other."""
    of = table(["k", "l"], k={"type": "string"}, l={"type": "integer"})

    found = reasons({"k": ["x", None, None], "l": [None, None, 1]}, of)

    assert found == {place: ["k, l: the key is missing"] for place in range(3)}


def test_a_key_may_not_come_again_in_a_later_period() -> None:
    """No two rows of a table share a key, whatever their periods."""
    of = table(["k"], k={"type": "string"}, a={"type": "integer"})

    found = reasons({"k": ["x", "y"], "a": [1, 2]}, of, earlier=pl.DataFrame({"k": ["y", "z"]}))

    assert found == {1: ["k: an earlier period has a row with the same key"]}


def test_what_lies_in_the_future_is_set_aside() -> None:
    """A row at the instant of the run is still of today."""
    of = Table(
        source=FileSource(kind="file", path="a.csv"), key=["t"], time="t", columns={"t": Column(type="time")}
    )

    found = reasons({"t": [MAY, MAY + timedelta(microseconds=1)]}, of)

    assert found == {1: ["t: is in the future"]}


KEYED = table(["k"], k={"type": "integer"}, a={"type": "integer", "minimum": 1})
ROWS = st.lists(st.tuples(st.integers(0, 4) | st.none(), st.integers(0, 2) | st.none()), max_size=12)


@settings(max_examples=60)
@given(ROWS)
def test_what_is_valid_has_distinct_keys_and_keeps_the_rules(
    rows: list[tuple[int | None, int | None]],
) -> None:
    """Whatever arrives: what passes breaks no rule, and what is set aside breaks one."""
    broken = reasons({"k": [k for k, _ in rows], "a": [a for _, a in rows]}, KEYED)

    passed = [row for place, row in enumerate(rows) if place not in broken]
    assert all(k is not None and (a is None or a >= 1) for k, a in passed)
    assert len({k for k, _ in passed}) == len(passed)
    for place in broken:
        k, a = rows[place]
        others = rows[:place] + rows[place + 1 :]
        assert k is None or a == 0 or any(other[0] == k for other in others)
    # A key is lost only if its rows differ.
    for k in {k for k, _ in rows if k is not None}:
        same = {row for row in rows if row[0] == k}
        assert (len(same) == 1 and all(a != 0 for _, a in same)) == any(row[0] == k for row in passed)


def prepared(
    tmp_path: Path, workspace: Workspace, frame: pl.DataFrame, contract: str = CONTRACT
) -> LoadedContract:
    """Ingest a frame as the visits."""
    model = loaded_model(tmp_path, contract=contract, rows=1)
    write_csv(frame, model.folder / "data" / "visits.csv")
    ingest(model, workspace, until=MAY)
    return model


def of_visits(checks: list[BatchCheck]) -> dict[str, BatchCheck]:
    """Return the checks of the visits by batch."""
    return {check.batch: check for check in checks if check.table == "visits"}


def layer(workspace: Workspace, name: str) -> dict[str, int]:
    """Return the rows of the visits' batches in a layer."""
    return Tables(workspace, "visits", name).batches("visits")


def test_good_rows_become_valid_and_bad_ones_go_to_quarantine(tmp_path: Path, workspace: Workspace) -> None:
    """Both layers name the batch, and the quarantine the reasons; every row is in one of them."""
    frame = visits(60).with_columns(pl.col("shop").replace("CC", "C"))
    model = prepared(
        tmp_path, workspace, frame, CONTRACT.replace("quarantine_share: 0.2", "quarantine_share: 0.6")
    )

    checks = of_visits(validate(model, workspace, as_of=MAY))

    bad = frame.filter(pl.col("shop") == "C")
    aside = Tables(workspace, "visits", "quarantine").read("visits").collect().sort("visit")
    assert aside.drop(REASONS).equals(bad.sort("visit"))
    assert aside[REASONS].to_list() == [["shop: does not match ^[A-Z]{2}$"]] * bad.height
    good = Tables(workspace, "visits", "valid").read("visits").collect().sort("visit")
    assert good.equals(frame.filter(pl.col("shop") != "C").sort("visit"))
    assert sum(check.quarantined for check in checks.values()) == bad.height
    assert {check.outcome for check in checks.values()} == {Outcome.PASS}
    assert PROBLEMS not in good.columns


def test_validating_again_changes_nothing(tmp_path: Path, workspace: Workspace) -> None:
    """The same rows and rules make no new version of a table."""
    model = prepared(tmp_path, workspace, visits(60))
    validate(model, workspace, as_of=MAY)
    before = Tables(workspace, "visits", "valid").version("visits")

    validate(model, workspace, as_of=MAY)

    assert Tables(workspace, "visits", "valid").version("visits") == before


def test_too_much_in_quarantine_leaves_the_valid_layer_as_it_was(
    tmp_path: Path, workspace: Workspace
) -> None:
    """A month of which too much is bad fails; what was valid of it before stays."""
    model = prepared(tmp_path, workspace, visits(60))
    validate(model, workspace, as_of=MAY)
    before = Tables(workspace, "visits", "valid").version("visits")
    worse = visits(60).with_columns(
        amount=pl.when(pl.col("at") < START + timedelta(days=31)).then(-1.0).otherwise("amount")
    )
    write_csv(worse, model.folder / "data" / "visits.csv")
    ingest(model, workspace, until=MAY)

    checks = of_visits(validate(model, workspace, as_of=MAY))

    assert {batch: check.outcome for batch, check in checks.items()} == {
        "2024-01": Outcome.FAIL,
        "2024-02": Outcome.PASS,
        "2024-03": Outcome.PASS,
    }
    (failed,) = [verdict for verdict in checks["2024-01"].verdicts if verdict.outcome is Outcome.FAIL]
    assert (failed.check, failed.value, failed.bound) == ("data.quarantine.visits", 1.0, 0.2)
    assert failed.evidence["reasons"] == {"amount: is below 0": checks["2024-01"].rows}
    assert Tables(workspace, "visits", "valid").version("visits") == before
    assert layer(workspace, "quarantine") == {"2024-01": checks["2024-01"].rows}


def test_a_corrected_month_leaves_quarantine(tmp_path: Path, workspace: Workspace) -> None:
    """The quarantine holds what is bad now, not what was bad once."""
    model = prepared(tmp_path, workspace, visits(60).with_columns(amount=-1.0))
    validate(model, workspace, as_of=MAY)
    assert sum(layer(workspace, "quarantine").values()) == 60

    write_csv(visits(60), model.folder / "data" / "visits.csv")
    ingest(model, workspace, until=MAY)
    validate(model, workspace, as_of=MAY)

    assert layer(workspace, "quarantine") == {}
    assert sum(layer(workspace, "valid").values()) == 60


def test_a_month_with_duplicated_keys(tmp_path: Path, workspace: Workspace) -> None:
    """Doubled rows count once; keys with two contents are set aside."""
    frame = pl.concat([visits(60), visits(60)[:5], visits(60)[5:8].with_columns(amount=pl.lit(1.0))])
    contract = CONTRACT.replace("quarantine_share: 0.2", "quarantine_share: 0.6")
    model = prepared(tmp_path, workspace, frame, contract)

    checks = of_visits(validate(model, workspace, as_of=MAY))

    found: dict[str, int] = {}
    for check in checks.values():
        for reason, count in check.reasons.items():
            found[reason] = found.get(reason, 0) + count
    assert found == {"visit: the row is there twice": 5, "visit: other rows have the same key": 6}
    assert sum(layer(workspace, "valid").values()) == 57


def test_a_month_with_a_third_of_nulls(tmp_path: Path, workspace: Workspace) -> None:
    """More missing values than the contract allows fail the batch, naming the column and the share."""
    contract = CONTRACT.replace("amount: {type: number,", "amount: {type: number, missing_share: 0.1,")
    frame = visits(60).with_columns(amount=pl.when(pl.int_range(60) % 3 > 0).then("amount"))
    model = prepared(tmp_path, workspace, frame, contract)

    checks = of_visits(validate(model, workspace, as_of=MAY))

    failed = [v for check in checks.values() for v in check.verdicts if v.outcome is Outcome.FAIL]
    assert {verdict.check for verdict in failed} == {"data.missing.visits.amount"}
    assert all(verdict.value is not None and 0.2 < verdict.value < 0.5 for verdict in failed)
    assert layer(workspace, "valid") == {}


def test_a_row_from_the_future_becomes_valid_when_its_time_comes(
    tmp_path: Path, workspace: Workspace
) -> None:
    """The rules and the rows are the same, but the run is later."""
    model = loaded_model(tmp_path, rows=60)
    ingest(model, workspace, periods=["2024-03"], tables=["visits"])
    ingest(model, workspace, tables=["prices", "shops"])

    early = of_visits(validate(model, workspace, as_of=datetime(2024, 3, 15, tzinfo=UTC)))["2024-03"]
    late = of_visits(validate(model, workspace, as_of=MAY))["2024-03"]

    assert early.outcome is Outcome.FAIL
    assert set(early.reasons) == {"at: is in the future"}
    assert (late.outcome, late.quarantined) == (Outcome.PASS, 0)
    assert layer(workspace, "valid") == {"2024-03": late.rows}
    assert layer(workspace, "quarantine") == {}


def test_rows_without_a_period_are_judged_and_set_aside(tmp_path: Path, workspace: Workspace) -> None:
    """They are in quarantine with the reason, and the share of them has a verdict."""
    frame = visits(60).with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    frame[3, "at"] = "noon"
    model = prepared(tmp_path, workspace, frame)

    check = of_visits(validate(model, workspace, as_of=MAY))[UNDATED]

    assert (check.rows, check.quarantined, check.outcome) == (1, 1, Outcome.PASS)
    assert check.verdicts[0].value == pytest.approx(1 / 60)
    aside = Tables(workspace, "visits", "quarantine").read("visits").collect()
    assert aside.select("visit", REASONS).rows() == [("v000003", ["at: the row belongs to no period"])]


def test_too_few_rows_and_stale_rows_fail(tmp_path: Path, workspace: Workspace) -> None:
    """A batch has a least number of rows, and the newest a greatest age."""
    contract = CONTRACT.replace("    quarantine_share: 0.2\n", "    freshness: 10d\n    minimum_rows: 30\n")
    model = prepared(tmp_path, workspace, visits(60), contract)

    checks = of_visits(validate(model, workspace, as_of=MAY))

    outcomes = {
        (batch, verdict.check): verdict.outcome
        for batch, check in checks.items()
        for verdict in check.verdicts
    }
    assert outcomes["2024-03", "data.freshness.visits"] is Outcome.FAIL
    assert ("2024-02", "data.freshness.visits") not in outcomes
    assert outcomes["2024-01", "data.rows.visits"] is Outcome.FAIL


def test_a_changed_contract_asks_for_another_ingest(tmp_path: Path, workspace: Workspace) -> None:
    """A column that the raw table has not, or of another type, is told with what to do."""
    model = prepared(tmp_path, workspace, visits(60))
    model.path.write_text(CONTRACT.replace("items: {type: integer", "items: {type: number"))

    with pytest.raises(
        TableError, match="'items' of the raw table 'visits' must be of type number. It is Int64"
    ):
        validate(load_contract(model.path), workspace, as_of=MAY)

    model.path.write_text(CONTRACT.replace("      items:", "      colour: {type: string}\n      items:"))
    with pytest.raises(TableError, match="'colour' of the raw table .* It is not there"):
        validate(load_contract(model.path), workspace, as_of=MAY)


def test_a_table_that_was_never_ingested(tmp_path: Path, workspace: Workspace) -> None:
    """Validating nothing is an error, not a pass."""
    with pytest.raises(TableError, match="There is no table 'visits'"):
        validate(loaded_model(tmp_path), workspace, as_of=MAY)
