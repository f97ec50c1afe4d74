"""The laws of features: what they mean, that they do not know the future, and that serving agrees."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from seatrial.errors import FeatureError
from seatrial.features import Features, History, Latest, Lookup, OnlineFeatures, compute_features
from support import feature_tables as made
from support.feature_tables import FEATURES, REQUESTS, START, STEP

Rows = list[tuple[Any, ...]]
# Each example makes two dozen small joins; while hypothesis shrinks one, a test may take minutes.
pytestmark = pytest.mark.timeout(300)
law = settings(max_examples=40)


def batch(requests: Rows, tables: dict[str, pl.LazyFrame]) -> pl.DataFrame:
    """Compute the features of requests in one go."""
    return compute_features(FEATURES, made.frame(requests, REQUESTS), tables)


def online(tables: dict[str, pl.LazyFrame]) -> OnlineFeatures:
    """Make the index that serves requests."""
    return OnlineFeatures(FEATURES, tables, REQUESTS)


@law
@given(made.requests, made.events, made.shops)
def test_features_are_what_their_definitions_say(requests: Rows, events: Rows, shops: Rows) -> None:
    """Latest rows, lookups and windows agree with plain Python, row by row and in the rows' order."""
    found = batch(requests, made.tables(events, shops))

    assert found.columns == FEATURES.all_names
    assert found.height == len(requests)
    wanted = [made.expected(request, events, shops) for request in requests]
    assert_frame_equal(found, pl.DataFrame(wanted, schema=found.schema, orient="row"))


@law
@given(made.requests, made.events, made.shops)
def test_online_features_equal_batch_features(requests: Rows, events: Rows, shops: Rows) -> None:
    """One request at a time, from the index, gives the very same frame: values, missing ones and types."""
    tables = made.tables(events, shops)
    index = online(tables)
    together = batch(requests, tables)

    assert_frame_equal(index.compute(requests), together)
    for place, request in enumerate(requests):
        assert_frame_equal(index.compute([request]), together[place])
    plain = index.compute_plain(requests)
    assert plain is not None
    assert_frame_equal(pl.DataFrame(plain[0], schema=together.schema, orient="row"), together)
    assert plain[1] == index.compute_at(requests)[1]


@law
@given(made.requests, made.events, made.events, made.shops, st.randoms(use_true_random=False))
def test_what_was_learned_counts_as_if_it_had_been_there(
    requests: Rows, events: Rows, later: Rows, shops: Rows, order: random.Random
) -> None:
    """After ``learn`` in any order, histories are those of the grown table."""
    index = online(made.tables(events, shops))
    shuffled = later.copy()
    order.shuffle(shuffled)
    for row in shuffled:
        index.learn("events", dict(zip(made.EVENTS, row, strict=True)))
    index.learn(
        "shops", {"shop": "a", "size": 1, "at": START, "sold": True}
    )  # Another table's rows do not count.

    histories = [name for part in FEATURES.parts if isinstance(part, History) for name in part.names]
    grown = batch(requests, made.tables(events + later, shops)).select(histories)
    assert_frame_equal(index.compute(requests).select(histories), grown)


@law
@given(made.requests, made.events, made.events)
def test_what_was_forgotten_was_never_there(requests: Rows, events: Rows, wrong: Rows) -> None:
    """``forget`` takes back what ``learn`` did, whatever came in between."""
    tables = made.tables(events, [])
    index = online(tables)
    for row in wrong:
        index.learn("events", dict(zip(made.EVENTS, row, strict=True)))
    for row in reversed(wrong):
        index.forget("events", dict(zip(made.EVENTS, row, strict=True)))

    assert_frame_equal(index.compute(requests), batch(requests, tables))


@law
@given(made.past_requests, made.past, made.future, made.future, made.shops)
def test_no_feature_changes_when_the_future_does(
    requests: Rows, past: Rows, future: Rows, other: Rows, shops: Rows
) -> None:
    """Rows known after a prediction are taken away, changed and added: its features stay as they were."""
    before = batch(requests, made.tables(past + future, shops))

    for changed in (past, past + other, other + past + future):
        tables = made.tables(changed, shops)
        assert_frame_equal(batch(requests, tables), before)
        assert_frame_equal(online(tables).compute(requests), before)


@law
@given(made.requests, made.events, made.shops, st.randoms(use_true_random=False))
def test_a_row_s_features_do_not_depend_on_other_rows(
    requests: Rows, events: Rows, shops: Rows, order: random.Random
) -> None:
    """Requests in another order get the same features, each its own."""
    tables = made.tables(events, shops)
    places = list(range(len(requests)))
    order.shuffle(places)

    found = batch([requests[place] for place in places], tables)

    assert_frame_equal(found, batch(requests, tables)[places])


