"""Read the requests that are plainly right, in a fraction of the time of a full reading.

:mod:`seatrial.server.requests` says what a request may be, and what is wrong with one that it may not.
Nearly all requests need none of that: their bodies have the usual keys and values of the usual types.
Those are read here, by a parser that msgspec makes for the model's inputs: it checks keys, types and bounds while it
reads. Whatever is unusual, right or wrong, is left to the full reading; so the two never disagree about what is
read (tests/unit/test_quick_reading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from seatrial.bundle import InputColumn
from seatrial.server.requests import (
    INTEGERS,
    KINDS,
    LARGEST_NUMBER,
    MAXIMUM_ID,
    MAXIMUM_TEXT,
    OUTPUTS,
    InferRequest,
    read_time,
)

_TENSOR_KEYS = 4
_TYPES: dict[str, Any] = {
    "string": Annotated[str, msgspec.Meta(max_length=MAXIMUM_TEXT)],
    "integer": Annotated[int, msgspec.Meta(ge=-INTEGERS["INT64"], le=INTEGERS["INT64"] - 1)],
    "number": Annotated[float, msgspec.Meta(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)],
    "boolean": bool,
    "time": Annotated[str, msgspec.Meta(max_length=MAXIMUM_ID)],
}
_Id = Annotated[str, msgspec.Meta(max_length=MAXIMUM_ID)] | None | msgspec.UnsetType


class _Column(NamedTuple):
    """An input: where it is in a row, and what msgspec does not check of it.

    Attributes:
        place: Its place in a row.
        colons: Those of the keys and the name of its tensor.
        texts: Whether its values are sent as texts.
        times: Whether these are times.
        required: Whether it must have a value in each row.
        limits: Datatypes whose bounds are narrower than those of its type; the lower one is inclusive.
    """

    place: int
    colons: int
    texts: bool
    times: bool
    required: bool
    limits: dict[str, int]


class QuickReader:
    """Reads requests for one model.

    Args:
        inputs: The model's inputs.
        maximum_rows: Most rows that a request may have.
    """

    def __init__(self, inputs: Sequence[InputColumn], *, maximum_rows: int) -> None:
        self._maximum_rows = maximum_rows
        tensors = [_tensor_type(rule) for rule in inputs]
        self._columns = {
            tensor: _column(rule, place)
            for place, (tensor, rule) in enumerate(zip(tensors, inputs, strict=True))
        }
        self._optional = [column.place for column in self._columns.values() if not column.required]
        tensor_type: Any = reduce(or_, tensors)
        request = msgspec.defstruct(
            "Request",
            [("inputs", list[tensor_type]), ("id", _Id, msgspec.UNSET)],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(request).decode

    def read(self, body: bytes) -> InferRequest | None:
        """Read a request; return None if it takes a full reading to say what it is.

        Args:
            body: The request's body.
        """
        if b"\\" in body:
            return None
        try:
            request = self._decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        request_id, texts, colons = request.id, [], 1
        if request_id is msgspec.UNSET:
            request_id = None
        else:
            colons += 1
            texts.append(request_id or "")
        read = self._rows(request.inputs, texts)
        # Of two equal keys the parser keeps one. Without a backslash no colon is written in another way, so each
        # is one of a key or one within a text; if there are more, a key came twice.
        if read is None or colons + read[1] + "".join(texts).count(":") != body.count(b":"):
            return None
        return InferRequest(read[0], request_id, OUTPUTS)

    def _rows(self, tensors: list[Any], texts: list[str]) -> tuple[list[tuple[Any, ...]], int] | None:
        """Return the rows, and the colons of the tensors' keys and names; collect the texts that were sent."""
        count = len(tensors[0].data) if tensors else 0
        if not 0 < count <= self._maximum_rows:
            return None
        columns, shape, colons = self._columns, (count,), 0
        found: list[list[Any] | None] = [None] * len(columns)
        for tensor in tensors:
            column, data = columns[type(tensor)], tensor.data
            place, own, is_text, is_time, required, limits = column
            if len(data) != count or tensor.shape != shape or found[place] is not None:
                return None
            colons += own
            if is_text:
                texts += data if required else filter(None, data)
                if is_time:
                    data = _times(data)
            elif tensor.datatype in limits and not _within(data, limits[tensor.datatype]):
                return None
            found[place] = data
        for place in self._optional:
            if found[place] is None:
                found[place] = [None] * count
        return None if None in found else (list(zip(*found, strict=True)), colons)


def _column(rule: InputColumn, place: int) -> _Column:
    return _Column(
        place,
        _TENSOR_KEYS + rule.name.count(":"),
        texts=rule.type in ("string", "time"),
        times=rule.type == "time",
        required=rule.required,
        # Of whole numbers INT64's bounds are checked with their type.
        limits={"INT32": INTEGERS["INT32"]} if rule.type == "integer" else INTEGERS,
    )


def _tensor_type(rule: InputColumn) -> Any:
    """Return the type of a tensor of an input, with the four usual keys, of which the name tells which it is."""
    kind = _TYPES[rule.type]
    value: Any = kind if rule.required else kind | None
    return msgspec.defstruct(
        "Tensor",
        [
            ("shape", tuple[int]),
            ("datatype", Literal[KINDS[rule.type].datatypes]),
            ("data", list[value]),
        ],
        tag_field="name",
        tag=rule.name,
        forbid_unknown_fields=True,
        gc=False,
    )


def _times(values: list[str | None]) -> list[datetime | None] | None:
    """Return the times that texts are; None if one is none."""
    found = [None if value is None else read_time(value) for value in values]
    return found if found.count(None) == values.count(None) else None


def _within(values: list[Any], limit: int) -> bool:
    return all(value is None or -limit <= value < limit for value in values)
