"""Polars expressions as plain functions of one row, for requests that bring one row.

A call of polars costs a few hundred microseconds whatever the number of rows: nothing for a table,
and more than everything else for one request. The expressions that features are usually written in
(arithmetic, comparisons, parts of a time in its zone) are therefore translated, node by node, from
polars' own serialized form. The types of all nodes and the offsets of time zones are asked of polars,
so nothing of it is written down a second time.

A translation is the same to the last bit or it is none: an expression with a node that is not known
here is not translated, and a value for which the two could differ (an integer that would overflow, a
NaN in a comparison, an instant in the hour of a clock change) raises :class:`Unsure`. Polars computes
both, as it did in training.
"""

from __future__ import annotations

import io
import json
import math
import operator
import warnings
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Row = Sequence[Any]
RowFunction = Callable[[Row], Any]

TIME = pl.Datetime("us", "UTC")
_DURATION = pl.Duration("us")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 -- wall clocks of any zone are counted from it
_MICROSECONDS = {"TotalDays": 86_400_000_000, "TotalHours": 3_600_000_000, "TotalMinutes": 60_000_000}
_MICROSECONDS |= {"TotalSeconds": 1_000_000, "TotalMilliseconds": 1_000, "TotalMicroseconds": 1}
_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_YEARS = range(1900, 2200)
_YEARS_AT_ONCE = 10
_KNOWN_INSTANTS = 10_000
_INTEGERS: dict[Any, int] = {pl.Int8: 2**7, pl.Int16: 2**15, pl.Int32: 2**31, pl.Int64: 2**63}
_PLAIN = (pl.String, pl.Boolean, pl.Float64, *_INTEGERS)
_ARITHMETIC = {"Plus": operator.add, "Minus": operator.sub, "Multiply": operator.mul}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Gt": operator.gt,
    "GtEq": operator.ge,
}


class Unsure(Exception):  # noqa: N818 -- no error: the caller asks polars instead
    """A value for which plain Python might differ from polars."""


class _Unknown(Exception):  # noqa: N818 -- no error: the expression stays with polars
    """A node that is not translated."""


@dataclass(frozen=True)
class _Node:
    """A translated node: its function and the type that polars gives it.

    Attributes:
        value: The function. An instant or a duration is whole microseconds.
        kind: The type.
        literal: Whether it is a number without a type of its own, which takes that of the other side.
    """

    value: RowFunction
    kind: Any
    literal: bool = False


def row_function(
    expression: pl.Expr, columns: Mapping[str, pl.DataType | type[pl.DataType]]
) -> RowFunction | None:
    """Translate an expression.

    Args:
        expression: The expression.
        columns: The columns that a row has, in their order, each with its polars type.

    Returns:
        A function of a row, in which instants are whole microseconds since 1970, that returns what
        the expression has for it or raises Unsure; None if the expression is not translated.
    """
    try:
        tree = json.loads(_serialized(expression))
        return _Translator(pl.Schema(columns)).node(tree).value
    except (_Unknown, pl.exceptions.PolarsError, ValueError):
        return None


def _serialized(expression: pl.Expr) -> str:
    with warnings.catch_warnings():
        # The form may change with polars: then nodes are not known here, and polars computes them.
        warnings.simplefilter("ignore")
        return expression.meta.serialize(format="json")


