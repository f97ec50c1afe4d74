"""Which column plays which part: label, time, key, features, and what is left out, each with the reason.

A column is taken without a word of the user's only where there is one that it can be; else the
error lists those that it may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from seatrial.errors import SourceError, UsageError
from seatrial.init_model.columns import FoundColumn

LABEL_NAMES = re.compile(
    r"(?i)^(y|label|target|class|outcome|result|response|is_?\w+|has_?\w+|churn(ed)?|cancel(l?ed)?|default(ed)?|"
    r"fraud(ulent)?|late|left|survived|converted|bought|failed|failure|spam|exited|attrition)$"
)
YES = re.compile(
    r"(?i)^(1|yes|y|true|t|positive|pos|churn(ed)?|cancel(l?ed)?|left|exited|default(ed)?|late|bad|fraud(ulent)?|"
    r"fail(ed|ure)?|spam|ill|sick|malignant|converted|bought|survived|won|win)$"
)
MOST_CATEGORIES = 100
"""A text with more different values is no feature: each value would be seen too seldom."""
FEWEST_ROWS_A_VALUE = 5
FEW_VALUES = 50
MOST_SLICES = 3
MOST_SLICE_VALUES = 20
ROW_NUMBER = "row_number"
MOST_MISSING_TIMES = 0.05


@dataclass
class Roles:
    """The part that each column plays.

    Attributes:
        label: The label's column.
        positive: The label's text that means yes.
        negative: The label's text that means no.
        time: The column of the row's time; None where there is none.
        key: Columns that name a row.
        row_number: Name of the row number that ``prepare.py`` adds as the key; None if it adds none.
        features: Columns that become features.
        inputs_only: Columns that a request brings and that are no features, each with the reason.
        table_only: Columns of the table that a request does not bring, each with the reason.
        left_out: Columns that the contract does not have, each with the reason.
    """

    label: FoundColumn
    positive: str
    negative: str
    time: FoundColumn | None = None
    key: list[str] = field(default_factory=list)
    row_number: str | None = None
    features: list[FoundColumn] = field(default_factory=list)
    inputs_only: dict[str, str] = field(default_factory=dict)
    table_only: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def slices(self) -> list[str]:
        """Features with so few values that quality can be shown for each."""
        few = [
            c for c in self.features if c.type in ("string", "boolean") and c.distinct <= MOST_SLICE_VALUES
        ]
        return [column.name for column in few[:MOST_SLICES]]


def choose(
    columns: list[FoundColumn], *, label: str | None, time: str | None, no_time: bool = False
) -> Roles:
    """Decide which column plays which part.

    Args:
        columns: The file's columns.
        label: The label's column, if the user said so.
        time: The time's column, if the user said so.
        no_time: Whether the user said that no column is the row's time.

    Raises:
        UsageError: if a column that was named is not there, or it is not clear which is meant.
        SourceError: if no column can be the label, or none is left to learn from.
    """
    usable = [column for column in columns if _unusable(column) is None]
    target = _label(columns, usable, label)
    positive, negative = _classes(target)
    roles = Roles(target, positive, negative)
    roles.left_out = {c.name: reason for c in columns if (reason := _unusable(c))}
    roles.time = None if no_time else _time(columns, usable, target, time)
    _choose_key(roles, usable)
    for column in usable:
        if column.name not in (target.name, roles.time.name if roles.time else None):
            _place(roles, column)
    if not roles.features:
        reasons = {**roles.inputs_only, **roles.table_only, **roles.left_out}
        shown = "; ".join(f"{name!r} {reason}" for name, reason in list(reasons.items())[:8])
        raise SourceError(f"No column is left to learn {target.name!r} from: {shown or 'there is no other'}.")
    return roles


def _unusable(column: FoundColumn) -> str | None:
    name = column.name
    if not name.strip():
        return "has no name"
    if name.startswith("_") or name == "*" or (name.startswith("^") and name.endswith("$")):
        return "has a name that means something else here: rename it if you need it"
    if column.type is None:
        return "has values of a kind that a contract does not know"
    if column.missing == column.values.len():
        return "has no values"
    return None


def _named(columns: list[FoundColumn], usable: list[FoundColumn], name: str, option: str) -> FoundColumn:
    for column in columns:
        if column.name == name:
            if column in usable:
                return column
            raise SourceError(f"The column {name!r} cannot be used as {option}: it {_unusable(column)}.")
    raise UsageError(
        f"The file has no column {name!r} ({option}). It has: {', '.join(c.name for c in columns)}."
    )


def _label(columns: list[FoundColumn], usable: list[FoundColumn], name: str | None) -> FoundColumn:
    if name is not None:
        column = _named(columns, usable, name, "--label")
        if column.distinct != 2:  # noqa: PLR2004 -- a label has two classes
            values = [str(value) for value in column.texts.drop_nulls().unique(maintain_order=True)[:5]]
            more = ", ..." if column.distinct > len(values) else ""
            raise SourceError(
                f"The label {name!r} must have two different values. Got {column.distinct:,}: "
                f"{', '.join(values)}{more}.",
                remedy="Seatrial's models say yes or no. Make a column that has the two values.",
            )
        return column
    likely = [c for c in usable if c.distinct == 2 and c.type != "time"]  # noqa: PLR2004 -- as above
    known = [c for c in likely if LABEL_NAMES.match(c.name.strip())]
    if len(likely) == 1 or len(known) == 1:
        return (known if len(known) == 1 else likely)[0]
    if not likely:
        raise SourceError(
            "No column of the file has two different values, so there is nothing to learn.",
            remedy="The label must be a column such as yes and no, or 1 and 0.",
        )
    raise UsageError(
        f"It is not clear which column is the label. These have two values: {_listed(known or likely)}.",
        remedy="Name it with --label COLUMN.",
    )


def _listed(columns: list[FoundColumn]) -> str:
    return ", ".join(repr(column.name) for column in columns)


def _classes(label: FoundColumn) -> tuple[str, str]:
    """Return the label's text that means yes, and the one that means no."""
    if label.type in ("integer", "number"):
        low, high = label.bounds()
        return str(high), str(low)
    if label.type == "boolean":
        texts = label.texts.drop_nulls()
        truth = label.values.drop_nulls()
        return str(texts.filter(truth)[0]), str(texts.filter(~truth)[0])
    first, second = label.two_values
    known = [text for text in (first, second) if YES.match(text)]
    if len(known) == 1:
        return known[0], second if known[0] == first else first
    stripped = label.texts.drop_nulls().str.strip_chars()
    return (first, second) if (stripped == first).sum() <= (stripped == second).sum() else (second, first)


