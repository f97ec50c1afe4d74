"""Read what a client sent, and refuse what is malformed, naming the field, the row and what would be right.

The format is that of the Open Inference Protocol v2 over REST
(https://github.com/kserve/open-inference-protocol). JSON is read by orjson, which refuses what
Python's own parser lets through: NaN and Infinity, numbers beyond a double, lone surrogates, deep
nesting. Keys that come twice it would let pass, so those are looked for (threats: I1 to I10).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from seatrial.bundle import InputColumn
from seatrial.errors import RequestError
from seatrial.feedback.ids import is_id
from seatrial.server.binary import DATATYPES, read_elements

OUTPUTS = ("probability", "flagged", "prediction_id")
MAXIMUM_TEXT = 1_000
MAXIMUM_ID = 200
LARGEST_NUMBER = 3.4028234663852886e38
"""The largest float32: features are float32, as in training."""
YEARS = range(1900, 2200)
_SHOWN = 60


@dataclass(slots=True)  # Not frozen: one is made for each request, and that would take five times as long.
class InferRequest:
    """A request for predictions.

    Attributes:
        rows: Its rows, each with a value for every input of the model, in the inputs' order.
        request_id: The client's own id of it.
        outputs: The outputs wanted, in the client's order.
        binary: Those of them that are wanted as bytes.
    """

    rows: list[tuple[Any, ...]]
    request_id: str | None
    outputs: tuple[str, ...]
    binary: frozenset[str] = frozenset()


@dataclass(frozen=True)
class OutcomeItem:
    """One outcome as a client sent it.

    Attributes:
        prediction_id: The prediction it belongs to.
        value: 0.0 or 1.0.
        occurred_at: When it became known, UTC, if the client said so.
    """

    prediction_id: str
    value: float
    occurred_at: datetime | None


def parse_json(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object without a key that comes twice.

    Raises:
        RequestError: if it is not.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body must be JSON. {_sentence(str(error))}") from None
    try:
        _TWICE.decode(body.decode())
    except RecursionError:
        raise RequestError("The body is nested too deeply.") from None
    if not isinstance(document, dict):
        raise RequestError(f"The body must be a JSON object. Got {shown(document)} instead.")
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> None:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RequestError(f"The key {shown(twice)} is there twice in one object.")


_TWICE = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_int=str, parse_float=str)


def parse_infer(
    body: bytes, inputs: Sequence[InputColumn], *, maximum_rows: int, header_length: int | None = None
) -> InferRequest:
    """Read a request for predictions.

    Args:
        body: The request's body.
        inputs: The model's inputs.
        maximum_rows: Most rows that a request may have.
        header_length: Bytes of the body that are JSON, where binary tensors follow; None: all of it.

    Raises:
        RequestError: if it is malformed.
    """
    document = parse_json(body if header_length is None else body[:header_length])
    known_keys(document, ("id", "parameters", "inputs", "outputs"), "The request")
    parameters = _parameters(document, "parameters")
    binary = _BinaryTensors(b"" if header_length is None else body[header_length:])
    tensors = _tensors(document.get("inputs"), inputs, binary)
    binary.check_end()
    count = row_count(tensors, maximum_rows)
    outputs = _outputs(document.get("outputs"), binary=_flag(parameters, "binary_data_output", "parameters"))
    return InferRequest(
        rows=read_rows(tensors, inputs, count),
        request_id=read_id(document.get("id"), "'id'"),
        outputs=tuple(outputs),
        binary=frozenset(name for name, as_bytes in outputs.items() if as_bytes),
    )


@dataclass(frozen=True)
class Tensor:
    """An input as it was sent.

    Attributes:
        place: Where in the request it is, for messages.
        datatype: Its datatype.
        rows: Its rows, as its shape says.
        data: A value for each row; empty, whatever ``rows`` says, if no input is of the datatype.
    """

    place: str
    datatype: str
    rows: int
    data: list[Any]


class _BinaryTensors:
    """The bytes after the JSON, which the tensors without ``data`` take in their order."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, size: Any, place: str) -> bytes:
        left = len(self._content) - self._at
        if type(size) is not int or not 0 <= size <= left:
            raise RequestError(
                f"{place}.parameters.binary_data_size must be a number of bytes after the JSON, at most "
                f"{left:,}. Got {shown(size)} instead."
            )
        self._at += size
        return self._content[self._at - size : self._at]

    def check_end(self) -> None:
        if self._at != len(self._content):
            raise RequestError(
                f"The tensors take {self._at:,} bytes after the JSON. Got {len(self._content):,} instead."
            )


