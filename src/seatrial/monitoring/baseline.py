"""What a bundle keeps of its training rows, so that live rows can be compared without them.

A number keeps up to 101 knots (its 0th to 100th percentile, each once) and, exactly, how many
training rows lie below each knot and how many at or below it. A tie, such as the nine rows in
ten in which it did not rain, is then the step between the two counts and costs no accuracy: the
distribution function is known exactly at every knot, and to within a hundredth between two. A
category keeps the count of each of its values. A few kilobytes a feature, whatever the rows.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from seatrial.errors import FeatureError
from seatrial.features.encoding import FeatureSchema

PERCENTILES = 101
PREDICTION = "prediction"
_LARGEST = np.finfo(np.float32).max


class NumberBaseline(BaseModel):
    """The distribution of a number in the training rows.

    Attributes:
        name: The feature's name.
        rows: Rows that have the number.
        missing: Rows that lack it.
        values: Its distinct percentiles, ascending: values of the training rows, the smallest and
            the largest among them. Empty where every row lacks it.
        below: For each of ``values``, how many rows are below it.
        up_to: For each of ``values``, how many rows are at or below it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number"] = "number"
    name: str
    rows: int
    missing: int
    values: tuple[float, ...]
    below: tuple[int, ...]
    up_to: tuple[int, ...]

    @property
    def missing_share(self) -> float:
        """Share of rows that lack the number."""
        return self.missing / max(self.rows + self.missing, 1)


class CategoryBaseline(BaseModel):
    """How often each category was in the training rows.

    Attributes:
        name: The feature's name.
        categories: The known categories, in the order of their codes.
        counts: Rows of each of them.
        unseen: Rows whose category is not among the known ones.
        missing: Rows that lack the category.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["category"] = "category"
    name: str
    categories: tuple[str, ...]
    counts: tuple[int, ...]
    unseen: int
    missing: int

    @property
    def rows(self) -> int:
        """All rows, also those that lack the category."""
        return sum(self.counts) + self.unseen + self.missing

    @property
    def missing_share(self) -> float:
        """Share of rows that lack the category."""
        return self.missing / max(self.rows, 1)

    @property
    def unseen_share(self) -> float:
        """Share of rows whose category is not among the known ones."""
        return self.unseen / max(self.rows, 1)


ColumnBaseline = Annotated[NumberBaseline | CategoryBaseline, Field(discriminator="kind")]


class Baseline(BaseModel):
    """The training rows as a bundle remembers them.

    Attributes:
        rows: Training rows.
        label_rate: Share of them whose label is 1.
        features: One entry a feature, in the order of the matrix's columns.
        prediction: The probabilities that the model gives the training rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    rows: int
    label_rate: float
    features: tuple[ColumnBaseline, ...]
    prediction: NumberBaseline


def fit_baseline(
    matrix: NDArray[np.float32],
    schema: FeatureSchema,
    probabilities: NDArray[np.float64],
    labels: NDArray[np.floating] | NDArray[np.integer] | NDArray[np.bool_],
) -> Baseline:
    """Summarize the training rows.

    Args:
        matrix: The encoded rows, of shape (n_rows, n_features).
        schema: What the matrix's columns are.
        probabilities: What the model says of the rows, of shape (n_rows,).
        labels: 0 or 1, of shape (n_rows,).

    Returns:
        The baseline, for the bundle's ``baseline.json``.

    Raises:
        FeatureError: if there is no row, or the shapes do not fit together.
    """
    n_rows, n_features = matrix.shape
    if (
        n_rows == 0
        or n_features != len(schema.columns)
        or len(probabilities) != n_rows
        or len(labels) != n_rows
    ):
        raise FeatureError(
            f"A baseline needs at least one row, each of {len(schema.columns)} features with a probability "
            f"and a label. Got a matrix of shape {matrix.shape}, {len(probabilities)} probabilities and "
            f"{len(labels)} labels."
        )
    features: list[NumberBaseline | CategoryBaseline] = []
    for place, column in enumerate(schema.columns):
        if column.kind == "number":
            features.append(_number(column.name, matrix[:, place]))
        else:
            features.append(_category(column.name, column.categories, matrix[:, place]))
    return Baseline(
        rows=n_rows,
        label_rate=float(np.mean(labels)),
        features=tuple(features),
        prediction=_number(PREDICTION, probabilities.astype(np.float32)),
    )


def sorted_values(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a number's values in their order, without the missing ones; infinite ones are made finite.

    Args:
        column: The values, of shape (n_rows,); NaN is missing.

    Returns:
        At most n_rows values, ascending.
    """
    ordered = np.sort(column)  # NaN goes last
    return np.clip(ordered[: np.searchsorted(ordered, np.nan)], -_LARGEST, _LARGEST)


def category_counts(codes: NDArray[np.float32], n_categories: int) -> NDArray[np.int64]:
    """Count the codes of a category.

    Args:
        codes: Codes of shape (n_rows,): -2 missing, -1 unseen, else the category's place.
        n_categories: How many categories are known.

    Returns:
        Counts of shape (n_categories + 2,): missing, unseen, then each category.

    Raises:
        FeatureError: if a code is none of these.
    """
    places = codes.astype(np.int64) + 2
    if len(places) and (places.min() < 0 or places.max() >= n_categories + 2):
        raise FeatureError(
            f"A category's code must be from -2 to {n_categories - 1}. "
            f"Got codes from {codes.min()} to {codes.max()} instead."
        )
    return np.bincount(places, minlength=n_categories + 2)


def _number(name: str, column: NDArray[np.float32]) -> NumberBaseline:
    ordered = sorted_values(column)
    knots = np.unique(ordered[_percentile_places(len(ordered))])
    return NumberBaseline(
        name=name,
        rows=len(ordered),
        missing=len(column) - len(ordered),
        # The shortest text that reads back as the same float32, so that the file stays small.
        values=tuple(float(str(value)) for value in knots),
        below=tuple(np.searchsorted(ordered, knots, side="left").tolist()),
        up_to=tuple(np.searchsorted(ordered, knots, side="right").tolist()),
    )


def _percentile_places(n: int) -> NDArray[np.int64]:
    """Places of the percentiles among ``n`` sorted values: the first up to which k% of them lie."""
    if n == 0:
        return np.empty(0, dtype=np.int64)
    return np.maximum(-(-np.arange(PERCENTILES) * n // (PERCENTILES - 1)) - 1, 0)


def _category(name: str, categories: tuple[str, ...], codes: NDArray[np.float32]) -> CategoryBaseline:
    missing, unseen, *counts = category_counts(codes, len(categories)).tolist()
    return CategoryBaseline(
        name=name, categories=categories, counts=tuple(counts), unseen=unseen, missing=missing
    )
