"""From features to the numbers that an estimator sees: a float32 matrix.

Categories become their place in a list that is fixed in training and kept in the bundle, so the
same list encodes while serving, tells an unseen value apart, and spares the served model texts.
A category that was not among the most frequent in training is -1, a missing one -2; a missing
number is NaN. Infinity, or a number that is as good as that, becomes half of the largest float32: no estimator takes
infinity, and a median is the mean of two numbers, whose sum must not be it.
Numbers are float32 already in training, as ONNX computes with them, or a tree's threshold between
two float64 values could send a row the other way in serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from seatrial.errors import FeatureError

UNSEEN = -1.0
MISSING = -2.0
MAXIMUM_CATEGORIES = 200
FEW_ROWS = 64
LARGEST = float(np.finfo(np.float32).max) / 2
"""The largest number that an estimator is given: of any two, sum and difference are numbers too."""


class FeatureColumn(BaseModel):
    """One feature as an estimator sees it.

    Attributes:
        name: The feature's name.
        kind: ``number`` or ``category``.
        categories: The known categories in the order of their codes; empty for a number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["number", "category"]
    categories: tuple[str, ...] = ()


class FeatureSchema(BaseModel):
    """The features of a model, in the order of the matrix's columns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[FeatureColumn, ...]

    @classmethod
    def fit(cls, frame: pl.DataFrame) -> FeatureSchema:
        """Learn kinds and categories from the training rows.

        Args:
            frame: The training rows' features, of shape (n_rows, n_features).

        Raises:
            FeatureError: if a column is neither a number, a boolean nor a text.
        """
        return cls(columns=tuple(_column(frame[name]) for name in frame.columns))

    @property
    def names(self) -> list[str]:
        """Names of the features, in their order."""
        return [column.name for column in self.columns]

    @property
    def category_places(self) -> list[int]:
        """Places of the categories among the columns."""
        return [i for i, column in enumerate(self.columns) if column.kind == "category"]

    @property
    def number_places(self) -> list[int]:
        """Places of the numbers among the columns."""
        return [i for i, column in enumerate(self.columns) if column.kind == "number"]

    def encode(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        """Return the matrix of ``frame``, of shape (n_rows, n_features), C-ordered float32.

        Raises:
            FeatureError: if a feature is missing from the frame.
        """
        if frame.columns != self._names:
            if missing := [name for name in self._names if name not in frame.columns]:
                raise FeatureError(f"The features {', '.join(missing)} are missing.")
            frame = frame.select(self._names)
        if frame.height <= FEW_ROWS and self.takes_plain(frame):
            return self.encode_rows(frame.rows())
        matrix = np.empty((frame.height, len(self.columns)), dtype=np.float32)
        for place, column in enumerate(self.columns):
            values = frame[column.name]
            if column.kind == "number":
                numbers = values.cast(pl.Float64).fill_null(float("nan"))
                matrix[:, place] = numbers.clip(-LARGEST, LARGEST).to_numpy()
            else:
                matrix[:, place] = self._codes(place, values)
        return matrix

    def takes_plain(self, frame: pl.DataFrame) -> bool:
        """Return whether :meth:`encode_rows` may encode the rows of a frame of these types."""
        kinds = frame.dtypes
        return all(kinds[place] in (pl.String, pl.Null) for place in self.category_places)

    def encode_rows(self, plain: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """Return the same matrix in plain Python: for one request a column of polars costs more than its rows.

        Args:
            plain: The rows, each with a value for every feature, in their order; categories are texts.
        """
        rows = [list(row) for row in plain]
        for place, table in self._code_tables:
            for row in rows:
                value = row[place]
                row[place] = MISSING if value is None else table.get(value, UNSEEN)
        # A missing number, None, becomes NaN here.
        numbers = np.array(rows, dtype=np.float64).reshape(len(rows), len(self.columns))
        return np.clip(numbers, -LARGEST, LARGEST).astype(np.float32)

    @cached_property
    def _names(self) -> list[str]:
        return self.names

    @cached_property
    def _code_tables(self) -> list[tuple[int, dict[str, float]]]:
        return [
            (place, {text: float(code) for code, text in enumerate(self.columns[place].categories)})
            for place in self.category_places
        ]

    def _codes(self, place: int, values: pl.Series) -> NDArray[np.float32]:
        categories = self.columns[place].categories
        texts = values.cast(pl.String)
        codes = texts.replace_strict(
            list(categories), list(range(len(categories))), default=UNSEEN, return_dtype=pl.Float32
        )
        return codes.set(texts.is_null(), MISSING).to_numpy()


def _column(values: pl.Series) -> FeatureColumn:
    if values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        return FeatureColumn(name=values.name, kind="number")
    if values.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise FeatureError(
            f"The feature {values.name!r} must be a number, a boolean or a text. Got {values.dtype} instead."
        )
    counts = (
        values.drop_nulls()
        .cast(pl.String)
        .value_counts()
        .sort(["count", values.name], descending=[True, False])
    )
    frequent = sorted(counts[values.name].head(MAXIMUM_CATEGORIES).to_list())
    return FeatureColumn(name=values.name, kind="category", categories=tuple(frequent))
