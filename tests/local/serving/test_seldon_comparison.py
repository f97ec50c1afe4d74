"""Seldon's protocol beside Seldon's own server: both serve one model, are asked the same, and are compared.

What differs on purpose is listed in one place, the table of ``docs/reference/seldon.md``; any other difference fails
here, and so does a row of that table that is not true any more. ``make compare-seldon`` prints what differs.
"""

from __future__ import annotations

import copy
import http.client
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import grpc
import numpy as np
import orjson
import polars as pl
import pytest
from google.protobuf import json_format
from tests.local.serving.conftest import Server, wait_for
from tests.local.serving.test_grpc import MODEL, Calls

from seatrial.bundle import BundleSchema, InputColumn, load_bundle, open_signer, open_trust_root, write_bundle
from seatrial.features import FeatureSchema
from seatrial.promotion import promote, read_pointer
from seatrial.server.messages import SELDON
from seatrial.verdicts import Outcome, Verdict
from seatrial.workspace import Workspace
from support import clients

pytestmark = pytest.mark.long

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "seldon.md"
OVER_GRPC = "## Over gRPC"
"""The part of the page that lists what differs over gRPC alone."""
CODES = {
    "200 ndarray": "OK ndarray",
    "200 ndarray, other values": "OK ndarray, other values",
    "200 tensor": "OK tensor",
    "200 jsonData": "OK jsonData",
    "200, no JSON": "OK, no JSON",
    "400": "INVALID_ARGUMENT",
    "500": "UNKNOWN",
}
"""What is said over gRPC where over REST it is said so."""
INPUTS = ("number", "wind", "passengers")
THRESHOLD = 0.4
CONTRACT = """\
version: 1
name: crossing
description: Says by three numbers whether a crossing will be late.
owner: tests@example.com
tables:
  crossings:
    source: {kind: file, path: crossings.csv}
    key: [number]
    time: departs_at
    columns:
      number: {type: integer, required: true}
      departs_at: {type: time, required: true}
      wind: {type: number, required: true}
      passengers: {type: integer, required: true}
      arrived_at: {type: time}
      late: {type: boolean}
prediction: {table: crossings, inputs: [number, wind, passengers]}
label: {column: late, time: arrived_at}
split: {validation: 7d, test: 7d}
candidates:
  - {name: logistic, estimator: sklearn.linear_model.LogisticRegression, complexity: 1, encoding: ordinal}
costs: {missed: 5, false_alarm: 1}
gates:
  minimum_quality: {metric: roc_auc, minimum: 0.5}
  parity: {maximum_difference: 0.001}
"""
FEATURES = """\
import polars as pl

from seatrial.features import Features

FEATURES = Features(
    expressions={name: pl.col(name) for name in ("number", "wind", "passengers")},
)
"""


@dataclass(frozen=True)
class Asked:
    """A request: where, what, and with which headers."""

    body: Any
    path: str = "/api/v1.0/predictions"
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    method: str = "POST"
    answer_back: bool = False
    """Whether the answer to its ``request`` is asked for first, and brought back as its ``response``."""


def _form(body: Any) -> Asked:
    sent = urlencode({"json": orjson.dumps(body).decode()}).encode()
    return Asked(sent, headers={"content-type": "application/x-www-form-urlencoded"})


