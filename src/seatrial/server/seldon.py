"""Seldon's protocol, version 1: its messages, read and written as JSON.

A message holds ``data`` (rows without names for each value: ``ndarray``, or a ``tensor`` of numbers) or
``jsonData`` (a row as an object, or a list of them). The answer has the form of the question. What a model
of ours says beyond numbers, its predictions' ids and its bundle, is in ``meta.tags``, so that feedback,
which brings the whole answer back, names the predictions. A client's ``meta.puid`` is an alias and never
a key (threats: Z11, F10). Over gRPC the same messages come as protobuf and are read here, too.

Arrays are of one type in most clients, so a whole number may come as ``12.0`` and a boolean as 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from seatrial.bundle import InputColumn
from seatrial.errors import RequestError
from seatrial.server.batching import Answered
from seatrial.server.requests import (
    INTEGERS,
    OutcomeItem,
    check_name,
    check_outcomes,
    check_rows,
    known_keys,
    near,
    read_id,
    read_outcome,
    read_value,
    shown,
)

Form = Literal["ndarray", "tensor", "jsonData"]
OUTPUTS = ("probability", "flagged")
_FORMS = ("data", "jsonData", "strData", "binData", "customData")
_EXACT = 2**53
"""Whole numbers that a double holds exactly are at most so large."""


@dataclass(frozen=True)
class SeldonRequest:
    """A message that asks for predictions.

    Attributes:
        rows: Its rows, each with a value for every input of the model, in the inputs' order.
        puid: The client's own id of it.
        tags: The client's tags, which come back in the answer.
        form: How its rows are written.
    """

    rows: list[tuple[Any, ...]]
    puid: str | None
    tags: dict[str, Any]
    form: Form


def parse_message(
    document: dict[str, Any], inputs: Sequence[InputColumn], *, maximum_rows: int
) -> SeldonRequest:
    """Read a message that asks for predictions.

    Args:
        document: The message.
        inputs: The model's inputs.
        maximum_rows: Most rows that it may have.

    Raises:
        RequestError: if it is malformed.
    """
    known_keys(document, ("status", "meta", *_FORMS), "The message")
    meta = _object(document.get("meta"), "meta")
    given = _the_form(document, "The message")
    form: Form
    if given == "data":
        form, rows = _data(document["data"], inputs, maximum_rows)
    else:
        form, rows = "jsonData", _json_rows(document["jsonData"], inputs, maximum_rows)
    return SeldonRequest(
        rows, read_id(meta.get("puid"), "meta.puid"), _object(meta.get("tags"), "meta.tags"), form
    )


def _the_form(message: dict[str, Any], place: str) -> str:
    given = [key for key in _FORMS if key in message]
    if len(given) != 1 or given[0] not in ("data", "jsonData"):
        raise RequestError(f"{place} must have either 'data' or 'jsonData'. Got {shown(given)} instead.")
    return given[0]


def _object(content: Any, place: str) -> dict[str, Any]:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise RequestError(f"{place} must be an object. Got {shown(content)} instead.")
    return content


def _data(
    content: Any, inputs: Sequence[InputColumn], maximum_rows: int
) -> tuple[Form, list[tuple[Any, ...]]]:
    data = _object(content, "data")
    known_keys(data, ("names", "ndarray", "tensor", "tftensor"), "data")
    given = [key for key in ("ndarray", "tensor", "tftensor") if key in data]
    if given not in (["ndarray"], ["tensor"]):
        raise RequestError(f"data must have either 'ndarray' or 'tensor'. Got {shown(given)} instead.")
    form: Form = "ndarray" if given == ["ndarray"] else "tensor"
    names = _names(data.get("names"), inputs)
    if form == "tensor":
        table = _tensor_rows(data["tensor"], len(names), maximum_rows)
    else:
        table = data["ndarray"]
        if not isinstance(table, list):
            raise RequestError(f"data.ndarray must be a list of rows. Got {shown(table)} instead.")
        check_rows(len(table), maximum_rows)
    return form, _read_table(table, names, inputs, f"data.{form}")


def _names(content: Any, inputs: Sequence[InputColumn]) -> list[str]:
    """Return the columns' names; without any, the columns are the model's inputs in their order."""
    known = [rule.name for rule in inputs]
    if content is None or content == []:
        return known
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise RequestError(f"data.names must be a list of texts. Got {shown(content)} instead.")
    for place, name in enumerate(content):
        check_name(name, known, content[:place], f"data.names[{place}]")
    for rule in inputs:
        if rule.required and rule.name not in content:
            raise RequestError(f"The input {rule.name!r} is missing.")
    return content


def _tensor_rows(content: Any, width: int, maximum_rows: int) -> list[list[Any]]:
    tensor = _object(content, "data.tensor")
    known_keys(tensor, ("shape", "values"), "data.tensor")
    shape, values = tensor.get("shape"), tensor.get("values")
    if not isinstance(shape, list) or len(shape) != 2 or shape[1] != width or type(shape[0]) is not int:  # noqa: PLR2004 -- rows and columns
        raise RequestError(f"data.tensor.shape must be [n, {width}]. Got {shown(shape)} instead.")
    check_rows(max(shape[0], 0), maximum_rows)
    if not isinstance(values, list) or len(values) != shape[0] * width:
        got = f"{len(values):,} values" if isinstance(values, list) else shown(values)
        raise RequestError(
            f"data.tensor.values must have {shape[0] * width:,} numbers, as its shape says. Got {got} instead."
        )
    for place, value in enumerate(values):
        if type(value) not in (int, float):  # Such as the NaN of a protobuf, whose JSON is a text.
            raise RequestError(
                f"data.tensor.values[{place}] must be a finite number. Got {shown(value)} instead."
            )
    return [values[first : first + width] for first in range(0, len(values), width)]


def _read_table(
    table: list[Any], names: list[str], inputs: Sequence[InputColumn], place: str
) -> list[tuple[Any, ...]]:
    places = [(rule, names.index(rule.name) if rule.name in names else None) for rule in inputs]
    rows = []
    for number, values in enumerate(table):
        if not isinstance(values, list) or len(values) != len(names):
            got = f"{len(values)} values" if isinstance(values, list) else shown(values)
            raise RequestError(
                f"{place}[{number}] must be a list of {len(names)} values: {', '.join(names)}. Got {got} instead."
            )
        rows.append(
            tuple(
                None if at is None else _read(rule, values[at], f"{place}[{number}][{at}] ({rule.name})")
                for rule, at in places
            )
        )
    return rows


def _json_rows(content: Any, inputs: Sequence[InputColumn], maximum_rows: int) -> list[tuple[Any, ...]]:
    single = isinstance(content, dict)
    if not single and not isinstance(content, list):
        raise RequestError(
            f"jsonData must be a row as an object, or a list of them. Got {shown(content)} instead."
        )
    objects = [content] if single else content
    check_rows(len(objects), maximum_rows)
    known = [rule.name for rule in inputs]
    rows = []
    for number, row in enumerate(objects):
        place = "jsonData" if single else f"jsonData[{number}]"
        if not isinstance(row, dict):
            raise RequestError(f"{place} must be an object. Got {shown(row)} instead.")
        for name in row:
            if name not in known:
                raise RequestError(f"{place}: the model has no input {shown(name)}.{near(name, known)}")
        rows.append(tuple(_read(rule, row.get(rule.name), f"{place}.{rule.name}") for rule in inputs))
    return rows


def _read(rule: InputColumn, item: Any, place: str) -> Any:
    if rule.type == "boolean" and type(item) in (int, float) and item in (0, 1):
        return bool(item)
    if rule.type != "integer":
        return read_value(rule, item, place)
    if type(item) is float and item.is_integer() and abs(item) <= _EXACT:
        item = int(item)
    value = read_value(rule, item, place)
    if value is not None and not -INTEGERS["INT64"] <= value < INTEGERS["INT64"]:
        raise RequestError(f"{place} must fit into INT64. Got {shown(value)} instead.")
    return value


def write_message(model: str, request: SeldonRequest, puid: str | None, answered: Answered) -> dict[str, Any]:
    """Return the message that answers a request.

    Args:
        model: The model's name.
        request: What was asked.
        puid: The id that the client gave beside the message, if it gave one there.
        answered: What the model said.
    """
    flagged = sum(answered.flagged)
    meta = {
        "puid": request.puid or puid or answered.prediction_id[0],
        "tags": {**request.tags, "bundle": answered.bundle, "prediction_id": answered.prediction_id},
        "requestPath": {model: answered.bundle},
        "metrics": [
            {"key": "seatrial_rows", "type": "COUNTER", "value": len(request.rows)},
            {"key": "seatrial_flagged", "type": "COUNTER", "value": flagged},
            {"key": "seatrial_probability", "type": "GAUGE", "value": answered.probability[-1]},
        ],
    }
    if request.form == "jsonData":
        columns = zip(answered.probability, answered.flagged, answered.prediction_id, strict=True)
        keys = (*OUTPUTS, "prediction_id")
        return {"meta": meta, "jsonData": [dict(zip(keys, row, strict=True)) for row in columns]}
    pairs = [[value, float(flag)] for value, flag in zip(answered.probability, answered.flagged, strict=True)]
    if request.form == "ndarray":
        return {"meta": meta, "data": {"names": OUTPUTS, "ndarray": pairs}}
    tensor = {"shape": [len(pairs), len(OUTPUTS)], "values": [value for pair in pairs for value in pair]}
    return {"meta": meta, "data": {"names": OUTPUTS, "tensor": tensor}}


def parse_feedback_message(document: dict[str, Any], *, maximum_items: int) -> list[OutcomeItem]:
    """Read feedback: ``response`` names the predictions by its tag ``prediction_id``, ``truth`` has their outcomes.

    Args:
        document: The feedback.
        maximum_items: Most outcomes that it may bring.

    Raises:
        RequestError: if it is malformed, or has no truth: a reward alone does not say what came true.
    """
    known_keys(document, ("request", "response", "reward", "truth"), "The feedback")
    response = _object(document.get("response"), "response")
    tags = _object(_object(response.get("meta"), "response.meta").get("tags"), "response.meta.tags")
    names = tags.get("prediction_id")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names:
        raise RequestError(
            "response.meta.tags.prediction_id must be the prediction's id, or a list of them, as the answer gave "
            f"it. Got {shown(names)} instead."
        )
    check_outcomes(len(names), maximum_items)
    truth = _object(document.get("truth"), "truth")
    values = _truth(truth)
    if len(values) != len(names):
        raise RequestError(
            f"truth must have a value for each of the {len(names)} predictions. Got {len(values)} instead."
        )
    known_at = _object(_object(truth.get("meta"), "truth.meta").get("tags"), "truth.meta.tags").get(
        "occurred_at"
    )
    return [
        read_outcome({"prediction_id": name, "value": value, "occurred_at": known_at}, f"truth[{number}]")
        for number, (name, value) in enumerate(zip(names, values, strict=True))
    ]


def _truth(truth: dict[str, Any]) -> list[Any]:
    if _the_form(truth, "truth") == "jsonData":
        content = truth["jsonData"]
        return content if isinstance(content, list) else [content]
    data = _object(truth["data"], "truth.data")
    tensor = _object(data.get("tensor"), "truth.data.tensor")
    content = data.get("ndarray", tensor.get("values"))
    if not isinstance(content, list):
        raise RequestError(
            f"truth.data must have 'ndarray' or 'tensor' with a value for each prediction. Got {shown(data)} instead."
        )
    return [item[0] if isinstance(item, list) and len(item) == 1 else item for item in content]


def describe_model(name: str, digest: str, inputs: Sequence[InputColumn]) -> dict[str, Any]:
    """Return what Seldon calls a model's metadata.

    Args:
        name: The model's name.
        digest: Its bundle's digest.
        inputs: Its inputs.
    """
    columns = [rule.name for rule in inputs]
    return {
        "name": name,
        "versions": [digest],
        "platform": "seatrial_onnx",
        "inputs": [{"messagetype": "ndarray", "schema": {"names": columns, "shape": [len(columns)]}}],
        "outputs": [{"messagetype": "ndarray", "schema": {"names": list(OUTPUTS), "shape": [len(OUTPUTS)]}}],
        "custom": {"bundle": digest},
    }


def describe_error(status: int, message: str) -> dict[str, Any]:
    """Return the message that says what is wrong, as Seldon's own server does.

    Args:
        status: The HTTP status that goes with it.
        message: What is wrong.
    """
    fault = status >= 500  # noqa: PLR2004 -- a fault of ours
    reason = "MICROSERVICE_INTERNAL_ERROR" if fault else "MICROSERVICE_BAD_DATA"
    return {"status": {"code": -1, "info": message, "reason": reason, "status": 1}}
