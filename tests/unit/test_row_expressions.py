"""Expressions translated for one row have, to the last bit, what polars has."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.features.online import to_microseconds
from seatrial.features.row_expressions import TIME, Unsure, row_function

COLUMNS: dict[str, Any] = {
    "i": pl.Int64,
    "small": pl.Int8,
    "x": pl.Float64,
    "y": pl.Float64,
    "flag": pl.Boolean,
    "text": pl.String,
    "at": TIME,
    "till": TIME,
}
ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe")

# Not pl.col itself: hypothesis looks for attributes of what it maps by, and pl.col has any.
_numbers = st.builds(lambda name: pl.col(name), st.sampled_from(["i", "small", "x", "y"]))  # noqa: PLW0108
_literals = st.one_of(st.integers(-100, 100), st.floats(-1e3, 1e3)).map(pl.lit)
_local = st.sampled_from(ZONES).map(pl.col("at").dt.convert_time_zone)
_parts = st.sampled_from(["hour", "minute", "weekday", "day", "month", "year", "ordinal_day"])
_clock = st.builds(lambda local, part: getattr(local.dt, part)(), _local, _parts)
_totals = st.sampled_from(["total_days", "total_hours", "total_minutes", "total_seconds"])
_spans = st.builds(lambda name: getattr((pl.col("till") - pl.col("at")).dt, name)(), _totals)
_first = st.one_of(_numbers, _clock, _spans)


def _grown(inner: st.SearchStrategy[pl.Expr]) -> st.SearchStrategy[pl.Expr]:
    both = st.tuples(inner, st.one_of(inner, _literals))
    conditions = st.one_of(
        both.map(lambda pair: pair[0] > pair[1]),
        both.map(lambda pair: pair[0] == pair[1]),
        inner.map(lambda one: one.is_null() | pl.col("flag")),
        inner.map(lambda one: ~pl.col("flag") & one.is_not_null()),
    )
    return st.one_of(
        both.map(lambda pair: pair[0] + pair[1]),
        both.map(lambda pair: pair[0] - pair[1]),
        both.map(lambda pair: pair[0] * pair[1]),
        both.map(lambda pair: pair[0] / pair[1]),
        both.map(lambda pair: pair[0].fill_null(pair[1])),
        st.tuples(conditions, both).map(lambda a: pl.when(a[0]).then(a[1][0]).otherwise(a[1][1])),
        conditions.map(lambda condition: condition.cast(pl.Int64)),
        inner.map(lambda one: one.cast(pl.Float64)),
    )


expressions = st.recursive(_first, _grown, max_leaves=6)
_seconds = st.floats(0, 300 * 365.2 * 86400)
_instants = _seconds.map(lambda seconds: datetime(1900, 1, 2, tzinfo=UTC) + timedelta(seconds=seconds))
rows = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5),
    st.none() | st.integers(-128, 127),
    st.none() | st.floats(width=64),
    st.none() | st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, -math.inf]),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["a", "b"]),
    st.none() | _instants,
    st.none() | _instants,
)


def by_polars(expression: pl.Expr, row: tuple[Any, ...]) -> Any:
    """Compute one row with polars."""
    return pl.DataFrame([row], schema=COLUMNS, orient="row").select(expression.alias("_")).item()


def plain(row: tuple[Any, ...]) -> list[Any]:
    """Return a row as translated functions take it."""
    return [to_microseconds(value) if isinstance(value, datetime) else value for value in row]


def same(found: Any, wanted: Any) -> bool:
    """Whether two values are the same, sign of zero and NaN included."""
    if isinstance(found, float) and isinstance(wanted, float):
        return math.isnan(found) == math.isnan(wanted) and (
            math.isnan(found) or (found == wanted and math.copysign(1, found) == math.copysign(1, wanted))
        )
    return type(found) is type(wanted) and found == wanted


@settings(max_examples=150, deadline=None)
@given(expressions, rows)
def test_translation_has_what_polars_has(expression: pl.Expr, row: tuple[Any, ...]) -> None:
    """For any expression that is translated and any row: the same value and type, or none at all."""
    function = row_function(expression, COLUMNS)
    if function is None:
        return
    try:
        found = function(plain(row))
    except Unsure:
        return
    assert same(found, by_polars(expression, row)), expression


USUAL: dict[str, pl.Expr] = {
    "column": pl.col("text"),
    "weekday in a zone": pl.col("at").dt.convert_time_zone("America/New_York").dt.weekday(),
    "minutes between": (pl.col("till") - pl.col("at")).dt.total_minutes(),
    "age": pl.col("at").dt.convert_time_zone("America/New_York").dt.year() - pl.col("i"),
    "earlier": (pl.col("at") - pl.duration(hours=2)).dt.epoch("us"),
    "ratio": pl.col("x") / pl.col("y"),
    "condition": pl.when(pl.col("x") > 3).then(2.5).otherwise(None),
    "weekend": (pl.col("at").dt.weekday() >= 6).cast(pl.Int64),
    "is it b": pl.col("text") == "b",
    "filled": pl.col("x").fill_null(0),
    "text filled": pl.col("text").fill_null("none"),
}


@pytest.mark.parametrize("name", USUAL)
def test_usual_expressions_are_translated(name: str) -> None:
    """What features are usually made of needs no polars for a request, and has the same value."""
    row = (
        1999,
        3,
        4.5,
        0.0,
        True,
        "b",
        datetime(2013, 7, 1, 3, 30, tzinfo=UTC),
        datetime(2013, 7, 2, tzinfo=UTC),
    )
    for one in (row, (None,) * len(row)):
        function = row_function(USUAL[name], COLUMNS)
        assert function is not None
        assert same(function(plain(one)), by_polars(USUAL[name], one))


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [1900, 1918, 1945, 2013, 2026, 2199])
def test_clocks_are_those_of_polars(zone: str, year: int) -> None:
    """Over a year, every 17 minutes, each zone's clock shows what polars says; in the hour of a change none."""
    expression = pl.col("at").dt.convert_time_zone(zone).dt.hour()
    instants = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(minutes=17 * n) for n in range(30_900)]
    wanted = pl.DataFrame({"at": instants}, schema={"at": TIME}).select(expression).to_series().to_list()
    function = row_function(expression, COLUMNS)
    assert function is not None
    unsure = 0
    for instant, value in zip(instants, wanted, strict=True):
        try:
            assert function([None] * 6 + [to_microseconds(instant), None]) == value
        except Unsure:
            unsure += 1
    assert unsure <= 4 * 8


