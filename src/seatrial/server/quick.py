"""Read the requests that are plainly right, in a fraction of the time of a full reading.

:mod:`seatrial.server.requests` says what a request may be, and what is wrong with one that it may not.
Nearly all requests need none of that: their bodies have the usual keys and values of the usual types.
Those are read here. Whatever is unusual, right or wrong, is left to the full reading; so the two never
disagree about what is read (tests/unit/test_quick_reading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from seatrial.bundle import InputColumn
from seatrial.server.requests import INTEGERS, KINDS, MAXIMUM_ID, OUTPUTS, InferRequest

_TENSOR_KEYS = 4


@dataclass(frozen=True, slots=True)
class _Column:
    place: int
    required: bool
    datatypes: dict[str, int | None]
    read: Callable[[Any], Any]


class QuickReader:
    """Reads requests for one model.

    Args:
        inputs: The model's inputs.
        maximum_rows: Most rows that a request may have.
    """

    def __init__(self, inputs: Sequence[InputColumn], *, maximum_rows: int) -> None:
        self._width = len(inputs)
        self._maximum_rows = maximum_rows
        self._columns = {
            rule.name: _Column(
                place,
                rule.required,
                {datatype: INTEGERS.get(datatype) for datatype in KINDS[rule.type].datatypes},
                KINDS[rule.type].read,
            )
            for place, rule in enumerate(inputs)
        }
        self._optional = [column.place for column in self._columns.values() if not column.required]

    def read(self, body: bytes) -> InferRequest | None:
        """Read a request; return None if it takes a full reading to say what it is.

        Args:
            body: The request's body.
        """
        document = read_object(body)
        if document is None:
            return None
        try:
            tensors = document.pop("inputs")
            request_id = document.pop("id", None)
            if document or (request_id is not None and not _is_id(request_id)):
                return None
            rows = self._rows(tensors)
        except (KeyError, TypeError):
            return None
        return None if rows is None else InferRequest(rows, request_id, OUTPUTS)

    def _rows(self, tensors: list[dict[str, Any]]) -> list[tuple[Any, ...]] | None:
        count = len(tensors[0]["data"]) if tensors else 0
        if not 0 < count <= self._maximum_rows or type(tensors) is not list:
            return None
        found: list[list[Any] | None] = [None] * self._width
        for tensor in tensors:
            column = self._columns[tensor["name"]]
            values = _values(tensor, column, count)
            if values is None or found[column.place] is not None:
                return None
            found[column.place] = values
        for place in self._optional:
            if found[place] is None:
                found[place] = [None] * count
        if None in found:
            return None
        return list(zip(*found, strict=True))


def read_object(body: bytes) -> dict[str, Any] | None:
    """Read a JSON object in which surely no key comes twice; return None for anything else.

    A parser keeps one of two equal keys, so what it read has a colon less than the body. Without a
    backslash no colon is written in another way, and each is one of a key or one within a text.
    """
    try:
        document = orjson.loads(body)
        if type(document) is not dict or b"\\" in body:
            return None
        return document if body.count(b":") == orjson.dumps(document).count(b":") else None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def _is_id(content: Any) -> bool:
    return type(content) is str and len(content) <= MAXIMUM_ID


def _values(tensor: dict[str, Any], column: _Column, count: int) -> list[Any] | None:
    """Read a tensor of shape [count] with the four usual keys."""
    shape, data = tensor["shape"], tensor["data"]
    limit = column.datatypes[tensor["datatype"]]
    if type(data) is not list or len(data) != count or len(tensor) != _TENSOR_KEYS:
        return None
    if type(shape) is not list or len(shape) != 1 or type(shape[0]) is not int or shape[0] != count:
        return None
    read, values = column.read, []
    for item in data:
        value = None if item is None else read(item)
        if value is None and (column.required or item is not None):
            return None
        if limit is not None and value is not None and not -limit <= value < limit:
            return None
        values.append(value)
    return values