@law
@given(
    made.requests,
    made.events,
    made.events,
    made.shops,
    made.shops,
    st.sets(st.sampled_from(["events", "shops"])),
)
def test_what_is_taken_over_is_what_would_be_made(
    requests: Rows, events: Rows, later_events: Rows, shops: Rows, later_shops: Rows, changed: set[str]
) -> None:
    """Indexes of tables that did not change are taken over, without what was learned; the others are made anew."""
    before = online(made.tables(events, shops))
    for row in later_events:
        before.learn("events", dict(zip(made.EVENTS, row, strict=True)))
    tables = made.tables(
        later_events if "events" in changed else events, later_shops if "shops" in changed else shops
    )
    unchanged = {"events", "shops"} - changed

    after = OnlineFeatures(FEATURES, tables, REQUESTS, like=before, unchanged=unchanged)
    learned = before.compute(requests)

    assert_frame_equal(after.compute(requests), online(tables).compute(requests))
    if "events" not in changed:
        assert before.history_index is not after.history_index
        for row in later_events:
            after.learn("events", dict(zip(made.EVENTS, row, strict=True)))
    assert_frame_equal(before.compute(requests), learned)


@law
@given(
    st.lists(st.sampled_from(FEATURES.all_names), unique=True, min_size=1),
    made.requests,
    made.events,
    made.shops,
)
def test_only_the_features_asked_for_are_made(
    use: list[str], requests: Rows, events: Rows, shops: Rows
) -> None:
    """``use`` chooses features and their order, and changes no value."""
    tables, rows = made.tables(events, shops), made.frame(requests, REQUESTS)

    chosen = compute_features(FEATURES, rows, tables, use=use)

    assert_frame_equal(chosen, batch(requests, tables).select(use))
    assert_frame_equal(OnlineFeatures(FEATURES, tables, REQUESTS, use=use).compute(requests), chosen)


def _late(at: int, *, asked: int) -> tuple[float | None, int]:
    """Return share and count of the 1 h window for one event and one request, in steps of 30 minutes."""
    tables = made.tables([("a", 1, START + at * STEP, 1.0, True)], [])
    row = batch([("a", 1, START + asked * STEP, 1.0)], tables).row(0, named=True)
    return row["sold_share_1h"], row["sold_count_1h"]


def test_a_window_has_its_end_and_not_its_beginning() -> None:
    """An event counts if it became known in ``(known_at - 1h, known_at]``; known_at is an hour before."""
    assert _late(at=2, asked=4) == (1.0, 1)  # At the very instant of the prediction.
    assert _late(at=3, asked=4) == (None, 0)  # After it.
    assert _late(at=1, asked=4) == (1.0, 1)
    assert _late(at=0, asked=4) == (None, 0)  # One window before it, to the microsecond.


def test_a_tolerance_has_both_its_ends() -> None:
    """A row that is exactly as old as ``within`` is still used; a microsecond more and it is not."""
    for late, price in ((timedelta(0), 7.0), (timedelta(microseconds=1), None)):
        tables = made.tables([("a", 1, START, 7.0, True)], [])
        asked = START + timedelta(hours=3) + late
        assert batch([("a", 1, asked, 1.0)], tables)["near_price"].to_list() == [price]


def test_values_that_are_no_numbers_do_not_spoil_a_history() -> None:
    """NaN counts as missing, in tables and in what is learned: one would spoil all later sums."""
    nan = float("nan")
    events = [("a", 1, START, nan, True), ("a", 1, START + STEP, 2.0, True)]
    index = online(made.tables(events, []))
    index.learn("events", {"shop": "a", "size": 1, "at": START + STEP, "price": nan, "sold": True})
    request = ("a", 1, START + timedelta(hours=2), 1.0)

    row = index.compute([request]).row(0, named=True)

    assert (row["market_share_of_share_2h"], row["market_share_of_count_2h"]) == (2.0, 1)
    assert batch([request], made.tables(events, []))["market_share_of_share_2h"].to_list() == [2.0]


def test_keys_of_any_type_find_their_rows() -> None:
    """Texts, whole numbers, booleans and times name rows, in tables, in requests and in what is learned."""
    by = ("t", "b")
    kinds = {"t": pl.Datetime("us", "UTC"), "b": pl.Boolean}
    table = pl.DataFrame(
        [(START, True, START, 1.0)], schema={**kinds, "at": made.TIME, "v": pl.Float64}, orient="row"
    )
    features = Features(
        known_at=pl.col("asked"), parts=(History("h", "x", by=by, time="at", value="v", windows=("1d",)),)
    )
    tables = {"x": table.lazy()}
    index = OnlineFeatures(features, tables, {**kinds, "asked": made.TIME})

    index.learn("x", {"t": START, "b": True, "at": START + STEP, "v": 3.0})
    found = index.compute([(START, True, START + STEP), (START, False, START + STEP)])

    assert found.rows() == [(2.0, 2), (None, 0)]


