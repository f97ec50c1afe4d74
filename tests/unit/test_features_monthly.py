"""Features by month are the features of everything at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from seatrial.errors import FeatureError
from seatrial.features import Features, History, Latest, Lookup, compute_features
from seatrial.features.monthly import compute_monthly

FIRST = datetime(2013, 1, 1, tzinfo=UTC)
INSTANT = pl.Datetime("us", "UTC")
FEATURES = Features(
    known_at=pl.col("departs") - pl.duration(hours=2),
    parts=(
        Latest("weather", by=("airport",), time="at", within="6h", columns={"wind": "wind"}),
        Latest("weather", by=("airport",), time="at", columns={"last_wind": "wind"}),
        Lookup("planes", by=("plane",), columns={"seats": "seats"}),
        History("late", "flights", by=("airport",), time="landed", value="late", windows=("1d", "28d")),
    ),
    expressions={"hour": pl.col("departs").dt.hour()},
)

instants = st.integers(0, 120 * 24 * 60).map(lambda minutes: FIRST + timedelta(minutes=minutes))
airports = st.sampled_from(["EWR", "JFK", None])
flights = st.lists(
    st.tuples(st.none() | instants, airports, st.none() | instants, st.none() | st.booleans()), max_size=60
)
weather = st.lists(st.tuples(instants, airports, st.integers(0, 40)), max_size=60, unique_by=lambda r: r[:2])


def frames(flown: list[tuple], blown: list[tuple]) -> dict[str, pl.LazyFrame]:
    schema = {"departs": INSTANT, "airport": pl.String, "landed": INSTANT, "late": pl.Boolean}
    rows = pl.DataFrame(flown, schema=schema, orient="row")
    numbered = rows.with_row_index("id").with_columns(pl.lit("N1").alias("plane"))
    return {
        "flights": numbered.lazy(),
        "weather": pl.LazyFrame(
            blown, schema={"at": INSTANT, "airport": pl.String, "wind": pl.Int64}, orient="row"
        ),
        "planes": pl.LazyFrame({"plane": ["N1", "N2"], "seats": [100, 200]}),
    }


@settings(max_examples=40)
@given(flown=flights, blown=weather)
def test_by_month_and_at_once_agree(flown: list[tuple], blown: list[tuple]) -> None:
    """Whatever the instants, also across month ends and missing ones, each row has the same features."""
    tables = frames(flown, blown)
    rows = tables["flights"].select("id", "departs", "airport", "plane")
    whole = compute_features(FEATURES, rows.collect(), tables)
    months = list(compute_monthly(FEATURES, rows, tables))

    assert sum(month.rows.height for month in months) == len(flown)
    named = [month.month for month in months if month.month]
    assert named == sorted(set(named))
    if months:
        got = pl.concat([month.rows.select("id").hstack(month.features) for month in months]).sort("id")
        assert_frame_equal(got.drop("id"), whole)


def test_only_the_month_and_its_look_back_are_read() -> None:
    """A table whose parts all have a window is asked for no row before the longest of them."""
    flown = [(FIRST + timedelta(days=day), "EWR", FIRST + timedelta(days=day), True) for day in range(120)]
    tables = frames(flown, [])
    read: list[int] = []
    tables["flights"] = tables["flights"].map_batches(
        lambda frame: read.append(frame.height) or frame, predicate_pushdown=True
    )
    part = History("late", "flights", by=("airport",), time="landed", value="late", windows=("7d",))
    rows = frames(flown, [])["flights"].select("departs", "airport")
    list(compute_monthly(Features(known_at=pl.col("departs"), parts=(part,)), rows, tables))

    assert read == [31, 28 + 7, 31 + 7, 30 + 7]


def test_rows_in_another_order_at_each_look_are_all_found() -> None:
    """A scan that gives its rows in another order each time loses none and doubles none."""
    flown = [(FIRST + timedelta(days=day), "EWR", FIRST + timedelta(days=day), True) for day in range(90)]
    tables = frames(flown, [])
    seeds = iter(range(100))
    rows = tables["flights"].map_batches(
        lambda frame: frame.sample(fraction=1, shuffle=True, seed=next(seeds)),
        predicate_pushdown=False,
        slice_pushdown=False,
    )
    months = list(compute_monthly(FEATURES, rows, tables))

    assert sorted(pl.concat([month.rows["id"] for month in months]).to_list()) == list(range(90))


def test_features_without_an_instant_have_no_months() -> None:
    """Definitions without known_at are refused with the reason."""
    with pytest.raises(FeatureError, match="only where known_at is given"):
        next(compute_monthly(Features(expressions={"a": pl.col("a")}), pl.LazyFrame({"a": [1]}), {}))


def test_a_missing_table_is_named() -> None:
    """A table that a definition reads and nobody gave is an error that names it."""
    tables = frames([(FIRST, "EWR", FIRST, True)], [])
    del tables["weather"]

    with pytest.raises(FeatureError, match="need the table 'weather'"):
        next(compute_monthly(FEATURES, tables["flights"], tables))


def test_a_column_that_is_not_there_is_an_error() -> None:
    """Rows without the column that known_at is made of are refused before anything is computed."""
    with pytest.raises(FeatureError, match="departs"):
        next(compute_monthly(FEATURES, pl.LazyFrame({"a": [1]}), {}))
