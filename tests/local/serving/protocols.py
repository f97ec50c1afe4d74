"""One request in the words of every protocol that the server speaks, and what it says to it in one form."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import grpc
import orjson
from google.protobuf import json_format
from tests.local.serving.conftest import DATATYPES, INPUTS, Server
from tests.local.serving.test_grpc import FIELDS, MODEL, OIP, ROWS, Calls

from seatrial.server.binary import read_elements, write_elements
from seatrial.server.messages import INFERENCE, SELDON

INFER, EXPLAIN, PREDICT = "/v2/models/ferry/infer", "/v2/models/ferry/explain", "/api/v1.0/predictions"
OK, INVALID, MISSING, TOO_MUCH, BUSY = "ok", "invalid", "not found", "too much", "busy"
_BY_STATUS = {200: OK, 400: INVALID, 415: INVALID, 404: MISSING, 413: TOO_MUCH, 429: BUSY, 431: TOO_MUCH}
_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: INVALID,
    grpc.StatusCode.NOT_FOUND: MISSING,
    grpc.StatusCode.RESOURCE_EXHAUSTED: BUSY,
}


@dataclass(frozen=True)
class Column:
    """An input of a request: its datatype, the shape that it claims, and its values."""

    name: str
    datatype: str
    values: Sequence[Any]
    shape: Sequence[int] | None = None

    @property
    def claimed(self) -> list[int]:
        return [len(self.values)] if self.shape is None else list(self.shape)


COLUMNS = [Column(name, DATATYPES.get(name, "BYTES"), [ROWS[0][name]]) for name in INPUTS]
"""A request of one row that is answered."""


@dataclass(frozen=True)
class Message:
    """A request as it goes over the wire."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What the server said: what kind of answer it is, its words if it refuses, and its content."""

    code: str
    words: str
    content: Any = None


def _json(columns: Sequence[Column], path: str = INFER) -> Message:
    tensors = [
        {"name": one.name, "shape": one.claimed, "datatype": one.datatype, "data": list(one.values)}
        for one in columns
    ]
    return Message(path, _text({"inputs": tensors}))


def _text(document: Any) -> bytes:
    """Return JSON, with what Python writes and JSON does not have, such as NaN."""
    return json.dumps(document, separators=(",", ":")).encode()


def _binary(columns: Sequence[Column]) -> Message:
    raw = [write_elements(list(one.values), one.datatype) for one in columns]
    tensors = [
        {
            "name": one.name,
            "shape": one.claimed,
            "datatype": one.datatype,
            "parameters": {"binary_data_size": len(content)},
        }
        for one, content in zip(columns, raw, strict=True)
    ]
    text = orjson.dumps({"inputs": tensors})
    headers = {
        "inference-header-content-length": str(len(text)),
        "content-type": "application/octet-stream",
    }
    return Message(INFER, b"".join((text, *raw)), headers)


def _grpc(columns: Sequence[Column], *, raw: bool) -> Message:
    message = INFERENCE["ModelInferRequest"](model_name="ferry")
    for one in columns:
        added = message.inputs.add(name=one.name, datatype=one.datatype, shape=one.claimed)
        if raw:
            message.raw_input_contents.append(write_elements(list(one.values), one.datatype))
        else:
            values = [value.encode() if isinstance(value, str) else value for value in one.values]
            getattr(added.contents, FIELDS[one.datatype]).extend(values)
    return Message(OIP + "ModelInfer", message.SerializeToString())


def _seldon_content(columns: Sequence[Column]) -> dict[str, Any]:
    rows = [list(row) for row in zip(*(one.values for one in columns), strict=True)]
    return {"data": {"names": [one.name for one in columns], "ndarray": rows}}


def _seldon_grpc(columns: Sequence[Column]) -> Message:
    message = json_format.ParseDict(_seldon_content(columns), SELDON["SeldonMessage"]())
    return Message(MODEL + "Predict", message.SerializeToString())


PROTOCOLS: dict[str, Callable[[Sequence[Column]], Message]] = {
    "v2 json": _json,
    "v2 binary": _binary,
    "v2 grpc": lambda columns: _grpc(columns, raw=False),
    "v2 grpc raw": lambda columns: _grpc(columns, raw=True),
    "seldon json": lambda columns: Message(PREDICT, _text(_seldon_content(columns))),
    "seldon grpc": _seldon_grpc,
    "explain": lambda columns: _json(columns, EXPLAIN),
}
"""What writes a request, by protocol."""


def prediction_ids(protocol: str, said: Said) -> list[str]:
    """Return the ids of the predictions that an answer brings."""
    content = said.content
    if protocol == "explain":
        return [content["prediction_id"]]
    if protocol.startswith("seldon"):
        return list(content["meta"]["tags"]["prediction_id"])
    (tensor,) = (one for one in content["outputs"] if one["name"] == "prediction_id")
    if not is_grpc(protocol):
        return list(tensor["data"])
    if "contents" in tensor:
        return [base64.b64decode(one).decode() for one in tensor["contents"]["bytes_contents"]]
    raw = base64.b64decode(content["raw_output_contents"][content["outputs"].index(tensor)])
    return list(read_elements(raw, "BYTES", int(tensor["shape"][0]), "prediction_id"))


def served_by(protocol: str, said: Said) -> str:
    """Return the digest of the bundle that an answer names."""
    content = said.content
    if protocol.startswith("seldon"):
        return str(content["meta"]["tags"]["bundle"])
    return str(content["model_version"])


def is_grpc(protocol: str) -> bool:
    return "grpc" in protocol


def send(server: Server, calls: Calls, protocol: str, message: Message, **headers: str) -> Said:
    """Send a request, and read what is said to it, whatever the protocol."""
    if is_grpc(protocol):
        return _call(calls, message, headers)
    shown = {"content-type": "application/json", **message.headers, **headers}
    with closing(http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=60)) as asked:
        asked.request("POST", message.path, message.body, shown)
        answer = asked.getresponse()
        content = answer.read()
    return read_rest(answer.status, content, answer.headers.get("inference-header-content-length"))


def read_rest(status: int, content: bytes, json_bytes: str | None = None) -> Said:
    """Read an answer over REST, of which so many bytes are JSON, or all."""
    read = orjson.loads(content if json_bytes is None else content[: int(json_bytes)])
    code = _BY_STATUS[status]
    if code == OK:
        return Said(code, "", read)
    return Said(code, read["error"] if "error" in read else read["status"]["info"], read)


def read_grpc(path: str, content: bytes) -> Said:
    """Read an answer over gRPC to what was sent to ``path``."""
    answer = INFERENCE["ModelInferResponse"] if path.startswith(OIP) else SELDON["SeldonMessage"]
    return Said(OK, "", json_format.MessageToDict(answer.FromString(content)))


def _call(calls: Calls, message: Message, headers: dict[str, str]) -> Said:
    try:
        content = calls.send(message.path, message.body, **headers)
    except grpc.RpcError as error:
        return Said(_BY_CODE[error.code()], error.details() or "")  # type: ignore[attr-defined]
    return read_grpc(message.path, content)