def _tensors(content: Any, inputs: Sequence[InputColumn], binary: _BinaryTensors) -> dict[str, Tensor]:
    if not isinstance(content, list) or not content:
        raise RequestError(f"'inputs' must be a list of tensors. Got {shown(content)} instead.")
    known = [rule.name for rule in inputs]
    found: dict[str, Tensor] = {}
    for number, tensor in enumerate(content):
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise RequestError(
                f"inputs[{number}] must be an object with a 'name'. Got {shown(tensor)} instead."
            )
        name = tensor["name"]
        check_name(name, known, found, f"inputs[{number}]")
        found[name] = _tensor(tensor, f"inputs[{number}] ({name})", binary)
    return found


def check_name(name: str, known: list[str], found: Container[str], place: str) -> None:
    """Refuse an input that the model has not, or that is there already.

    Raises:
        RequestError: naming it.
    """
    if name not in known:
        raise RequestError(f"{place}: the model has no input {shown(name)}.{near(name, known)}")
    if name in found:
        raise RequestError(f"{place}: the input {name!r} is there twice.")


def _tensor(tensor: dict[str, Any], place: str, binary: _BinaryTensors) -> Tensor:
    known_keys(tensor, ("name", "shape", "datatype", "parameters", "data"), place)
    parameters = _parameters(tensor, f"{place}.parameters")
    shape, datatype = read_shape(tensor.get("shape"), place), _datatype(tensor.get("datatype"), place)
    if "binary_data_size" in parameters and "data" not in tensor:
        content = binary.take(parameters["binary_data_size"], place)
        known = datatype in DATATYPES
        elements = read_elements(content, datatype, shape[0], f"{place}.data") if known else []
        return Tensor(place, datatype, shape[0], elements)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise RequestError(f"{place}.data must be a list. Got {shown(data)} instead.")
    if shape[1:] and any(isinstance(item, list) for item in data):
        data = [_only_item(item, f"{place}.data[{row}]") for row, item in enumerate(data)]
    check_length(len(data), shape[0], place)
    return Tensor(place, datatype, shape[0], data)


def check_length(length: int, rows: int, place: str) -> None:
    """Refuse data of another length than the shape says.

    Raises:
        RequestError: naming both.
    """
    if length != rows:
        raise RequestError(f"{place}.data must have {rows} values, as its shape says. Got {length} instead.")


def read_shape(shape: Any, place: str) -> list[int]:
    """Return a tensor's shape, which must be [n] or [n, 1].

    Raises:
        RequestError: if it is another.
    """
    if not isinstance(shape, list) or not _is_shape(shape):
        raise RequestError(f"{place}.shape must be [n] or [n, 1]. Got {shown(shape)} instead.")
    return shape


def _is_shape(shape: list[Any]) -> bool:
    return bool(shape) and all(type(size) is int and size >= 0 for size in shape) and shape[1:] in ([], [1])


def _only_item(item: Any, place: str) -> Any:
    if not isinstance(item, list) or len(item) != 1:
        raise RequestError(
            f"{place} must be a list of one value, as the shape says. Got {shown(item)} instead."
        )
    return item[0]


def _datatype(datatype: Any, place: str) -> str:
    if not isinstance(datatype, str):
        raise RequestError(f"{place}.datatype must be a text such as FP64. Got {shown(datatype)} instead.")
    return datatype


def row_count(tensors: dict[str, Tensor], maximum: int) -> int:
    """Return the rows of a request, which all its tensors must have.

    Raises:
        RequestError: if they differ, or are none or too many.
    """
    first = next(iter(tensors.values()))
    for tensor in tensors.values():
        if tensor.rows != first.rows:
            raise RequestError(
                f"All inputs must have the same number of rows. {first.place} has {first.rows}, "
                f"{tensor.place} has {tensor.rows}."
            )
    check_rows(first.rows, maximum)
    return first.rows


def check_rows(rows: int, maximum: int) -> None:
    """Refuse a request without rows or with too many.

    Raises:
        RequestError: naming both numbers; with status 413 for too many.
    """
    if rows < 1:
        raise RequestError("A request must have at least one row. Got 0 instead.")
    if rows > maximum:
        raise RequestError(
            f"A request may have at most {maximum:,} rows. Got {rows:,} instead.",
            status=413,
            remedy="Send them in several requests.",
        )


