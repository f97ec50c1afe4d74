"""Types: values are parsed, never bent, and each that does not fit is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.contract.schema import Column, FileSource, Table
from seatrial.errors import SourceError
from seatrial.sources import PROBLEMS, conform

NOON = datetime(2024, 3, 31, 12, 0, tzinfo=UTC)


def table(kind: str, **more: Any) -> Table:
    """Return a table with the one column ``a`` of a type."""
    source = FileSource(kind="file", path="a.csv")
    return Table(source=source, key=["a"], columns={"a": Column(type=kind, **more)})  # type: ignore[arg-type]


def read(kind: str, values: list[Any] | pl.Series) -> list[Any]:
    """Return the values as the type, with the text of the problem in the place of each that is none."""
    series = values if isinstance(values, pl.Series) else pl.Series(values, dtype=pl.String)
    found = conform(pl.DataFrame({"a": series}), table(kind))
    return [problems[0] if problems else value for value, problems in found.select("a", PROBLEMS).iter_rows()]


TEXTS = {
    "integer": (
        ["5", " -7 ", "5.0", "1e3", None, "9223372036854775807"],
        [5, -7, 5, 1000, None, 9223372036854775807],
        ["5.5", "five", "", "9223372036854775808", "1_000", "0x10", "٣", "NaN", "inf"],
    ),
    "number": (
        ["5", " 1.5 ", "-1e-3", None],
        [5.0, 1.5, -0.001, None],
        ["1,5", "five", "", "nan", "inf", "-inf", "1e999"],
    ),
    "boolean": (
        ["true", "FALSE", "1", "0", " yes", "No", None],
        [True, False, True, False, True, False, None],
        ["2", "t", "", "on", "-1"],
    ),
    "time": (
        [
            "2024-03-31T12:00:00Z",
            "2024-03-31T14:00:00+02:00",
            "2024-03-31T12:00:00.000",
            "2024-03-31 12:00:00",
            "2024-03-31T12:00",
            "2024-03-31 12:00",
            "2024-03-31",
            None,
        ],
        [NOON] * 6 + [NOON - timedelta(hours=12), None],
        ["31/03/2024", "2024-02-30", "2024-03-31T25:00:00Z", "noon", "", "1711886400", "2024"],
    ),
    "string": (["", " a ", "NA", None], ["", " a ", "NA", None], []),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_parsed_or_told(kind: str) -> None:
    """What is of the type is read; of what is not, the row says which value it was."""
    good, expected, bad = TEXTS[kind]

    assert read(kind, good) == expected
    article = "an" if kind == "integer" else "a"
    assert read(kind, bad) == [f"a: is not {article} {kind}, but {text}" for text in bad]


TYPED: list[tuple[str, pl.Series, list[Any]]] = [
    ("integer", pl.Series([1.0, 2.5, None, float("nan")]), [1, "a: is not an integer, but 2.5", None, None]),
    ("integer", pl.Series([True, False, None]), [1, 0, None]),
    ("integer", pl.Series([2**63], dtype=pl.UInt64), [f"a: is not an integer, but {2**63}"]),
    ("integer", pl.Series([Decimal("1.50"), Decimal("2.00")]), ["a: is not an integer, but 1.50", 2]),
    ("integer", pl.Series([date(2024, 1, 1)]), ["a: is not an integer, but 2024-01-01"]),
    ("number", pl.Series([1, None]), [1.0, None]),
    ("number", pl.Series([1.5, float("inf"), float("nan")]), [1.5, "a: is not a number, but inf", None]),
    ("number", pl.Series([NOON]), [f"a: is not a number, but {NOON:%Y-%m-%d %H:%M:%S}.000000+00:00"]),
    ("boolean", pl.Series([0, 1, 2]), [False, True, "a: is not a boolean, but 2"]),
    ("boolean", pl.Series([0.0, 0.5]), [False, "a: is not a boolean, but 0.5"]),
    ("time", pl.Series([1711886400]), ["a: is not a time, but 1711886400"]),
    ("time", pl.Series([NOON.replace(tzinfo=None)]), [NOON]),
    ("time", pl.Series([NOON]).cast(pl.Datetime("ns", "UTC")), [NOON]),
    ("time", pl.Series([NOON]).dt.convert_time_zone("America/New_York"), [NOON]),
    ("time", pl.Series([date(2024, 3, 31)]), [NOON - timedelta(hours=12)]),
    ("string", pl.Series([5, None]), ["5", None]),
    ("string", pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"]),
    ("string", pl.Series([[1]]), ["a: is not a text, but a list"]),
    ("number", pl.Series([{"x": 1}]), ["a: is not a number, but a struct"]),
    ("string", pl.Series([b"x"]), ["a: is not a text, but a binary"]),
    ("number", pl.Series([None, None]), [None, None]),
]


@pytest.mark.parametrize(("kind", "values", "expected"), TYPED, ids=range(len(TYPED)))
def test_typed_values_keep_their_meaning(kind: str, values: pl.Series, expected: list[Any]) -> None:
    """From Parquet: no number is cut to an integer, 2 is no boolean, and a number is no time."""
    assert read(kind, values.alias("a")) == expected


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), st.integers(-14 * 60, 14 * 60))  # noqa: DTZ001
def test_an_instant_is_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    """ISO 8601 with an offset is read to the microsecond, as UTC."""
    instant = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))

    assert read("time", [instant.isoformat()]) == [instant.astimezone(UTC)]


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_whole_number_is_read_exactly(number: int) -> None:
    """Large identifiers do not lose their last digits by way of a float."""
    assert read("integer", [str(number)]) == [number]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_read_exactly(number: float) -> None:
    """What Python writes is what is read."""
    assert read("number", [repr(number)]) == [number]


@given(st.sampled_from(sorted(TEXTS)), st.lists(st.text(max_size=6) | st.none(), max_size=5))
def test_no_value_is_lost_without_a_word(kind: str, texts: list[str | None]) -> None:
    """A value that is there becomes a value or a problem."""
    frame = pl.DataFrame({"a": pl.Series(texts, dtype=pl.String)})

    found = conform(frame, table(kind))

    for text, (value, problems) in zip(texts, found.select("a", PROBLEMS).iter_rows(), strict=True):
        assert (text is None) == (value is None and not problems)


def test_all_problems_of_a_row_are_told() -> None:
    """A row with two wrong values has two problems; a long value is cut."""
    columns = {"a": Column(type="integer"), "b": Column(type="time")}
    both = Table(source=FileSource(kind="file", path="a.csv"), key=["a"], columns=columns)

    found = conform(pl.DataFrame({"b": ["x" * 100], "a": ["y"], "c": ["ignored"]}), both)

    assert found.columns == ["a", "b", PROBLEMS]
    assert found[PROBLEMS].to_list() == [["a: is not an integer, but y", f"b: is not a time, but {'x' * 40}"]]


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    """The message has both lists, so that a mistyped name is seen."""
    with pytest.raises(SourceError, match="lacks the column a. It has: A, b.") as caught:
        conform(pl.DataFrame({"A": ["1"], "b": ["2"]}), table("integer"))
    assert "Nothing was ingested" in caught.value.remedy


@pytest.mark.parametrize("separator", [";", "\t", "|", ":"])
def test_another_separator_is_guessed(separator: str) -> None:
    """One column whose name has separators in it says which one to set."""
    with pytest.raises(SourceError, match="seem to be separated by") as caught:
        conform(pl.DataFrame({f"a{separator}b": ["1"]}), table("integer"))
    assert repr(separator) in caught.value.remedy