class _Translator:
    def __init__(self, columns: pl.Schema) -> None:
        self._columns = columns
        self._names = columns.names()
        self._frame = columns.to_frame(eager=False)

    def node(self, tree: Any) -> _Node:
        if not isinstance(tree, dict) or len(tree) != 1:
            raise _Unknown
        ((kind, content),) = tree.items()
        if kind == "Alias":
            return self.node(content[0])
        if kind == "Column":
            return self._column(content)
        if kind == "Literal":
            return _literal(content)
        translated = {
            "BinaryExpr": self._binary,
            "Ternary": self._ternary,
            "Cast": self._cast,
            "Function": self._function,
        }
        if kind not in translated:
            raise _Unknown
        return _Node(translated[kind](content, result := self._kind(tree)), result)

    def _kind(self, tree: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expression = pl.Expr.deserialize(io.BytesIO(json.dumps(tree).encode()), format="json")
        (kind,) = self._frame.select(expression.alias("_")).collect_schema().dtypes()
        return kind

    def _column(self, name: str) -> _Node:
        kind = self._columns.get(name)
        if kind != TIME and kind not in _PLAIN:
            raise _Unknown
        return _Node(operator.itemgetter(self._names.index(name)), kind)

    def _binary(self, content: Any, kind: Any) -> RowFunction:
        left, right, name = self.node(content["left"]), self.node(content["right"]), content["op"]
        if name in ("And", "Or"):
            return _logic(left, right, decisive=name == "Or")
        if name in _COMPARISONS:
            return _comparison(_COMPARISONS[name], left, right)
        if _is_temporal(left.kind) or _is_temporal(right.kind):
            return _time_arithmetic(name, left, right)
        if kind == pl.Float64 and name in (*_ARITHMETIC, "TrueDivide"):
            return _both(_ARITHMETIC.get(name, _divide), _as_float(left), _as_float(right))
        if kind in _INTEGERS and name in _ARITHMETIC:
            _same_kind(left, right, kind)
            return _within(_INTEGERS[kind], _both(_ARITHMETIC[name], left.value, right.value))
        raise _Unknown

    def _ternary(self, content: Any, kind: Any) -> RowFunction:
        condition = self.node(content["predicate"])
        yes, no = self.node(content["truthy"]), self.node(content["falsy"])
        if condition.kind != pl.Boolean:
            raise _Unknown
        when, then, otherwise = condition.value, _as_kind(yes, kind), _as_kind(no, kind)
        return lambda row: then(row) if when(row) else otherwise(row)

    def _cast(self, content: Any, kind: Any) -> RowFunction:
        inner = self.node(content["expr"])
        value = inner.value
        if kind == pl.Float64:
            return _as_float(inner, booleans=True)
        if kind == pl.Int64 and (inner.kind in _INTEGERS or inner.kind == pl.Boolean):
            return lambda row: None if (found := value(row)) is None else int(found)
        raise _Unknown

    def _function(self, content: Any, kind: Any) -> RowFunction:
        inputs, name = [self.node(inner) for inner in content["input"]], content["function"]
        first = inputs[0].value
        if isinstance(name, dict) and "TemporalExpr" in name:
            return _temporal(inputs[0], name["TemporalExpr"])
        if name == {"Boolean": "IsNull"}:
            return lambda row: first(row) is None
        if name == {"Boolean": "IsNotNull"}:
            return lambda row: first(row) is not None
        if name == {"Boolean": "Not"} and inputs[0].kind == pl.Boolean:
            return lambda row: None if (found := first(row)) is None else not found
        if name == "FillNull":
            value, other = (_as_kind(node, kind) for node in inputs)
            return lambda row: other(row) if (found := value(row)) is None else found
        raise _Unknown


def _is_temporal(kind: Any) -> bool:
    return kind == _DURATION or isinstance(kind, pl.Datetime)


def _literal(content: Any) -> _Node:
    match content:
        case {"Dyn": {"Int": int(value)}}:
            return _Node(lambda _: value, pl.Int32, literal=True)
        case {"Dyn": {"Float": float(value)}}:
            return _Node(lambda _: value, pl.Float64)
        case {"Scalar": {"Null": "Null"}}:
            return _Node(lambda _: None, pl.Null, literal=True)
        case {"Scalar": {"String": str(value)}}:
            return _Node(lambda _: value, pl.String)
        case {"Scalar": {"Boolean": bool(value)}}:
            return _Node(lambda _: value, pl.Boolean)
        case {"Scalar": {"Duration": [int(value), "Microseconds"]}}:
            return _Node(lambda _: value, _DURATION)
    raise _Unknown


def _both(function: Callable[[Any, Any], Any], left: RowFunction, right: RowFunction) -> RowFunction:
    def value(row: Row) -> Any:
        a, b = left(row), right(row)
        return None if a is None or b is None else function(a, b)

    return value


def _within(limit: int, inner: RowFunction) -> RowFunction:
    def value(row: Row) -> Any:
        found = inner(row)
        if found is not None and not -limit <= found < limit:
            raise Unsure
        return found

    return value


def _same_kind(left: _Node, right: _Node, kind: Any) -> None:
    """Integers of two widths meet in the wider one; a number without a type must fit into it."""
    for node in (left, right):
        if node.literal and node.kind == pl.Int32:
            if not -_INTEGERS[kind] <= node.value(()) < _INTEGERS[kind]:
                raise _Unknown
        elif node.kind not in _INTEGERS:
            raise _Unknown


def _as_float(node: _Node, *, booleans: bool = False) -> RowFunction:
    if node.kind == pl.Float64:
        return node.value
    if node.kind not in _INTEGERS and not (booleans and node.kind == pl.Boolean):
        raise _Unknown
    inner = node.value
    return lambda row: None if (found := inner(row)) is None else float(found)


def _as_kind(node: _Node, kind: Any) -> RowFunction:
    """A branch's value as the type of the whole."""
    if node.kind in (kind, pl.Null):
        return node.value
    if kind == pl.Float64:
        return _as_float(node)
    if kind in _INTEGERS:
        _same_kind(node, node, kind)
        return node.value
    raise _Unknown


def _divide(a: float, b: float) -> float:
    if b != 0:
        return a / b
    if a == 0 or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _logic(left: _Node, right: _Node, *, decisive: bool) -> RowFunction:
    """``or`` (decided by True) and ``and`` (by False), in which a missing value is one that may be either."""
    if left.kind != pl.Boolean or right.kind != pl.Boolean:
        raise _Unknown
    first, second = left.value, right.value

    def value(row: Row) -> Any:
        a, b = first(row), second(row)
        if a is decisive or b is decisive:
            return decisive
        return None if a is None or b is None else not decisive

    return value


def _comparison(function: Callable[[Any, Any], bool], left: _Node, right: _Node) -> RowFunction:
    if left.kind == right.kind and left.kind in (pl.String, pl.Boolean, TIME, _DURATION):
        return _both(function, left.value, right.value)
    if left.kind in _INTEGERS and right.kind in _INTEGERS:
        return _both(function, left.value, right.value)
    first, second = _as_float(left), _as_float(right)

    def value(row: Row) -> bool | None:
        a, b = first(row), second(row)
        if a is None or b is None:
            return None
        if math.isnan(a) or math.isnan(b):
            raise Unsure
        return function(a, b)

    return value


def _time_arithmetic(name: str, left: _Node, right: _Node) -> RowFunction:
    """Sums and differences of instants and durations."""
    kinds = (isinstance(left.kind, pl.Datetime), isinstance(right.kind, pl.Datetime))
    durations = (left.kind == _DURATION, right.kind == _DURATION)
    if any(kind not in (TIME, _DURATION) for kind in (left.kind, right.kind)):
        raise _Unknown
    if name == "Minus" and (all(kinds) or durations[1]):
        return _within(2**63, _both(operator.sub, left.value, right.value))
    if name == "Plus" and any(durations):
        return _within(2**63, _both(operator.add, left.value, right.value))
    raise _Unknown


def _temporal(node: _Node, part: Any) -> RowFunction:
    if node.kind == _DURATION:
        return _total(node.value, part)
    if not isinstance(node.kind, pl.Datetime):
        raise _Unknown
    if part == {"TimeStamp": "Microseconds"} or "ConvertTimeZone" in part:
        return node.value
    return _wall_clock(node.value, node.kind.time_zone, part)


def _total(inner: RowFunction, part: Any) -> RowFunction:
    units = [unit for name, unit in _MICROSECONDS.items() if part == {name: {"fractional": False}}]
    if not units:
        raise _Unknown
    (unit,) = units

    def value(row: Row) -> Any:
        found = inner(row)
        if found is None:
            return None
        return found // unit if found >= 0 else -(-found // unit)

    return value


_PARTS: dict[str, Callable[[int], int]] = {
    "Hour": lambda local: local // _HOUR % 24,
    "Minute": lambda local: local // 60_000_000 % 60,
    "WeekDay": lambda local: (local // _DAY + 3) % 7 + 1,
    "Day": lambda local: (_EPOCH + timedelta(microseconds=local)).day,
    "Month": lambda local: (_EPOCH + timedelta(microseconds=local)).month,
    "Year": lambda local: (_EPOCH + timedelta(microseconds=local)).year,
    "OrdinalDay": lambda local: (_EPOCH + timedelta(microseconds=local)).timetuple().tm_yday,
}


def _wall_clock(inner: RowFunction, zone: str | None, part: Any) -> RowFunction:
    if not isinstance(part, str) or part not in _PARTS:
        raise _Unknown
    read, offsets = _PARTS[part], _offsets(zone or "UTC")
    # Requests are about instants that others ask about, too: departures at the same full minutes.
    known: dict[int | None, int | None] = {None: None}

    def value(row: Row) -> int | None:
        instant = inner(row)
        try:
            return known[instant]
        except KeyError:
            if len(known) > _KNOWN_INSTANTS:
                known.clear()
                known[None] = None
            found = known[instant] = read(instant + offsets.at(instant))
            return found

    return value


@dataclass(frozen=True)
class _Offsets:
    """How far a zone's clocks are from UTC.

    Attributes:
        starts: Hours since 1970 from which an offset holds.
        values: The offsets, in microseconds; None for the hour of a change.
    """

    starts: list[int]
    values: list[int | None]

    def at(self, instant: int) -> int:
        """Return the offset at an instant; both in microseconds.

        Raises:
            Unsure: if a clock is changed in that hour, or the year is not from 1900 to 2199.
        """
        found = self.values[bisect_right(self.starts, instant // _HOUR) - 1]
        if found is None:
            raise Unsure
        return found


@cache
def _offsets(zone: str) -> _Offsets:
    """Ask polars, hour by hour, so that there is one truth about zones."""
    starts: list[int] = [-(2**63)]
    values: list[int | None] = [None]
    for year in _YEARS[::_YEARS_AT_ONCE]:
        hours = pl.datetime_range(
            datetime(year, 1, 1, tzinfo=UTC),
            datetime(year + _YEARS_AT_ONCE, 1, 1, tzinfo=UTC),
            "1h",
            eager=True,
        )
        local = hours.dt.convert_time_zone(zone).dt.replace_time_zone(None).dt.epoch("us")
        first = hours.dt.epoch("us").item(0) // _HOUR
        _extend(starts, values, first, (local - hours.dt.epoch("us")).to_numpy())
        end = first + len(hours) - 1
    return _Offsets([*starts, end], [*values, None])


def _extend(starts: list[int], values: list[int | None], first: int, offsets: NDArray[np.int64]) -> None:
    """Add hours: one at whose two ends the clocks differ is one of a change."""
    changes = np.flatnonzero(np.diff(offsets)).tolist()
    for begin in sorted({0, *changes, *(place + 1 for place in changes if place + 2 < len(offsets))}):
        starts.append(first + begin)
        values.append(None if begin in changes else int(offsets[begin]))
