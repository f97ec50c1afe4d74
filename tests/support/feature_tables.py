"""Random tables and requests for the laws of features, and what each definition means, in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from hypothesis import strategies as st

from seatrial.features import Features, History, Latest, Lookup

START = datetime(2024, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=30)
TIME = pl.Datetime("us", "UTC")
EVENTS = {"shop": pl.String, "size": pl.Int64, "at": TIME, "price": pl.Float64, "sold": pl.Boolean}
SHOPS = {"shop": pl.String, "size": pl.Int64, "region": pl.String, "staff": pl.Int64}
REQUESTS = {"shop": pl.String, "size": pl.Int64, "asked": TIME, "amount": pl.Float64}

FEATURES = Features(
    known_at=pl.col("asked") - pl.duration(hours=1),
    parts=(
        Latest("events", by=("shop",), time="at", columns={"last_price": "price", "same_price": "price"}),
        Latest("events", by=("shop", "size"), time="at", within="2h", columns={"near_price": "price"}),
        Lookup("shops", by=("shop",), columns={"region": "region", "again": "region"}),
        Lookup("shops", by=("shop", "size"), columns={"staff": "staff"}),
        History("sold", "events", by=("shop",), time="at", value="sold", windows=("1h", "3h")),
        History("market_share_of", "events", by=("size", "shop"), time="at", value="price", windows=("2h",)),
    ),
    expressions={
        "shop": pl.col("shop"),
        "ratio": pl.col("amount") / pl.col("last_price"),
        "hour": pl.col("asked").dt.hour(),
    },
)

# Few values and a coarse grid of times, so that ties and the ends of windows come up all the time;
# one choice in several is a missing value (``| st.none()`` would make it one in two).
_shop = st.sampled_from(["a", "a", "b", None])
_size = st.sampled_from([1, 1, 2, None])
_time = st.sampled_from([*(START + n * STEP for n in range(10)), None])
_number = st.sampled_from([*(n / 4 for n in range(-4, 5)), None])
_sold = st.sampled_from([True, True, False, None])
# Enough rows that keys and times meet in almost every example; that tables may be empty is a test of its own.
events = st.lists(st.tuples(_shop, _size, _time, _number, _sold), min_size=4, max_size=15)
shops = st.lists(st.tuples(_shop, _size, st.sampled_from(["n", "s", None]), _size), max_size=5)
requests = st.lists(
    st.tuples(st.sampled_from(["a", "a", "b", "x", None]), _size, _time, _number), min_size=2, max_size=6
)

CUT = START + 8 * STEP
"""An instant with a past and a future."""
_steps = st.integers(0, 7)


def _events_at(times: st.SearchStrategy[datetime]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(_shop, _size, times, _number, _sold), min_size=2, max_size=10)


past = _events_at(_steps.map(lambda n: CUT - n * STEP))
future = _events_at(_steps.map(lambda n: CUT + n * STEP + timedelta(microseconds=1)))
past_requests = st.lists(
    st.tuples(_shop, _size, _steps.map(lambda n: CUT - n * STEP + timedelta(hours=1)), _number),
    min_size=2,
    max_size=6,
)
"""Requests whose predictions are made at or before the cut."""


def frame(rows: list[tuple[Any, ...]], schema: dict[str, Any]) -> pl.DataFrame:
    """Return rows as a frame of a schema."""
    return pl.DataFrame(rows, schema=schema, orient="row")


def tables(event_rows: list[tuple[Any, ...]], shop_rows: list[tuple[Any, ...]]) -> dict[str, pl.LazyFrame]:
    """Return the two tables that the definitions read."""
    return {"events": frame(event_rows, EVENTS).lazy(), "shops": frame(shop_rows, SHOPS).lazy()}


def expected(
    request: tuple[Any, ...], event_rows: list[tuple[Any, ...]], shop_rows: list[tuple[Any, ...]]
) -> dict[str, Any]:
    """Say in plain Python what the definitions above mean for one request."""
    shop, size, asked, amount = request
    known_at = asked - timedelta(hours=1) if asked else None
    same_shop = [row for row in event_rows if shop is not None and row[0] == shop]
    same_both = [row for row in same_shop if size is not None and row[1] == size]
    last = _latest(same_shop, known_at, None)
    near = _latest(same_both, known_at, timedelta(hours=2))
    lookups = [row for row in shop_rows if shop is not None and row[0] == shop]
    both = [row for row in lookups if size is not None and row[1] == size]
    sold_1h = _history(same_shop, known_at, timedelta(hours=1), 4)
    sold_3h = _history(same_shop, known_at, timedelta(hours=3), 4)
    price_2h = _history(same_both, known_at, timedelta(hours=2), 3)
    price = last[3] if last else None
    return {
        "last_price": price,
        "same_price": price,
        "near_price": near[3] if near else None,
        "region": lookups[-1][2] if lookups else None,
        "again": lookups[-1][2] if lookups else None,
        "staff": both[-1][3] if both else None,
        "sold_share_1h": sold_1h[0],
        "sold_count_1h": sold_1h[1],
        "sold_share_3h": sold_3h[0],
        "sold_count_3h": sold_3h[1],
        "market_share_of_share_2h": price_2h[0],
        "market_share_of_count_2h": price_2h[1],
        "shop": shop,
        "ratio": None if amount is None or price is None else _divided(amount, price),
        "hour": asked.hour if asked else None,
    }


def _latest(rows: list[tuple[Any, ...]], known_at: datetime | None, within: timedelta | None) -> Any:
    """The newest row at or before ``known_at``; of several at one instant, the last in the table."""
    there = [row for row in rows if known_at and row[2] and row[2] <= known_at]
    if within is not None:
        there = [row for row in there if known_at and known_at - row[2] <= within]
    return max(enumerate(there), key=lambda numbered: (numbered[1][2], numbered[0]))[1] if there else None


def _history(
    rows: list[tuple[Any, ...]], known_at: datetime | None, window: timedelta, value: int
) -> tuple[float | None, int]:
    """Mean and count of the values of ``(known_at - window, known_at]`` that are there."""
    values = [
        float(row[value])
        for row in rows
        if known_at and row[2] and row[value] is not None and known_at - window < row[2] <= known_at
    ]
    return (sum(values) / len(values) if values else None), len(values)


def _divided(amount: float, price: float) -> float:
    if price == 0:
        return float("nan") if amount == 0 else float("inf") * (1 if amount > 0 else -1)
    return amount / price