def read_rows(tensors: dict[str, Tensor], inputs: Sequence[InputColumn], count: int) -> list[tuple[Any, ...]]:
    """Return a request's rows, each with a value for every input of the model.

    Args:
        tensors: What was sent, by input.
        inputs: The model's inputs.
        count: The rows of each tensor.

    Raises:
        RequestError: if an input is missing, or a value is none of its input's type.
    """
    columns = [_column(rule, tensors.get(rule.name), count) for rule in inputs]
    return list(zip(*columns, strict=True))


def _column(rule: InputColumn, tensor: Tensor | None, rows: int) -> list[Any]:
    if tensor is None:
        if rule.required:
            raise RequestError(f"The input {rule.name!r} is missing.")
        return [None] * rows
    kind = KINDS[rule.type]
    if tensor.datatype not in kind.datatypes:
        raise RequestError(
            f"{tensor.place}.datatype must be {' or '.join(kind.datatypes)}. "
            f"Got {shown(tensor.datatype)} instead."
        )
    limit = INTEGERS.get(tensor.datatype)
    values = [read_value(rule, item, f"{tensor.place}.data[{row}]") for row, item in enumerate(tensor.data)]
    for row, value in enumerate(values):
        if limit is not None and value is not None and not -limit <= value < limit:
            raise RequestError(
                f"{tensor.place}.data[{row}] must fit into {tensor.datatype}. Got {shown(value)} instead."
            )
    return values


def read_value(rule: InputColumn, item: Any, place: str) -> Any:
    """Read a value of an input, parsed from JSON; None where an input that is not required has none.

    Args:
        rule: The input.
        item: The value as it was sent.
        place: Where in the request it is, for the message.

    Raises:
        RequestError: if it is none of the input's type.
    """
    kind = KINDS[rule.type]
    value = None if item is None else kind.read(item)
    if value is None and (rule.required or item is not None):
        raise RequestError(f"{place} must be {kind.wanted}. Got {shown(item)} instead.")
    return value


INTEGERS = {"INT32": 2**31, "INT64": 2**63}


@dataclass(frozen=True)
class _Kind:
    """How values of one of the contract's types are sent: the first datatype is the one described."""

    datatypes: tuple[str, ...]
    wanted: str
    read: Callable[[Any], Any]


def _text(item: Any) -> str | None:
    return item if isinstance(item, str) and len(item) <= MAXIMUM_TEXT else None


def _integer(item: Any) -> int | None:
    return item if type(item) is int else None


def _number(item: Any) -> float | None:
    if type(item) not in (int, float) or not -LARGEST_NUMBER <= item <= LARGEST_NUMBER:
        return None
    return float(item)


def _boolean(item: Any) -> bool | None:
    return item if isinstance(item, bool) else None


def read_time(item: Any) -> datetime | None:
    """Read an ISO 8601 time, in UTC where it names no offset; return None if it is none."""
    if not isinstance(item, str) or len(item) > MAXIMUM_ID:
        return None
    try:
        instant = datetime.fromisoformat(item)
    except ValueError:
        return None
    if instant.year not in YEARS:
        return None
    if instant.tzinfo is UTC:
        return instant
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


_TIME = f"an ISO 8601 time such as 2013-07-01T12:30:00Z, from {YEARS.start} to {YEARS.stop - 1}"
KINDS: dict[str, _Kind] = {
    "string": _Kind(("BYTES",), f"a text of at most {MAXIMUM_TEXT:,} characters", _text),
    "integer": _Kind(("INT64", "INT32"), "a whole number", _integer),
    "number": _Kind(("FP64", "FP32", "INT64", "INT32"), "a finite number within float32's range", _number),
    "boolean": _Kind(("BOOL",), "true or false", _boolean),
    "time": _Kind(("BYTES",), _TIME, read_time),
}


def read_id(content: Any, place: str) -> str | None:
    """Return the client's own id of a request, if it gave one.

    Raises:
        RequestError: if it is no text, or too long.
    """
    if content is not None and not (isinstance(content, str) and len(content) <= MAXIMUM_ID):
        raise RequestError(
            f"{place} must be a text of at most {MAXIMUM_ID} characters. Got {shown(content)} instead."
        )
    return content