def _time(
    columns: list[FoundColumn], usable: list[FoundColumn], label: FoundColumn, name: str | None
) -> FoundColumn | None:
    if name is not None:
        column = _named(columns, usable, name, "--time")
        if column.type != "time":
            example = column.texts.drop_nulls()[0]
            raise SourceError(
                f"The column {name!r} (--time) must hold times. Got {column.type} such as {example!r} instead.",
                remedy="Write times as 2013-07-15, 2013-07-15 10:00 or 2013-07-15T10:00:00Z.",
            )
        if column.missing > MOST_MISSING_TIMES * column.values.len():
            raise SourceError(
                f"The column {name!r} (--time) lacks {column.missing:,} of {column.values.len():,} values. At most "
                f"{MOST_MISSING_TIMES:.0%} may be missing.",
                remedy="A row's time must be known for every row. Name another column.",
            )
        return column
    times = [c for c in usable if c.type == "time" and c is not label]
    whole = [column for column in times if column.missing == 0]
    if len(whole) == 1:
        return whole[0]
    if not times:
        return None
    raise UsageError(
        f"It is not clear which column says when a row happened. These hold times: {_listed(whole or times)}.",
        remedy="Name it with --time COLUMN, or say --no-time.",
    )


def _choose_key(roles: Roles, usable: list[FoundColumn]) -> None:
    """A unique column whose name or kind says that it names the row; with a time also an id and the time."""
    others = [c for c in usable if c not in (roles.label, roles.time) and c.type in ("string", "integer")]
    ids = [c for c in others if c.looks_like_id and c.missing == 0]
    unique = [c for c in ids if c.is_unique] or [c for c in others if c.type == "string" and c.is_unique]
    if unique:
        roles.key = [unique[0].name]
        return
    if roles.time and roles.time.missing == 0:
        for column in (None, *ids):
            named = [c for c in (column, roles.time) if c is not None]
            if not pl.DataFrame([c.values.alias(c.name) for c in named]).is_duplicated().any():
                roles.key = [c.name for c in named]
                return
    taken = {column.name for column in usable} | set(roles.left_out)
    roles.row_number = ROW_NUMBER
    while roles.row_number in taken:
        roles.row_number += "_"
    roles.key = [roles.row_number]


def _place(roles: Roles, column: FoundColumn) -> None:
    name = column.name
    if name in roles.key:
        roles.inputs_only[name] = "names the row"
    elif column.type == "time":
        roles.table_only[name] = "is a time: is it known when a prediction is made?"
    elif column.distinct == 1 and column.missing == 0:
        roles.table_only[name] = f"is always the same ({_shown(column.values[0])})"
    elif _tells_label(column, roles.label):
        roles.table_only[name] = "gives the label away: is it known when a prediction is made?"
    elif column.type == "string" and _too_many(column, MOST_CATEGORIES):
        roles.inputs_only[name] = f"has {column.distinct:,} different texts, too many to learn from"
    elif column.type == "integer" and column.looks_like_id and _too_many(column, FEW_VALUES):
        roles.inputs_only[name] = f"has {column.distinct:,} different numbers that name things"
    else:
        roles.features.append(column)


def _shown(value: Any) -> str:
    return repr(str(value)[:20])


def _too_many(column: FoundColumn, most: int) -> bool:
    there = column.values.len() - column.missing
    return column.distinct > most or there < FEWEST_ROWS_A_VALUE * column.distinct


def _tells_label(column: FoundColumn, label: FoundColumn) -> bool:
    """Whether each of a column's few values comes with one class only."""
    if column.distinct > FEW_VALUES or _too_many(column, FEW_VALUES):
        return False
    pairs = pl.DataFrame({"value": column.values, "label": label.values}).drop_nulls("label")
    classes = pairs.group_by("value").agg(pl.col("label").n_unique())["label"]
    return bool((classes == 1).all())
