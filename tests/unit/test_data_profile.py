"""Profiles: every column can be described, however odd."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.data_tests import profile

NOON = datetime(2024, 3, 31, 12, tzinfo=UTC)


def described(values: Any) -> dict[str, Any]:
    """Return the profile of one column, as it comes out of JSON."""
    series = values if isinstance(values, pl.Series) else pl.Series(values)
    (facts,) = profile(pl.DataFrame({"a": series}))
    return orjson.loads(orjson.dumps(facts))


def test_numbers_have_quartiles_mean_and_histogram() -> None:
    """Missing values count as missing and as nothing else."""
    facts = described([*range(100), None])

    assert (facts["rows"], facts["distinct"], facts["mean"]) == (101, 100, 49.5)
    assert facts["quantiles"] == [0, 25, 50, 74, 99]
    assert facts["missing_share"] == pytest.approx(1 / 101)
    assert sum(facts["histogram"]["counts"]) == 100
    assert len(facts["histogram"]["edges"]) == len(facts["histogram"]["counts"]) + 1


def test_one_wild_value_does_not_flatten_the_histogram() -> None:
    """The outermost half per cent is counted in the outermost bin."""
    facts = described([*range(1000), 10**9])

    assert facts["histogram"]["edges"][-1] < 1100
    assert sum(facts["histogram"]["counts"]) == 1001


def test_texts_and_booleans_have_their_most_frequent_values() -> None:
    """The ten most frequent ones, with their counts."""
    assert described(["x", "y", "x", None])["top"] == [["x", 2], ["y", 1]]
    assert described([True, True, False])["top"] == [["true", 2], ["false", 1]]
    assert len(described([str(n) for n in range(20)])["top"]) == 10


@pytest.mark.parametrize(
    "values",
    [
        [],
        [None],
        pl.Series([None, None], dtype=pl.Float64),
        pl.Series([None], dtype=pl.Datetime("us", "UTC")),
        [5],
        [5.0, 5.0, 5.0],
        [math.nan, math.inf, -math.inf],
        [math.nan, 1.0, 2.0],
        [1e308, -1e308],
        pl.Series([True, None]),
        pl.Series(["a"], dtype=pl.Categorical),
        [""],
        [NOON],
        [0, 0, 0, 1],
    ],
    ids=range(14),
)
def test_odd_columns_are_described(values: Any) -> None:
    """Empty, all missing, constant, not finite: facts for the report, and never a crash."""
    facts = described(values)

    assert 0 <= facts["missing_share"] <= 1
    counts = facts.get("histogram", {}).get("counts", [])
    assert sum(counts) == (0 if not counts else round(facts["rows"] * (1 - facts["missing_share"])))


@given(st.lists(st.floats(width=32) | st.none()))
def test_every_number_is_counted_once(values: list[float | None]) -> None:
    """The histogram holds all values that are there and finite."""
    facts = described(pl.Series(values, dtype=pl.Float64))

    finite = [value for value in values if value is not None and math.isfinite(value)]
    assert sum(facts.get("histogram", {}).get("counts", [])) == len(finite)


def test_columns_of_our_own_are_left_out() -> None:
    """Batch and problems are no columns of the table."""
    facts = profile(pl.DataFrame({"a": [1], "_batch": ["2024"], "_problems": [["x"]]}))

    assert [column["column"] for column in facts] == ["a"]