def _outputs(content: Any, *, binary: bool) -> dict[str, bool]:
    """Return the outputs wanted, and of each whether it is wanted as bytes."""
    if content is None:
        return dict.fromkeys(OUTPUTS, binary)
    if not isinstance(content, list):
        raise RequestError(f"'outputs' must be a list. Got {shown(content)} instead.")
    wanted: dict[str, bool] = {}
    for number, output in enumerate(content):
        name = check_output(output.get("name") if isinstance(output, dict) else None, number)
        place = f"outputs[{number}].parameters"
        wanted[name] = _flag(_parameters(output, place), "binary_data", place, default=binary)
    return wanted or dict.fromkeys(OUTPUTS, binary)


def check_output(name: Any, number: int) -> str:
    """Return the name of an output that there is.

    Raises:
        RequestError: naming those that there are.
    """
    if name not in OUTPUTS:
        raise RequestError(
            f"outputs[{number}].name must be one of {', '.join(OUTPUTS)}. Got {shown(name)} instead."
        )
    return str(name)


def _flag(parameters: dict[str, Any], key: str, place: str, *, default: bool = False) -> bool:
    found = parameters.get(key, default)
    if not isinstance(found, bool):
        raise RequestError(f"{place}.{key} must be true or false. Got {shown(found)} instead.")
    return found


def parse_feedback(body: bytes, *, maximum_items: int) -> list[OutcomeItem]:
    """Read outcomes: an object with ``outcomes``, or a single outcome.

    Args:
        body: The request's body.
        maximum_items: Most outcomes that a request may bring.

    Raises:
        RequestError: if it is malformed; nothing of it is kept then.
    """
    document = parse_json(body)
    if "outcomes" not in document:
        return [read_outcome(document, "The outcome")]
    known_keys(document, ("outcomes",), "The request")
    items = document["outcomes"]
    if not isinstance(items, list) or not items:
        raise RequestError(f"'outcomes' must be a list of outcomes. Got {shown(items)} instead.")
    check_outcomes(len(items), maximum_items)
    return [read_outcome(item, f"outcomes[{number}]") for number, item in enumerate(items)]


def check_outcomes(count: int, maximum: int) -> None:
    """Refuse too many outcomes at once.

    Raises:
        RequestError: with status 413.
    """
    if count > maximum:
        raise RequestError(
            f"A request may bring at most {maximum:,} outcomes. Got {count:,} instead.", status=413
        )


def read_outcome(item: Any, place: str) -> OutcomeItem:
    """Read an outcome: an object with ``prediction_id``, ``value`` and perhaps ``occurred_at``.

    Raises:
        RequestError: if it is malformed.
    """
    if not isinstance(item, dict):
        raise RequestError(
            f"{place} must be an object with 'prediction_id' and 'value'. Got {shown(item)} instead."
        )
    known_keys(item, ("prediction_id", "value", "occurred_at"), place)
    name, value, instant = item.get("prediction_id"), item.get("value"), item.get("occurred_at")
    if not isinstance(name, str) or not is_id(name):
        raise RequestError(
            f"{place}: 'prediction_id' must be an id as an answer gave it (a UUID of version 7). "
            f"Got {shown(name)} instead."
        )
    if type(value) not in (bool, int, float) or value not in (0, 1):
        raise RequestError(f"{place}: 'value' must be true, false, 1 or 0. Got {shown(value)} instead.")
    occurred_at = None if instant is None else read_time(instant)
    if occurred_at is None and instant is not None:
        raise RequestError(f"{place}: 'occurred_at' must be {_TIME}. Got {shown(instant)} instead.")
    return OutcomeItem(name, float(value), occurred_at)


def known_keys(content: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    """Refuse keys that mean nothing here: they are misspelt, or ask for what would not happen.

    Raises:
        RequestError: naming the first such key.
    """
    for key in content:
        if key not in known:
            raise RequestError(f"{place} has an unknown key {shown(key)}.{near(key, list(known))}")


def _parameters(content: dict[str, Any], place: str) -> dict[str, Any]:
    found = content.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestError(f"{place} must be an object. Got {shown(found)} instead.")
    return found


def near(name: str, known: list[str]) -> str:
    """Return the end of a message about a name that is not known: which was meant, or which there are."""
    found = difflib.get_close_matches(name[:MAXIMUM_TEXT].lower(), known, n=1)
    return f" Did you mean {found[0]!r}?" if found else f" There are: {', '.join(known)}."


def shown(value: Any) -> str:
    """Return a value as it may be shown in a message: JSON, and short."""
    try:
        text = orjson.dumps(value, default=str).decode()
    except TypeError:  # Such as an integer of more than 64 bits.
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
