"""Tables: a batch counts once, a changed batch is noticed, and earlier versions stay readable."""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.errors import TableError
from seatrial.table_facts import BatchResult
from seatrial.tables import Tables, digest_of
from seatrial.workspace import Workspace

FIRST = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
SECOND = pl.DataFrame({"a": [3], "b": ["y"]})


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(Workspace.open(tmp_path), "visits", "raw")


def write(tables: Tables, frame: pl.DataFrame, batch: str, *, replace: bool = False) -> BatchResult:
    """Write a batch to the table ``t``."""
    digest = digest_of(frame)
    return tables.write("t", frame, batch=batch, digest=digest, facts={"source": "s.csv"}, replace=replace)


def test_the_same_batch_twice_adds_nothing(tables: Tables) -> None:
    """The second write of the same rows, in whatever order, leaves the table at its version."""
    first = write(tables, FIRST, "2024-01")
    again = write(tables, FIRST.reverse(), "2024-01")

    assert (first.status, again.status) == ("added", "unchanged")
    assert first.version == again.version == 1
    assert tables.read("t").collect().height == 2


def test_a_changed_batch_is_refused_until_replaced(tables: Tables) -> None:
    """A month with other rows is refused; with ``replace`` it takes the place of the old one."""
    write(tables, FIRST, "2024-01")
    write(tables, SECOND, "2024-02")

    with pytest.raises(
        TableError, match="2024-01 of table 't' is there already with other content"
    ) as caught:
        write(tables, SECOND, "2024-01")
    assert "--replace" in caught.value.remedy

    assert write(tables, SECOND, "2024-01", replace=True).status == "replaced"
    assert tables.batches("t") == {"2024-01": 1, "2024-02": 1}
    assert tables.read("t", 2, batch="2024-01").collect().sort("a").equals(FIRST)


def test_a_batch_may_be_replaced_by_nothing(tables: Tables) -> None:
    """Rows of an earlier run go when none are left, and only they."""
    write(tables, FIRST, "2024-01")
    write(tables, SECOND, "2024-02")

    write(tables, FIRST.clear(), "2024-01", replace=True)

    assert tables.batches("t") == {"2024-02": 1}


def test_what_a_commit_says_of_itself(tables: Tables) -> None:
    """The history names batch, digest, rows and source, newest first."""
    write(tables, FIRST, "2024-01")
    write(tables, SECOND, "2024-02")

    newest, oldest = tables.history("t")

    assert (newest["version"], newest["batch"], newest["rows"]) == (2, "2024-02", "1")
    assert (oldest["digest"], oldest["source"]) == (digest_of(FIRST), "s.csv")


def test_a_new_column_is_missing_in_the_batches_before(tables: Tables) -> None:
    """A column that came later is added, appending and replacing alike."""
    write(tables, FIRST, "2024-01")
    write(tables, SECOND.with_columns(c=pl.lit(1.5)), "2024-02")
    write(tables, SECOND.with_columns(c=pl.lit(1.5), d=pl.lit("d")), "2024-02", replace=True)
    write(tables, FIRST, "2024-03")

    found = tables.read("t").collect().sort("a", "c", nulls_last=True)

    assert found.rows() == [
        (1, "x", None, None),
        (1, "x", None, None),
        (2, None, None, None),
        (2, None, None, None),
        (3, "y", 1.5, "d"),
    ]


@pytest.mark.parametrize("values", [[5.5], ["5"], [True]])
def test_a_batch_of_another_type_is_refused(tables: Tables, values: list[object]) -> None:
    """Delta Lake would store 5.5 as 5 in a column of integers; the table refuses it instead."""
    write(tables, FIRST, "2024-01")

    with pytest.raises(TableError, match="The column 'a' is Int64 in the table 't'"):
        write(tables, pl.DataFrame({"a": values}), "2024-02")


def test_a_version_that_is_not_there(tables: Tables) -> None:
    """The message says which version is the newest; a table that is not there says how to make it."""
    write(tables, FIRST, "2024-01")

    for version in (-1, 2, 99):
        with pytest.raises(TableError, match=f"has no version {version}: its newest is 1"):
            tables.read("t", version)
    with pytest.raises(TableError, match="There is no table 'u'") as caught:
        tables.read("u")
    assert "seatrial data ingest" in caught.value.remedy


def test_a_table_s_version_has_a_digest_of_its_rows(tables: Tables) -> None:
    """The same rows in one batch or two have the same digest; other rows another."""
    write(tables, pl.concat([FIRST, SECOND]), "2024-01")
    whole = tables.version("t")
    write(tables, FIRST, "2024-01", replace=True)
    write(tables, SECOND, "2024-02")

    assert tables.version("t").digest == whole.digest
    assert (tables.version("t").version, tables.version("t").rows) == (3, 3)
    assert tables.version("t", 2).digest != whole.digest


def _files(tables: Tables, pattern: str) -> list[Path]:
    return sorted(Path(tables.uri("t")).glob(pattern))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("_delta_log/*01.json", None),
        ("_delta_log/*03.json", b"{"),
        ("_batch=2024-01/*.parquet", None),
        ("_batch=2024-01/*.parquet", b"PAR1"),
    ],
    ids=["a hole in the log", "half a log entry", "a missing file", "half a file"],
)
def test_a_damaged_table_is_refused_by_name(tables: Tables, pattern: str, damage: bytes | None) -> None:
    """A hole in the log or a broken file is an error with the table's name, never fewer rows."""
    for batch in ("2024-01", "2024-02", "2024-03"):
        write(tables, FIRST, batch)
    (path,) = _files(tables, pattern)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)

    with pytest.raises(TableError, match="The table t cannot be used"):
        tables.version("t")


