"""Whatever comes over any protocol: an answer that is right by its form, or an error that is the client's."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime
from typing import Any

import grpc
import hypothesis.strategies as st
import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from tests.local.serving.conftest import INPUTS, Ferry, Server, crossings, infer_body
from tests.local.serving.test_bad_requests import JSON, VALUES
from tests.local.serving.test_grpc import MODEL, OIP, Calls, request

from seatrial.bundle import open_trust_root
from seatrial.errors import FeatureError, RequestError
from seatrial.feedback.recent import RecentPredictions
from seatrial.server.batching import Predictor
from seatrial.server.binary import write_elements
from seatrial.server.grpc_inference import read_inference
from seatrial.server.holder import ModelHolder
from seatrial.server.messages import INFERENCE
from seatrial.server.metrics import Metrics
from seatrial.server.model import load_model
from seatrial.server.requests import parse_infer
from seatrial.server.service import Service

ROWS = [
    orjson.loads(orjson.dumps({**row, "wind": 3.5, "passengers": 9}))
    for row in crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)[:2]
]
PLAIN = [[row[name] for name in INPUTS] for row in ROWS]


@pytest.fixture(scope="module")
def service(trained_ferry: Ferry) -> Service:
    workspace = trained_ferry.workspace
    trust = open_trust_root(workspace)
    model = load_model(workspace, "ferry", trained_ferry.digests[0], trust)
    recent, metrics = RecentPredictions(), Metrics()
    predictor = Predictor(None, recent, metrics)
    return Service(ModelHolder(workspace, trust, model, None), None, recent, predictor, metrics)


@st.composite
def messages(draw: st.DrawFn) -> Any:
    """Messages of Seldon's that are nearly right: a few places of a good one hold anything."""
    rows: Any = copy.deepcopy(PLAIN)
    for _ in range(draw(st.integers(0, 3))):
        rows[draw(st.integers(0, 1))][draw(st.integers(0, len(INPUTS) - 1))] = draw(VALUES)
    data = draw(
        st.sampled_from(
            [
                {"data": {"ndarray": rows}},
                {"data": {"names": list(INPUTS), "ndarray": rows}},
                {"data": {"tensor": {"shape": [2, 6], "values": [item for row in rows for item in row]}}},
                {"jsonData": [dict(zip(INPUTS, row, strict=True)) for row in rows]},
            ]
        )
    )
    if draw(st.booleans()):
        data[draw(st.sampled_from(["meta", "data", "jsonData", "strData", "status", "other"]))] = draw(JSON)
    return data


@settings(max_examples=200, deadline=None)
@given(message=messages() | st.dictionaries(st.sampled_from(["data", "jsonData", "meta"]), JSON))
@example(message={"data": {"ndarray": []}, "meta": -(2**63) - 1})
def test_any_message_of_seldons_is_answered_or_refused(service: Service, message: dict[str, Any]) -> None:
    """A probability for each row, or an error that is the client's; nothing else is ever raised."""
    try:
        answer = asyncio.run(service.predict_message(message, "a test"))
    except (RequestError, FeatureError):
        return
    ids = answer["meta"]["tags"]["prediction_id"]
    assert len(ids) in (1, 2)
    assert orjson.loads(orjson.dumps(answer["meta"]["tags"]["prediction_id"])) == ids


@settings(max_examples=200, deadline=None)
@given(
    message=st.dictionaries(st.sampled_from(["response", "truth", "reward", "request"]), JSON)
    | st.fixed_dictionaries(
        {
            "response": st.fixed_dictionaries(
                {"meta": st.fixed_dictionaries({"tags": st.fixed_dictionaries({"prediction_id": VALUES})})}
            ),
            "truth": st.fixed_dictionaries({"jsonData": VALUES}),
        }
    )
)
def test_any_feedback_of_seldons_is_taken_or_refused(service: Service, message: dict[str, Any]) -> None:
    """Whatever comes as feedback is told what became of it, or what is wrong."""
    try:
        answer = asyncio.run(service.feedback_message(message))
    except RequestError:
        return
    assert sum(answer["jsonData"]["counts"].values()) == len(answer["jsonData"]["results"])


@settings(max_examples=200, deadline=None)
@given(size=st.integers(-5, 200), header=st.integers(0, 900), content=st.binary(max_size=80))
def test_any_bytes_after_the_json_are_read_or_refused(
    service: Service, size: int, header: int, content: bytes
) -> None:
    """Binary tensors of any length, and headers that lie, end in rows or in an error that is the client's."""
    body = orjson.loads(orjson.dumps(infer_body(ROWS)))
    for tensor in body["inputs"][2:4]:
        tensor["parameters"] = {"binary_data_size": size}
        del tensor["data"]
    right = write_elements(["north", "south"], "BYTES") + write_elements([1.0, 2.0], "FP64")
    text = orjson.dumps(body)
    for length, tail in ((len(text), content), (len(text), right), (header, content)):
        try:
            read = parse_infer(
                text + tail, service.model.schema.inputs, maximum_rows=2000, header_length=length
            )
        except RequestError:
            continue
        assert len(read.rows) == 2


GOOD = (request(ROWS).SerializeToString(), request(ROWS, raw=True).SerializeToString())


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Messages with some of their bytes changed, cut off or doubled."""
    content = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(content) - 1))
        content[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(content)


@settings(max_examples=300, deadline=None)
@given(content=damaged() | st.binary(max_size=200))
def test_any_bytes_over_grpc_are_read_or_refused(service: Service, content: bytes) -> None:
    """Damaged messages are no message, or are read, or are the client's fault."""
    try:
        message = INFERENCE["ModelInferRequest"].FromString(content)
        read = read_inference(message, service.model.schema.inputs, maximum_rows=2000)
    except (DecodeError, RequestError):
        return
    assert all(len(row) == len(INPUTS) for row in read.rows)


@pytest.fixture(scope="module")
def calls(server: Server) -> Calls:
    return Calls(server)


@pytest.mark.parametrize(
    "method", [OIP + "ModelStreamInfer", MODEL + "TransformInput", "/seldon.protos.Router/Route"]
)
def test_what_is_not_there_disturbs_nobody(calls: Calls, method: str) -> None:
    """A call that is not implemented is told so, and the next one is answered (threats: V10)."""
    assert calls.fail(method, b"")[0] == grpc.StatusCode.UNIMPLEMENTED
    assert calls.infer(request(ROWS))["probability"]