ROW = [[7, 3.5, 9]]
ROWS = [[7, 3.5, 9], [8, 20.25, 300], [9, 0.0, 0]]
NAMED = {"names": list(INPUTS), "ndarray": ROWS}
DATA = {"data": {"ndarray": ROWS}}
ANSWER = {"data": {"names": ["probability", "flagged"], "ndarray": [[0.5, 1.0]]}}
CASES: dict[str, Asked] = {
    "ndarray": Asked(DATA),
    "one row": Asked({"data": {"ndarray": ROW}}),
    "ndarray with names": Asked({"data": NAMED}),
    "names in another order": Asked(
        {"data": {"names": ["wind", "number", "passengers"], "ndarray": [[3.5, 7, 9]]}}
    ),
    "unknown names": Asked({"data": {"names": ["a", "b", "c"], "ndarray": ROWS}}),
    "fewer names than columns": Asked({"data": {"names": ["number", "wind"], "ndarray": ROWS}}),
    "tensor": Asked({"data": {"tensor": {"shape": [3, 3], "values": [v for row in ROWS for v in row]}}}),
    "tensor with names": Asked(
        {"data": {"names": list(INPUTS), "tensor": {"shape": [1, 3], "values": ROW[0]}}}
    ),
    "tensor of another shape": Asked({"data": {"tensor": {"shape": [2, 3], "values": [1, 2, 3]}}}),
    "tensor without shape": Asked({"data": {"tensor": {"values": [7, 3.5, 9]}}}),
    "numbers as texts": Asked({"data": {"ndarray": [["7", "3.5", "9"]]}}),
    "whole number as 9.0": Asked({"data": {"ndarray": [[7.0, 3.5, 9.0]]}}),
    "fraction for a whole number": Asked({"data": {"ndarray": [[7, 3.5, 9.5]]}}),
    "text for a number": Asked({"data": {"ndarray": [[7, "windy", 9]]}}),
    "null": Asked({"data": {"ndarray": [[7, None, 9]]}}),
    "NaN": Asked(b'{"data": {"ndarray": [[7, NaN, 9]]}}'),
    "number beyond a double": Asked(b'{"data": {"ndarray": [[7, 1e400, 9]]}}'),
    "puid": Asked({"meta": {"puid": "mine"}, **DATA}),
    "puid of another type": Asked({"meta": {"puid": 1}, **DATA}),
    "tags": Asked({"meta": {"tags": {"shop": "north", "till": 7}}, **DATA}),
    "metrics of the client": Asked({"meta": {"metrics": []}, **DATA}),
    "unknown meta": Asked({"meta": {"colour": "red"}, **DATA}),
    "column missing": Asked({"data": {"ndarray": [[7, 3.5]]}}),
    "column too many": Asked({"data": {"ndarray": [[7, 3.5, 9, 1]]}}),
    "flat": Asked({"data": {"ndarray": ROW[0]}}),
    "ragged": Asked({"data": {"ndarray": [[7, 3.5, 9], [8, 1.0]]}}),
    "no rows": Asked({"data": {"ndarray": []}}),
    "no data": Asked({}),
    "data empty": Asked({"data": {}}),
    "data null": Asked({"data": None}),
    "unknown key": Asked({**DATA, "colour": "red"}),
    "two forms": Asked({"data": {"ndarray": ROWS, "tensor": {"shape": [1, 3], "values": ROW[0]}}}),
    "list": Asked([DATA]),
    "number": Asked(1),
    "not JSON": Asked(b"hello"),
    "cut off": Asked(orjson.dumps(DATA)[:-1]),
    "empty body": Asked(b""),
    "key twice": Asked(b'{"data": {"ndarray": [[7, 3.5, 9]]}, "data": {"ndarray": [[8, 1.0, 2]]}}'),
    "strData": Asked({"strData": "hello"}),
    "binData": Asked({"binData": "aGVsbG8="}),
    "jsonData": Asked({"jsonData": dict(zip(INPUTS, ROW[0], strict=True))}),
    "form": _form(DATA),
    "plain text": Asked(DATA, headers={"content-type": "text/plain"}),
    "path /predict": Asked(DATA, path="/predict"),
    "path of version 0.1": Asked(DATA, path="/api/v0.1/predictions"),
    "path that is not there": Asked(DATA, path="/api/v1.0/prediction"),
    "method PUT": Asked(DATA, method="PUT"),
    "method GET": Asked(b"", method="GET"),
    "feedback on an answer": Asked(
        {"request": {"data": {"ndarray": ROW}}, "reward": 1.0, "truth": {"data": {"ndarray": [[1]]}}},
        path="/api/v1.0/feedback",
        answer_back=True,
    ),
    "feedback on no answer of ours": Asked(
        {"request": {"data": {"ndarray": ROW}}, "response": ANSWER, "truth": {"data": {"ndarray": [[1]]}}},
        path="/api/v1.0/feedback",
    ),
    "feedback by reward alone": Asked(
        {"request": {"data": {"ndarray": ROW}}, "reward": 1.0}, path="/api/v1.0/feedback", answer_back=True
    ),
    "feedback empty": Asked({}, path="/api/v1.0/feedback"),
    "feedback not JSON": Asked(b"hello", path="/api/v1.0/feedback"),
}


