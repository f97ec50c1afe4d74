"""Encoding: the same numbers in training and serving, however few or many the rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.errors import FeatureError
from seatrial.features.encoding import (
    FEW_ROWS,
    LARGEST,
    MAXIMUM_CATEGORIES,
    MISSING,
    UNSEEN,
    FeatureColumn,
    FeatureSchema,
)

SCHEMA = FeatureSchema(
    columns=(
        FeatureColumn(name="shop", kind="category", categories=("a", "b")),
        FeatureColumn(name="amount", kind="number"),
        FeatureColumn(name="open", kind="number"),
    )
)
KINDS = {"shop": pl.String, "amount": pl.Float64, "open": pl.Boolean}


def test_kinds_are_learned_from_types() -> None:
    """Numbers and booleans are numbers, texts are categories, sorted."""
    frame = pl.DataFrame(
        {
            "n": [1.5],
            "i": [1],
            "b": [True],
            "s": ["y"],
            "c": pl.Series(["x"], dtype=pl.Categorical),
            "z": [None],
        }
    )

    schema = FeatureSchema.fit(frame)

    assert [column.kind for column in schema.columns] == ["number"] * 3 + ["category"] * 2 + ["number"]
    assert (schema.category_places, schema.number_places) == ([3, 4], [0, 1, 2, 5])


def test_the_most_frequent_categories_are_kept() -> None:
    """Of very many values the frequent ones have codes; ties are decided by the text, not by chance."""
    rare = [f"r{n:04d}" for n in range(MAXIMUM_CATEGORIES)]
    frame = pl.DataFrame({"s": ["often", "often", *reversed(rare), None]})

    categories = FeatureSchema.fit(frame).columns[0].categories

    assert list(categories) == sorted(["often", *rare[: MAXIMUM_CATEGORIES - 1]])


def test_values_become_numbers() -> None:
    """A known category is its place, another one and a missing one have codes of their own."""
    frame = pl.DataFrame(
        [("b", 1.5, True), ("x", None, None), (None, -2.0, False)], schema=KINDS, orient="row"
    )

    matrix = SCHEMA.encode(frame)

    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(
        matrix, [[1, 1.5, 1], [UNSEEN, np.nan, np.nan], [MISSING, -2, 0]], strict=False
    )


def test_infinity_becomes_the_largest_number() -> None:
    """A division by zero, and what float32 cannot hold, are numbers that every estimator takes."""
    values = [math.inf, -math.inf, 1e300, -1e300, math.nan]
    frame = pl.DataFrame({"shop": ["a"] * 5, "amount": values, "open": [True] * 5})

    column = SCHEMA.encode(frame)[:, 1]

    np.testing.assert_array_equal(column, np.float32([LARGEST, -LARGEST, LARGEST, -LARGEST, np.nan]))
    np.testing.assert_array_equal(SCHEMA.encode(pl.concat([frame] * FEW_ROWS))[:5, 1], column)
    assert np.isfinite(column[:2].sum())
    assert np.isfinite(np.median(column[[0, 2]]))


VALUES = st.tuples(
    st.sampled_from(["a", "b", "c", ""]) | st.none(), st.floats() | st.none(), st.booleans() | st.none()
)


@given(st.lists(VALUES, max_size=20), st.permutations(list(KINDS)))
def test_few_rows_and_many_are_encoded_alike(rows: list[tuple[Any, ...]], order: list[str]) -> None:
    """The short way for one request gives the matrix of the way for whole tables, in any column order."""
    frame = pl.DataFrame(rows, schema=KINDS, orient="row")
    many = pl.concat(
        [frame, *[pl.DataFrame([("a", 0.0, True)], schema=KINDS, orient="row")] * (FEW_ROWS + 1)]
    )

    few = SCHEMA.encode(frame.select(order))

    assert few.shape == (len(rows), 3)
    np.testing.assert_array_equal(few, SCHEMA.encode(many)[: len(rows)])


def test_a_column_of_which_nothing_was_ever_there() -> None:
    """A feature that was always missing in training is encoded as missing, and later values as unseen."""
    for kind in (pl.String, pl.Null):
        schema = FeatureSchema.fit(pl.DataFrame({"s": [None, None]}, schema={"s": kind}))
        later = FeatureSchema.encode(schema, pl.DataFrame({"s": [None] * 100}, schema={"s": kind}))
        assert set(later[:, 0].astype(str)) == {"-2.0" if kind == pl.String else "nan"}
    texts = FeatureSchema.fit(pl.DataFrame({"s": [None]}, schema={"s": pl.String}))
    assert texts.encode(pl.DataFrame({"s": ["x"] * 100}))[:, 0].tolist() == [UNSEEN] * 100


def test_a_type_that_is_no_feature_is_refused() -> None:
    """A time is not a number: what of it matters is the model author's to say."""
    with pytest.raises(FeatureError, match="'t' must be a number, a boolean or a text. Got Date instead."):
        FeatureSchema.fit(pl.DataFrame({"t": [None]}, schema={"t": pl.Date}))


def test_a_missing_feature_is_named() -> None:
    """Encoding asks for every column of the schema."""
    with pytest.raises(FeatureError, match="The features amount, open are missing"):
        SCHEMA.encode(pl.DataFrame({"shop": ["a"]}))


def test_a_schema_survives_json() -> None:
    """What is written into a bundle is what is read from it."""
    assert FeatureSchema.model_validate_json(SCHEMA.model_dump_json()) == SCHEMA