@pytest.mark.parametrize(
    "damage", [b"", b"PAR1", b"{", None], ids=["empty", "half a file", "no Parquet", "gone"]
)
@pytest.mark.parametrize("pattern", ["_delta_log/*.checkpoint.parquet", "_delta_log/_last_checkpoint"])
def test_a_damaged_checkpoint_never_hides_rows(tables: Tables, pattern: str, damage: bytes | None) -> None:
    """A checkpoint that is broken or gone is an error with the table's name, or the log is read without it (D5)."""
    for batch in ("2024-01", "2024-02", "2024-03"):
        write(tables, FIRST, batch)
    whole = tables.version("t")
    table = tables.open("t")
    assert table is not None
    table.create_checkpoint()
    (path,) = _files(tables, pattern)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)

    try:
        found = tables.version("t")
    except TableError as error:
        assert "The table t cannot be used" in error.message  # noqa: PT017 -- either is right, nothing else is
    else:
        assert found == whole


@pytest.mark.parametrize("commits", ["_delta_log/*", "_delta_log/*01.json"])
def test_a_killed_first_write_leaves_no_table(tables: Tables, commits: str) -> None:
    """Data files without a commit, and columns without rows, are no table: the next write makes it."""
    write(tables, FIRST, "2024-01")
    for entry in _files(tables, commits):
        entry.unlink()
    with pytest.raises(TableError, match="There is no table 't'"):
        tables.read("t")

    assert tables.batches("t") == {}
    assert write(tables, SECOND, "2024-02").status == "added"
    assert tables.read("t").collect().equals(SECOND)


VALUES = st.one_of(st.none(), st.text(max_size=3))
ROWS = st.lists(
    st.tuples(st.integers(0, 3) | st.none(), VALUES, st.sampled_from([0.5, 1e300, None])), max_size=8
)


def _frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"a": pl.Int64, "b": pl.String, "c": pl.Float64}, orient="row")


@given(ROWS, st.randoms())
def test_a_digest_does_not_depend_on_order(rows: list[tuple[object, ...]], random_: object) -> None:
    """Rows and columns in another order have the same digest."""
    shuffled = rows.copy()
    random_.shuffle(shuffled)  # type: ignore[attr-defined]

    assert digest_of(_frame(rows)) == digest_of(_frame(shuffled).select("c", "a", "b"))


@given(ROWS, ROWS)
def test_other_rows_have_another_digest(
    left: list[tuple[object, ...]], right: list[tuple[object, ...]]
) -> None:
    """Two frames have the same digest only if they have the same rows, as often."""

    def counted(rows: list[tuple[object, ...]]) -> list[str]:
        return sorted(map(repr, rows))

    assert (digest_of(_frame(left)) == digest_of(_frame(right))) == (counted(left) == counted(right))


def test_the_digest_sees_lists_and_missing_texts() -> None:
    """An empty text is not a missing one, and the problems of a row count."""
    frames = [
        pl.DataFrame({"a": [""], "p": [["x"]]}),
        pl.DataFrame({"a": [None], "p": [["x"]]}, schema={"a": pl.String, "p": pl.List(pl.String)}),
        pl.DataFrame({"a": [""], "p": [["x", "y"]]}),
        pl.DataFrame({"a": [""], "p": [[]]}, schema={"a": pl.String, "p": pl.List(pl.String)}),
    ]

    assert len({digest_of(frame) for frame in frames}) == 4


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_digest_sees_the_last_bit_of_a_number(number: float) -> None:
    """Numbers are written exactly: the next one up has another digest."""
    there, next_up = (digest_of(pl.DataFrame({"a": [n]})) for n in (number, math.nextafter(number, math.inf)))

    assert there != next_up


@pytest.mark.parametrize("step", ["_make", "_commit"])
@pytest.mark.parametrize("there", [True, False], ids=["a table", "no table yet"])
def test_somebody_else_comes_first(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, step: str, *, there: bool
) -> None:
    """Between the look at the table and the commit another writer adds the same batch: it is there once."""
    if there:
        write(tables, SECOND, "2024-02")
    before = tables.batches("t")
    original = getattr(Tables, step)

    def late(self: Tables, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(Tables, step, original)
        assert write(self, FIRST, "2024-01").status == "added"
        return original(self, *arguments, **options)

    monkeypatch.setattr(Tables, step, late)
    result = write(tables, FIRST, "2024-01")

    overtaken = step == "_commit" or not there
    assert result.status == ("unchanged" if overtaken else "added")
    assert tables.batches("t") == {**before, "2024-01": 2}


def test_different_batches_at_once_are_both_there(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer's batch in between is no reason to fail."""
    original = Tables._commit

    def late(self: Tables, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(Tables, "_commit", original)
        write(self, SECOND, "2024-02")
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "_commit", late)

    assert write(tables, FIRST, "2024-01").status == "added"
    assert tables.batches("t") == {"2024-01": 2, "2024-02": 1}


def test_others_who_never_stop_are_an_error(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some attempts the writer gives up, and says that nothing was written."""
    write(tables, FIRST, "2024-01")
    original = Tables._commit
    turns = iter(range(100))

    def late(self: Tables, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(Tables, "_commit", original)
        turn = next(turns)
        write(self, SECOND.with_columns(a=pl.lit(turn, pl.Int64)), "2024-02", replace=True)
        monkeypatch.setattr(Tables, "_commit", late)
        return original(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Tables, "_commit", late)

    with pytest.raises(TableError, match="changed by someone else at the same moment") as caught:
        write(tables, FIRST, "2024-02", replace=True)
    assert "Nothing was written" in caught.value.remedy