def _train() -> tuple[FeatureSchema, bytes]:
    """Return a model of the three numbers, and what it takes."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(1)
    matrix = random.uniform(0, 30, size=(200, 3)).astype(np.float32)
    model = LogisticRegression(C=1e-3).fit(matrix, matrix[:, 1] + random.normal(size=200) > 15)
    onnx = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, 3]))],
        options={"zipmap": False},
        target_opset={"": 21, "ai.onnx.ml": 3},
    )
    frame = pl.DataFrame(matrix.astype(np.float64), schema=list(INPUTS))
    return FeatureSchema.fit(frame), onnx.SerializeToString()


def make_bundle(root: Path) -> Path:
    """Write a bundle whose features are its inputs, let ``local`` serve it, and return the model's file."""
    features, onnx = _train()
    schema = BundleSchema(
        table="crossings",
        key=("number",),
        inputs=tuple(
            InputColumn(name=name, type="number" if name == "wind" else "integer", required=True)
            for name in INPUTS
        ),
        features=features,
        label="late",
        label_time="arrived_at",
        threshold=THRESHOLD,
    )
    checks = ("data_tests", "minimum_quality", "parity")
    files = {
        "model.yaml": CONTRACT.encode(),
        "features.py": FEATURES.encode(),
        "schema.json": schema.model_dump_json().encode(),
        "model.onnx": onnx,
        "verdicts.json": orjson.dumps(
            [Verdict(check=check, outcome=Outcome.PASS).model_dump() for check in checks]
        ),
        "baseline.json": b"{}",
        "background.json": b"{}",
        "metrics.json": b"{}",
    }
    workspace = Workspace.open(root)
    digest = write_bundle(
        workspace, files, model="crossing", run="run", data={}, signer=open_signer(workspace)
    )
    bundle = load_bundle(workspace, digest, open_trust_root(workspace))
    promote(
        workspace,
        bundle,
        environment="local",
        expected=read_pointer(workspace, "local", "crossing"),
        reason="test",
        as_of=datetime(2024, 3, 1, tzinfo=UTC),
    )
    path = root.parent / "model.onnx"
    path.write_bytes(onnx)
    return path


