"""What a model's ``features.py`` is written in.

A prediction is made at one instant, ``known_at``, and may use only what was known by then. A
definition therefore never says how to join; it says which table, by which key, at which time, and
the joins that follow from it are point-in-time correct by construction:

- :class:`Lookup` takes columns of a table that does not change with time, by key.
- :class:`Latest` takes the newest row at or before ``known_at``.
- :class:`History` aggregates the rows of the last days, as far as they were known by then.
- ``expressions`` are polars expressions over the request's columns and all of the above.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import polars as pl

from seatrial.contract.schema import parse_duration
from seatrial.errors import FeatureError


@dataclass(frozen=True)
class Lookup:
    """Columns of a table that does not change with time.

    Attributes:
        table: Name of the table in the contract.
        by: Columns, of the same name on both sides, that name its row.
        columns: The features made, each with the table's column it comes from.
    """

    table: str
    by: tuple[str, ...]
    columns: dict[str, str]

    def __post_init__(self) -> None:
        _refuse_wrong_key(self.by)

    @property
    def names(self) -> list[str]:
        """Names of the features made."""
        return list(self.columns)

    @property
    def needs(self) -> set[str]:
        """Columns of the table that are read."""
        return {*self.by, *self.columns.values()}


@dataclass(frozen=True)
class Latest:
    """The newest row of a table at or before the prediction.

    Attributes:
        table: Name of the table in the contract.
        by: Columns, of the same name on both sides, that a row must share with the request.
        time: The table's column that says when a row became known.
        columns: The features made, each with the table's column it comes from.
        within: Oldest age of a row that is still used (inclusive), such as ``6h``; None: any.
    """

    table: str
    by: tuple[str, ...]
    time: str
    columns: dict[str, str]
    within: str | None = None

    def __post_init__(self) -> None:
        _refuse_wrong_key(self.by)
        if self.within is not None:
            _refuse_wrong_duration(self.within, f"within of the latest row of {self.table!r}")

    @property
    def names(self) -> list[str]:
        """Names of the features made."""
        return list(self.columns)

    @property
    def needs(self) -> set[str]:
        """Columns of the table that are read."""
        return {*self.by, self.time, *self.columns.values()}

    @property
    def tolerance(self) -> timedelta | None:
        """``within`` as a duration."""
        return parse_duration(self.within) if self.within else None


@dataclass(frozen=True)
class History:
    """Mean and count of a value over windows that end at the prediction.

    A row counts for a window of length *w* if it became known in ``(known_at - w, known_at]`` and
    its value is not missing. For each window two features are made, ``NAME_share_W`` (the mean;
    missing where no row counts) and ``NAME_count_W``.

    Attributes:
        name: Prefix of the features made.
        table: Name of the table in the contract.
        by: Columns, of the same name on both sides, that a row must share with the request.
        time: The table's column that says when a row's value became known.
        value: The column aggregated: boolean or numeric.
        windows: Lengths of the windows, such as ``("1d", "7d", "28d")``.
    """

    name: str
    table: str
    by: tuple[str, ...]
    time: str
    value: str
    windows: tuple[str, ...]

    def __post_init__(self) -> None:
        _refuse_wrong_key(self.by)
        if not self.windows:
            raise FeatureError(f"The history {self.name!r} needs at least one window, such as '7d'.")
        for window in self.windows:
            _refuse_wrong_duration(window, f"windows of the history {self.name!r}")

    @property
    def names(self) -> list[str]:
        """Names of the features made: share and count, window by window."""
        return [f"{self.name}_{kind}_{window}" for window in self.windows for kind in ("share", "count")]

    @property
    def needs(self) -> set[str]:
        """Columns of the table that are read."""
        return {*self.by, self.time, self.value}

    @property
    def lengths(self) -> list[timedelta]:
        """``windows`` as durations."""
        return [parse_duration(window) for window in self.windows]


def _refuse_wrong_key(by: object) -> None:
    if not isinstance(by, tuple) or not by or not all(isinstance(column, str) for column in by):
        raise FeatureError(f"by must be a tuple of columns, such as ('shop',). Got {by!r} instead.")


def _refuse_wrong_duration(text: str, what: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        raise FeatureError(f"{what} {error}. Got {text!r} instead.") from None


Part = Lookup | Latest | History


@dataclass(frozen=True)
class Features:
    """All features of a model.

    Attributes:
        known_at: Expression over the request's columns: the instant of the prediction, in UTC.
            None where the data have no time, and then only lookups and expressions are allowed.
        parts: Lookups, latest rows and histories.
        expressions: Features as polars expressions over the request's columns and those that the
            parts make, by name.
    """

    known_at: pl.Expr | None = None
    parts: tuple[Part, ...] = ()
    expressions: dict[str, pl.Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._refuse_wrong_types()
        names = self.all_names
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise FeatureError(f"Two features have the same name: {', '.join(twice)}.")
        timed = [part for part in self.parts if not isinstance(part, Lookup)]
        if self.known_at is None and timed:
            raise FeatureError(
                f"The features from {timed[0].table!r} depend on time, so known_at must be given.",
                remedy="Set known_at to the instant of the prediction, for example pl.col('ordered_at').",
            )

    def _refuse_wrong_types(self) -> None:
        parts: tuple[object, ...] = self.parts
        for part in parts:
            if not isinstance(part, Part):
                raise FeatureError(f"parts must be Lookup, Latest or History. Got {type(part).__name__}.")
        expressions: dict[str, object] = {f"The expression {n!r}": e for n, e in self.expressions.items()}
        if self.known_at is not None:
            expressions["known_at"] = self.known_at
        for what, made in expressions.items():
            if not isinstance(made, pl.Expr):
                kind = type(made).__name__
                raise FeatureError(f"{what} must be a polars expression. Got {kind}.", remedy="See pl.col.")

    @property
    def all_names(self) -> list[str]:
        """Names of every feature, in the order in which they are made."""
        return [*(name for part in self.parts for name in part.names), *self.expressions]

    @property
    def tables(self) -> dict[str, set[str]]:
        """The tables that are read, each with the columns that are read of it."""
        needed: dict[str, set[str]] = {}
        for part in self.parts:
            needed.setdefault(part.table, set()).update(part.needs)
        return needed