def test_a_model_without_time_has_lookups_and_expressions() -> None:
    """``known_at`` is None where the data have no time."""
    features = Features(
        parts=(Lookup("shops", by=("shop",), columns={"region": "region"}),),
        expressions={"double": pl.col("amount") * 2},
    )
    tables = made.tables([], [("a", 1, "n", 1)])
    requests = [("a", 1, None, 2.0), ("x", 1, None, None)]

    found = compute_features(features, made.frame(requests, REQUESTS), tables)

    assert found.rows() == [("n", 4.0), (None, None)]
    assert OnlineFeatures(features, tables, REQUESTS).compute(requests).equals(found)


WRONG: dict[str, tuple[Any, str]] = {
    "two of one name": (
        lambda: Features(
            parts=(Lookup("shops", ("shop",), {"x": "region"}),), expressions={"x": pl.col("shop")}
        ),
        "Two features have the same name: x",
    ),
    "a history without an instant": (
        lambda: Features(parts=(History("h", "events", ("shop",), "at", "sold", ("1d",)),)),
        "known_at must be given",
    ),
    "a window that is none": (
        lambda: History("h", "events", ("shop",), "at", "sold", ("1 day",)),
        "windows of the history 'h' must be .* such as 28d or 6h",
    ),
    "no window": (lambda: History("h", "events", ("shop",), "at", "sold", ()), "needs at least one window"),
    "a tolerance that is none": (
        lambda: Latest("events", ("shop",), "at", {"x": "price"}, within="soon"),
        "within .* such as 28d or 6h",
    ),
    "a text for a tuple": (lambda: Lookup("shops", "shop", {"x": "region"}), "by must be a tuple of columns"),  # type: ignore[arg-type]
    "no key": (lambda: Lookup("shops", (), {"x": "region"}), "by must be a tuple of columns"),
    "a text for an expression": (
        lambda: Features(expressions={"x": "shop"}),  # type: ignore[dict-item]
        "expression 'x' must be a polars expression. Got str",
    ),
    "a text for an instant": (
        lambda: Features(known_at="asked"),  # type: ignore[arg-type]
        "known_at must be a polars expression. Got str",
    ),
    "something else for a part": (
        lambda: Features(parts=("shops",)),  # type: ignore[arg-type]
        "parts must be Lookup, Latest or History. Got str",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_definition_is_refused_where_it_is_written(case: str) -> None:
    """A definition that cannot work fails when features.py is read, not in the middle of a run."""
    make, message = WRONG[case]

    with pytest.raises(FeatureError, match=message):
        make()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (Features(expressions={"x": pl.col("nothing")}), "cannot be computed"),
        (Features(expressions={"x": pl.col("shop").str.to_integer()}), "cannot be computed"),
        (
            Features(parts=(Lookup("prices", ("shop",), {"x": "y"}),)),
            "need the table 'prices'. Got: events, shops.",
        ),
        (Features(parts=(Lookup("shops", ("shop",), {"x": "y"}),)), "cannot be computed"),
    ],
    ids=["no such column", "not a number", "no such table", "no such column of a table"],
)
def test_what_cannot_be_computed_is_told(features: Features, message: str) -> None:
    """Both ways to compute say what was wrong, as an error of the features."""
    tables = made.tables([], [])
    rows = [("a", 1, START, 1.0)]

    with pytest.raises(FeatureError, match=message):
        compute_features(features, made.frame(rows, REQUESTS), tables)
    with pytest.raises(FeatureError, match=message):
        OnlineFeatures(features, tables, REQUESTS).compute(rows)


@pytest.mark.parametrize(
    "row", [("a", "one", START, 1.0), ("a", 1, "noon", 1.0), ("a", 2**70, START, 1.0), ("a",)]
)
def test_a_request_of_other_types_is_an_error_of_its_features(row: tuple[Any, ...]) -> None:
    """A value of the wrong type is refused, not bent."""
    with pytest.raises(FeatureError, match="The features cannot be computed"):
        online(made.tables([], [])).compute([row])


@law
@given(made.requests)
def test_no_table_has_a_row_yet(requests: Rows) -> None:
    """On the first day nothing is known, and every feature that needs a table is missing."""
    empty = made.tables([], [])
    found = batch(requests, empty)

    assert_frame_equal(online(empty).compute(requests), found)
    assert_frame_equal(batch([], empty), found.clear())
    assert_frame_equal(online(empty).compute([]), found.clear())
    assert found["last_price"].null_count() == found["region"].null_count() == len(requests)
    assert found["sold_count_3h"].to_list() == [0] * len(requests)