@dataclass(frozen=True)
class Both:
    """The addresses of both servers, HOST:PORT, and their clients over gRPC."""

    seldon: str
    ours: str
    seldon_calls: Calls
    our_calls: Calls


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    base = tmp_path_factory.mktemp("crossing")
    onnx = make_bundle(base / "workspace")
    commands = clients.python_of("seldon").parent
    port, grpc_port = _free_port(), _free_port()
    command = [
        *(str(commands / "seldon-core-microservice"), "crossing_model.Crossing", "--service-type", "MODEL"),
        *("--http-port", str(port), "--grpc-port", str(grpc_port), "--metrics-port", str(_free_port())),
    ]
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "CROSSING_ONNX": str(onnx),
        "CROSSING_THRESHOLD": str(THRESHOLD),
    }
    with (base / "seldon.log").open("wb") as log:
        peer = subprocess.Popen(
            command, cwd=clients.HERE, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        arguments = ["--log-folder", str(base / "log"), "--grpc-port", "0"]
        with Server(base / "workspace", arguments, {}, model="crossing") as server:
            found = Both(
                f"127.0.0.1:{port}",
                server.address.removeprefix("http://"),
                Calls.at(f"127.0.0.1:{grpc_port}"),
                Calls(server),
            )
            wait_for(lambda: _answers(found, peer), f"Seldon's server, see {base / 'seldon.log'}")
            yield found
            assert "Traceback" not in server.errors
    finally:
        os.killpg(peer.pid, 9)
        peer.wait()


def _answers(both: Both, peer: subprocess.Popen[bytes]) -> bool:
    """Whether Seldon's server answers over both: a process of its own does over gRPC."""
    assert peer.poll() is None, "Seldon's server ended"
    try:
        rest = ask(both.seldon, Asked(DATA)).outcome
    except OSError:
        return False
    return (rest, call(both.seldon_calls, Asked(DATA)).outcome) == ("200 ndarray", "OK ndarray")


def _send(address: str, asked: Asked) -> tuple[int, bytes]:
    body = asked.body if isinstance(asked.body, bytes) else orjson.dumps(asked.body)
    if asked.answer_back:
        _, answered = _send(address, Asked(asked.body["request"]))
        body = orjson.dumps({**asked.body, "response": orjson.loads(answered)})
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request(asked.method, asked.path, body, asked.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@dataclass(frozen=True)
class Said:
    """What a server said: its status and the form of its answer; what the answer holds; what is its own addition."""

    outcome: str
    content: dict[str, Any] = field(default_factory=dict)
    added: tuple[str, ...] = ()


def ask(address: str, asked: Asked) -> Said:
    """Ask a server, and read what it said."""
    status, body = _send(address, asked)
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Said(f"{status}, no JSON")
    if status != 200:
        known = isinstance(content.get("status"), dict)
        return Said(f"{status}" if known else f"{status}, not in Seldon's form")
    return _read(str(status), content)


def call(calls: Calls, asked: Asked) -> Said:
    """Ask a server the same over gRPC, and read what it said."""
    body = copy.deepcopy(asked.body)
    try:
        if not _is_feedback(asked):
            return _read("OK", _called(calls, "Predict", "SeldonMessage", body))
        if asked.answer_back:
            body["response"] = _called(calls, "Predict", "SeldonMessage", body["request"])
        return _read("OK", _called(calls, "SendFeedback", "Feedback", body))
    except grpc.RpcError as error:
        return Said(error.code().name)  # type: ignore[attr-defined]
    except json_format.SerializeToJsonError:  # Such as NaN.
        return Said("OK, no JSON")


def _called(calls: Calls, method: str, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    message = json_format.ParseDict(body, SELDON[kind]())
    return json_format.MessageToDict(calls.ask(MODEL + method, message, SELDON["SeldonMessage"]))


def _is_feedback(asked: Asked) -> bool:
    return asked.path.endswith("/feedback")


def spoken_over_grpc(asked: Asked) -> bool:
    """Whether a request can be said in Seldon's messages: it is no matter of HTTP, of JSON, or of other keys."""
    usual = Asked(None)
    if not isinstance(asked.body, dict) or (asked.headers, asked.method) != (usual.headers, usual.method):
        return False
    if not _is_feedback(asked) and asked.path != usual.path:
        return False
    try:
        json_format.ParseDict(asked.body, SELDON["Feedback" if _is_feedback(asked) else "SeldonMessage"]())
    except json_format.ParseError:
        return False
    return True


def _read(status: str, content: dict[str, Any]) -> Said:
    """Take an answer apart, which is written the same over both."""
    data, meta = content.get("data", {}), content.get("meta", {})
    forms = [key for key in ("ndarray", "tensor") if key in data] or [key for key in content if key != "meta"]
    tags = meta.get("tags", {})
    own = sorted({"bundle", "prediction_id"} & set(tags))
    puid = meta.get("puid")
    added = [f"tag {name}" for name in own]
    added += ["metrics"] if meta.get("metrics") else []
    added += ["requestPath"] if meta.get("requestPath") else []
    added += ["puid"] if puid not in (None, "mine") else []
    return Said(
        f"{status} {', '.join(forms)}",
        {
            **_numbers(data),
            "names": data.get("names"),
            "puid": puid if puid == "mine" else None,
            "tags": {key: value for key, value in tags.items() if key not in own},
        },
        tuple(added),
    )


def _numbers(data: dict[str, Any]) -> dict[str, Any]:
    tensor = data.get("tensor", {})
    values = tensor.get("values", []) if "tensor" in data else data.get("ndarray", [])
    shape = tensor.get("shape") if "tensor" in data else list(np.shape(values))
    return {"shape": shape, "values": np.round(np.array(values, dtype=np.float64).ravel(), 5).tolist()}


def compare(asked: dict[str, tuple[Said, Said]]) -> dict[str, tuple[str, str]]:
    """Return where both differ, by case: what Seldon's server said, what ours said."""
    found = {}
    for case, (seldon, ours) in asked.items():
        if seldon.outcome != ours.outcome:
            found[case] = (seldon.outcome, ours.outcome)
        elif seldon.content != ours.content:
            other = [key for key, value in seldon.content.items() if ours.content[key] != value]
            found[case] = (seldon.outcome, f"{ours.outcome}, other {', '.join(other)}")
    return found


def documented(page: str) -> dict[str, tuple[str, str]]:
    """Return the differences that are meant, as a part of the page lists them."""
    rows = re.findall(r"^\| `([^`]+)` \|[^|]*\| ([^|]+) \| ([^|]+) \|", page, flags=re.MULTILINE)
    return {case: (seldon, ours) for case, seldon, ours in rows}


def check(asked: dict[str, tuple[Said, Said]], meant: dict[str, tuple[str, str]]) -> None:
    """Print what differs, and fail if it is not what is meant."""
    found = compare(asked)
    print()
    for case, (seldon, ours) in found.items():
        print(f"{case}: seldon-core-microservice says {seldon}; Seatrial says {ours}")
    print(f"{len(asked)} requests, {len(found)} answered otherwise")
    assert found == meant


def test_differences_are_the_documented_ones(both: Both) -> None:
    """Asked the same, both servers answer the same, but for exactly the differences that the page lists."""
    asked = {case: (ask(both.seldon, one), ask(both.ours, one)) for case, one in CASES.items()}
    check(asked, documented(PAGE.read_text().partition(OVER_GRPC)[0]))


def test_differences_over_grpc_are_the_documented_ones(both: Both) -> None:
    """Over gRPC both differ as over REST, in all that can be said there, but for what the page adds."""
    asked = {
        case: (call(both.seldon_calls, one), call(both.our_calls, one))
        for case, one in CASES.items()
        if spoken_over_grpc(one)
    }
    assert len(asked) > 20
    rest, _, added = PAGE.read_text().partition(OVER_GRPC)
    meant = {
        case: (CODES[seldon], CODES[ours])
        for case, (seldon, ours) in documented(rest).items()
        if case in asked
    }
    check(asked, meant | documented(added))


def test_additions_are_the_documented_ones(both: Both) -> None:
    """Our answers have what Seldon's have, and beyond that what the page lists."""
    for seldon, ours in (
        (ask(both.seldon, CASES["ndarray"]), ask(both.ours, CASES["ndarray"])),
        (call(both.seldon_calls, CASES["ndarray"]), call(both.our_calls, CASES["ndarray"])),
    ):
        assert seldon.added == ()
        assert ours.added == ("tag bundle", "tag prediction_id", "metrics", "requestPath", "puid")
        assert all(f"`{name.split()[-1]}`" in PAGE.read_text() for name in ours.added)