UNSURE = {
    "overflow": (pl.col("small") + 100, {"small": 100}),
    "comparison with NaN": (pl.col("x") > 1, {"x": math.nan}),
    "year 2200": (pl.col("at").dt.hour(), {"at": datetime(2200, 1, 2, tzinfo=UTC)}),
    "hour of a change": (
        pl.col("at").dt.convert_time_zone("America/New_York").dt.hour(),
        {"at": datetime(2013, 3, 10, 6, 59, tzinfo=UTC)},
    ),
}


@pytest.mark.parametrize("name", UNSURE)
def test_doubtful_values_are_left_to_polars(name: str) -> None:
    """Where plain Python and polars could differ, the translation says so instead of guessing."""
    expression, values = UNSURE[name]
    function = row_function(expression, COLUMNS)
    assert function is not None
    with pytest.raises(Unsure):
        function(plain(tuple(values.get(column) for column in COLUMNS)))


UNKNOWN = {
    "over rows": pl.col("x").mean(),
    "function": pl.col("x").log1p(),
    "text": pl.col("text").str.to_lowercase(),
    "narrow float": pl.col("x").cast(pl.Float32),
    "wrong types": pl.col("text") + 1,
    "no such column": pl.col("nothing"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_expressions_are_not_translated(name: str) -> None:
    """An expression with a part that is not known to be the same stays with polars."""
    assert row_function(UNKNOWN[name], COLUMNS) is None
