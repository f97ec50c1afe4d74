"""A batch that passed is tested again only if something has changed that its verdicts rest on."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandera.polars  # noqa: F401 -- it takes seconds, which are no test's own
import polars as pl
import pytest

from seatrial.contract import LoadedContract, load_contract
from seatrial.data_tests import BatchCheck, validate
from seatrial.sources import ingest
from seatrial.tables import Tables
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace
from support.small_model import CONTRACT, START, loaded_model, visits, write_csv

MAY = datetime(2024, 5, 1, tzinfo=UTC)
FRESH = CONTRACT.replace("    quarantine_share: 0.2\n", "    quarantine_share: 0.2\n    freshness: 40d\n")
MONTHS = ["2024-01", "2024-02", "2024-03"]


@pytest.fixture
def model(tmp_path: Path, workspace: Workspace) -> LoadedContract:
    """The small model, with three months of visits ingested."""
    loaded = loaded_model(tmp_path, contract=FRESH, rows=60)
    ingest(loaded, workspace, until=MAY)
    return loaded


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The months of visits whose rows are tested, from now on."""
    module: Any = __import__("seatrial.data_tests.validate", fromlist=["row_problems"])
    real, found = module.row_problems, []

    def row_problems(rows: pl.DataFrame, *more: Any) -> pl.DataFrame:
        if "visit" in rows.columns:
            found.append(f"{rows['at'].min():%Y-%m}")
        return real(rows, *more)

    monkeypatch.setattr(module, "row_problems", row_problems)
    return found


def of_visits(checks: list[BatchCheck]) -> list[BatchCheck]:
    """Return the checks of the visits."""
    return [check for check in checks if check.table == "visits"]


def test_what_passed_is_not_tested_again_and_found_the_same(
    model: LoadedContract, workspace: Workspace, tested: list[str]
) -> None:
    """A second run reads no batch's rows, and its checks are those of the first."""
    first = validate(model, workspace, as_of=MAY)
    assert tested == MONTHS

    second = validate(model, workspace, as_of=MAY)

    assert tested == MONTHS
    assert second == first


def test_a_changed_rule_tests_all_batches_anew(
    model: LoadedContract, workspace: Workspace, tested: list[str]
) -> None:
    """What passed by the old rules can fail by the new ones."""
    assert {check.outcome for check in of_visits(validate(model, workspace, as_of=MAY))} == {Outcome.PASS}
    model.path.write_text(
        FRESH.replace("amount: {type: number, minimum: 0", "amount: {type: number, minimum: 999")
    )

    checks = of_visits(validate(load_contract(model.path), workspace, as_of=MAY))

    assert tested == MONTHS * 2
    assert {check.outcome for check in checks} == {Outcome.FAIL}


def test_a_corrected_batch_and_those_after_it_are_tested_anew(
    model: LoadedContract, workspace: Workspace, tested: list[str]
) -> None:
    """An earlier batch's keys decide about a later batch's rows, so what follows is not known any more."""
    validate(model, workspace, as_of=MAY)
    february = (pl.col("at") >= datetime(2024, 2, 1, tzinfo=UTC)) & (
        pl.col("at") < datetime(2024, 3, 1, tzinfo=UTC)
    )
    corrected = visits(60).with_columns(amount=pl.when(february).then(-1.0).otherwise("amount"))
    write_csv(corrected, model.folder / "data" / "visits.csv")
    ingest(model, workspace, until=MAY)

    checks = of_visits(validate(model, workspace, as_of=MAY))

    assert tested == [*MONTHS, "2024-02", "2024-03"]
    assert [check.outcome for check in checks] == [Outcome.PASS, Outcome.FAIL, Outcome.PASS]


def test_a_key_of_a_batch_that_was_not_read_again_is_known(
    model: LoadedContract, workspace: Workspace, tested: list[str]
) -> None:
    """A new month's row with the key of a month that passed before is set aside."""
    validate(model, workspace, as_of=MAY)
    again = visits(60)[:1].with_columns(at=pl.lit(datetime(2024, 4, 3, tzinfo=UTC)))
    more = visits(60)[-5:].with_columns(
        pl.format("{}-april", "visit").alias("visit"), at=pl.lit(datetime(2024, 4, 5, tzinfo=UTC))
    )
    write_csv(pl.concat([visits(60), again, more]), model.folder / "data" / "visits.csv")
    ingest(model, workspace, until=MAY)

    newest = of_visits(validate(model, workspace, as_of=MAY))[-1]

    assert tested == [*MONTHS, "2024-04"]
    assert (newest.batch, newest.quarantined) == ("2024-04", 1)
    assert newest.reasons == {"visit: an earlier period has a row with the same key": 1}


@pytest.mark.parametrize("lost", ["tables/visits/valid", "tested/visits"])
def test_what_is_lost_is_made_anew(
    model: LoadedContract, workspace: Workspace, tested: list[str], lost: str
) -> None:
    """Neither the valid rows nor what was written down about them is taken for granted."""
    first = validate(model, workspace, as_of=MAY)
    shutil.rmtree(workspace.folder / lost)

    assert validate(model, workspace, as_of=MAY) == first
    assert tested == MONTHS * 2
    assert sum(Tables(workspace, "visits", "valid").batches("visits").values()) == 60


def test_a_damaged_record_is_no_reason_to_pass(
    model: LoadedContract, workspace: Workspace, tested: list[str]
) -> None:
    """A record that cannot be read counts for nothing."""
    first = validate(model, workspace, as_of=MAY)
    (workspace.folder / "tested/visits/visits.json").write_text('{"batches": {"2024-01": {}}}')

    assert validate(model, workspace, as_of=MAY) == first
    assert tested == MONTHS * 2


def test_the_instant_of_the_run_is_looked_at_anew(
    model: LoadedContract, workspace: Workspace, tested: list[str]
) -> None:
    """A later run finds older data, and an earlier one rows from the future, without a change of either."""
    validate(model, workspace, as_of=MAY)
    later = of_visits(validate(model, workspace, as_of=MAY + timedelta(days=60)))[-1]
    assert tested == MONTHS
    assert [v.check for v in later.verdicts if v.outcome is Outcome.FAIL] == ["data.freshness.visits"]

    early = of_visits(validate(model, workspace, as_of=START + timedelta(days=35)))

    assert tested == [*MONTHS, "2024-02", "2024-03"]
    assert [check.outcome for check in early] == [Outcome.PASS, Outcome.FAIL, Outcome.FAIL]
