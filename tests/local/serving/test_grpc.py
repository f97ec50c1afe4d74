"""gRPC: both protocols and health checks at one port, over the same model, limits and log as REST."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from google.protobuf import json_format
from tests.local.serving.conftest import INPUTS, Ferry, Server, crossings, infer_body, outputs, wait_for
from tests.local.serving.test_process import refused

from seatrial.bundle import open_trust_root
from seatrial.feedback import join_outcomes, read_predictions
from seatrial.feedback.recent import RecentPredictions
from seatrial.server.batching import Predictor
from seatrial.server.binary import read_elements, write_elements
from seatrial.server.grpc_server import GrpcServer
from seatrial.server.holder import ModelHolder
from seatrial.server.messages import EMPTY, HEALTH, INFERENCE, SELDON
from seatrial.server.metrics import Metrics
from seatrial.server.model import load_model
from seatrial.server.service import Service

pytestmark = pytest.mark.usefixtures("measured_processes")

ROWS = [
    orjson.loads(orjson.dumps({**row, "wind": 3.5 + place, "passengers": 9}))
    for place, row in enumerate(crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)[:3])
]
PLAIN = [[row[name] for name in INPUTS] for row in ROWS]
FIELDS = {
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "BOOL": "bool_contents",
    "BYTES": "bytes_contents",
}
OIP = "/inference.GRPCInferenceService/"
MODEL, SELDON_SERVICE = "/seldon.protos.Model/", "/seldon.protos.Seldon/"


class Calls:
    """A client that sends bytes, right or wrong."""

    def __init__(self, server: Server) -> None:
        assert server.process.stdout is not None
        line = server.process.stdout.readline().decode()
        self._call(f"127.0.0.1:{line.rsplit(' ', 1)[1].strip()}")

    @classmethod
    def at(cls, address: str) -> Calls:
        """Return a client of whatever is at an address."""
        made = cls.__new__(cls)
        made._call(address)
        return made

    def _call(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)

    def send(self, method: str, content: bytes, **metadata: str) -> bytes:
        call = self.channel.unary_unary(method)
        sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        answer: bytes = call(content, timeout=60, metadata=sent)
        return answer

    def ask(self, method: str, message: Any, answer: Any, **metadata: str) -> Any:
        return answer.FromString(self.send(method, message.SerializeToString(), **metadata))

    def fail(self, method: str, content: bytes) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as raised:
            self.send(method, content)
        return raised.value.code(), raised.value.details()

    def infer(self, message: Any) -> dict[str, Any]:
        answer = self.ask(OIP + "ModelInfer", message, INFERENCE["ModelInferResponse"])
        found = {}
        for place, tensor in enumerate(answer.outputs):
            if answer.raw_output_contents:
                raw = answer.raw_output_contents[place]
                found[tensor.name] = read_elements(raw, tensor.datatype, tensor.shape[0], "raw")
            else:
                values = list(getattr(tensor.contents, FIELDS[tensor.datatype]))
                found[tensor.name] = [v.decode() if isinstance(v, bytes) else v for v in values]
        return found


def request(rows: list[dict[str, Any]], *, raw: bool = False, **more: Any) -> Any:
    """Return the message that asks for predictions of ``rows``."""
    message = INFERENCE["ModelInferRequest"](**{"model_name": "ferry", **more})
    for tensor in infer_body(rows)["inputs"]:
        added = message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        if raw:
            message.raw_input_contents.append(write_elements(tensor["data"], tensor["datatype"]))
        else:
            values = [v.encode() if isinstance(v, str) else v for v in tensor["data"]]
            getattr(added.contents, FIELDS[tensor["datatype"]]).extend(values)
    return message


def seldon(content: dict[str, Any], kind: str = "SeldonMessage") -> Any:
    return json_format.ParseDict(content, SELDON[kind]())


@pytest.fixture(scope="module")
def calls(server: Server) -> Calls:
    return Calls(server)


@pytest.mark.parametrize("raw", [False, True])
def test_answers_as_over_rest(server: Server, calls: Calls, raw: bool) -> None:
    """Typed and raw tensors are answered in their own form, with the values that REST answers."""
    expected = outputs(server.infer(ROWS))
    answer = calls.ask(OIP + "ModelInfer", request(ROWS, raw=raw, id="mine"), INFERENCE["ModelInferResponse"])
    assert (answer.model_name, answer.id) == ("ferry", "mine")
    assert answer.model_version == answer.parameters["bundle"].string_param
    assert len(answer.raw_output_contents) == (3 if raw else 0)
    found = calls.infer(request(ROWS, raw=raw))
    assert (found["probability"], found["flagged"]) == (expected["probability"], expected["flagged"])
    assert len({*found["prediction_id"], *expected["prediction_id"]}) == 2 * len(ROWS)
    few = request(ROWS, raw=raw, model_version=answer.model_version)
    few.outputs.add(name="flagged")
    assert calls.infer(few) == {"flagged": expected["flagged"]}


def test_describes_itself(server: Server, calls: Calls) -> None:
    """Metadata and health are those of REST."""
    described = calls.ask(
        OIP + "ModelMetadata",
        INFERENCE["ModelMetadataRequest"](name="ferry"),
        INFERENCE["ModelMetadataResponse"],
    )
    over_rest = server.get("/v2/models/ferry").content
    assert list(described.versions) == over_rest["versions"]
    for side in ("inputs", "outputs"):
        found = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in getattr(described, side)]
        assert found == [(t["name"], t["datatype"], t["shape"]) for t in over_rest[side]]
    metadata = calls.ask(OIP + "ServerMetadata", EMPTY(), INFERENCE["ServerMetadataResponse"])
    assert list(metadata.extensions) == server.get("/v2").content["extensions"]
    for method in ("ServerLive", "ServerReady", "ModelReady"):
        answer = calls.ask(
            OIP + method,
            INFERENCE[f"{method}Request"](**({"name": "ferry"} if method == "ModelReady" else {})),
            INFERENCE[f"{method}Response"],
        )
        assert answer.live if method == "ServerLive" else answer.ready
    graph = calls.ask(SELDON_SERVICE + "GraphMetadata", EMPTY(), SELDON["SeldonGraphMetadata"])
    model = calls.ask(MODEL + "Metadata", EMPTY(), SELDON["SeldonModelMetadata"])
    assert graph.models["ferry"] == model
    assert model.versions == described.versions
    for name in ("", "inference.GRPCInferenceService", "seldon.protos.Seldon"):
        asked = HEALTH["HealthCheckRequest"](service=name)
        assert calls.ask("/grpc.health.v1.Health/Check", asked, HEALTH["HealthCheckResponse"]).status == 1


@pytest.mark.parametrize("service", [MODEL, SELDON_SERVICE])
def test_seldon_answers_and_learns(ferry: Ferry, service: str) -> None:
    """Seldon's messages are answered as over REST, are in the same log, and their feedback joins."""
    message = {"meta": {"puid": "mine", "tags": {"a": "b"}}, "data": {"ndarray": PLAIN}}
    with ferry.serve("--grpc-port", "0") as server:
        calls = Calls(server)
        expected = server.post("/predict", message).content
        answer = calls.ask(
            service + "Predict", seldon(message), SELDON["SeldonMessage"], seatrial_client="me"
        )
        found = json_format.MessageToDict(answer)
        assert found["data"] == expected["data"]
        assert (found["meta"]["puid"], found["meta"]["tags"]["a"]) == ("mine", "b")
        feedback = {"response": found, "truth": {"data": {"ndarray": [[1], [0], [1]]}}}
        told = calls.ask(service + "SendFeedback", seldon(feedback, "Feedback"), SELDON["SeldonMessage"])
        assert json_format.MessageToDict(told)["jsonData"]["counts"]["accepted"] == 3
        assert server.stop() == 0
    ids = found["meta"]["tags"]["prediction_id"]
    kept = read_predictions(ferry.workspace, "ferry").filter(client="me").sort("prediction_id")
    assert kept["prediction_id"].to_list() == sorted(ids)
    assert kept["request_id"].to_list() == ["mine"] * 3
    joined = dict(join_outcomes(ferry.workspace, "ferry").select("prediction_id", "outcome").iter_rows())
    assert [joined[name] for name in ids] == [1.0, 0.0, 1.0]


def changed(place: int, raw: bool = False, **keys: Any) -> bytes:
    """Return the good request with one of its tensors changed."""
    message = request(ROWS, raw=raw)
    for key, value in keys.items():
        if key == "shape":
            message.inputs[place].shape[:] = value
        elif key == "raw_content":
            message.raw_input_contents[place] = value
        else:
            setattr(message.inputs[place], key, value)
    return bytes(message.SerializeToString())


def with_both() -> bytes:
    message = request(ROWS, raw=True)
    message.inputs[3].contents.fp64_contents.extend([1.0, 2.0, 3.0])
    return bytes(message.SerializeToString())


GOOD = request(ROWS).SerializeToString()
NAN = np.array([np.nan, 1, 2]).tobytes()
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
WRONG: dict[str, tuple[str, bytes, grpc.StatusCode, str]] = {
    "empty": (OIP + "ModelInfer", b"", NOT_FOUND, "There is no model ''"),
    "other model": (OIP + "ModelReady", b"\n\x05other", NOT_FOUND, "There is no model 'other' here"),
    "other version": (
        OIP + "ModelInfer",
        request(ROWS, model_version="1").SerializeToString(),
        NOT_FOUND,
        "The version served is",
    ),
    "no inputs": (OIP + "ModelInfer", b"\n\x05ferry", INVALID, "'inputs' must be a list of tensors"),
    "raw of another number": (
        OIP + "ModelInfer",
        GOOD + b"\x3a\x01a",
        INVALID,
        "raw_input_contents must have one entry for each of the 6 inputs. Got 1",
    ),
    "raw and typed": (OIP + "ModelInfer", with_both(), INVALID, "Got both instead"),
    "raw of another length": (
        OIP + "ModelInfer",
        changed(3, raw=True, raw_content=b"12345"),
        INVALID,
        "inputs[3] (wind).data must have 24 bytes: 3 times FP64. Got 5",
    ),
    "raw text too short": (
        OIP + "ModelInfer",
        changed(2, raw=True, raw_content=b"\xff\xff\xff\xff"),
        INVALID,
        "(line).data[0] must have as many bytes as its length says",
    ),
    "raw text too long": (
        OIP + "ModelInfer",
        changed(2, raw=True, raw_content=b"\x00" * 16),
        INVALID,
        "(line).data must have 3 texts. Got 4 bytes more",
    ),
    "raw text not UTF-8": (
        OIP + "ModelInfer",
        changed(2, raw=True, raw_content=b"\x01\x00\x00\x00\xff" * 3),
        INVALID,
        "(line).data[0] must be a text in UTF-8",
    ),
    "other datatype": (OIP + "ModelInfer", changed(3, datatype="FP16"), INVALID, "datatype must be FP64"),
    "other field": (OIP + "ModelInfer", changed(3, datatype="FP32"), INVALID, "must have 3 values"),
    "long id": (
        OIP + "ModelInfer",
        request(ROWS, id="x" * 201).SerializeToString(),
        INVALID,
        "'id' must be a text of at most 200",
    ),
    "seldon empty": (MODEL + "Predict", b"", INVALID, "The message must have either 'data' or 'jsonData'"),
    "seldon any": (
        MODEL + "Predict",
        SELDON["SeldonMessage"](customData={"type_url": "a/b", "value": b"x"}).SerializeToString(),
        INVALID,
        "The message must have values that JSON has",
    ),
    "seldon feedback": (
        SELDON_SERVICE + "SendFeedback",
        b"",
        INVALID,
        "response.meta.tags.prediction_id must be",
    ),
    "health of another": ("/grpc.health.v1.Health/Check", b"\n\x01x", NOT_FOUND, "There is no service 'x'"),
    "not implemented": (OIP + "ModelStreamInfer", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
    "another service": ("/a.b/C", b"", grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
}


@pytest.mark.parametrize("case", WRONG)
def test_malformed_call_is_refused(calls: Calls, case: str) -> None:
    """Each fault is the client's by its status, says what would be right, and the server goes on."""
    method, content, status, expected = WRONG[case]
    code, details = calls.fail(method, content)
    assert code == status, details
    assert expected in details
    assert len(details) < 400
    assert calls.infer(request(ROWS[:1]))["probability"]


def test_calls_are_counted(server: Server, calls: Calls) -> None:
    """Answers and refusals over gRPC are in the same figures as those over REST."""
    calls.infer(request(ROWS))
    calls.fail(OIP + "ModelInfer", b"hello")
    text = subprocess.run(
        ["curl", "-s", f"{server.address}/metrics"], capture_output=True, text=True, check=True
    ).stdout
    assert 'seatrial_requests_total{endpoint="grpc_infer",status="200"}' in text
    assert 'seatrial_requests_total{endpoint="grpc_infer",status="400"}' in text


def test_nonsense_does_not_disturb(calls: Calls) -> None:
    """What is no HTTP/2, or only its beginning, ends that connection only."""
    host, port = calls.address.split(":")
    for raw in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass
    assert calls.infer(request(ROWS[:1]))["probability"]


def test_drains(ferry: Ferry) -> None:
    """While it drains it is not ready and answers still; then it ends with 0, and nothing answered is lost."""
    with ferry.serve("--grpc-port", "0", "--drain", "600") as server:
        calls = Calls(server)
        ids = calls.infer(request(ROWS))["prediction_id"]
        server.process.terminate()
        wait_for(
            lambda: not calls.ask(OIP + "ServerReady", EMPTY(), INFERENCE["ServerReadyResponse"]).ready,
            "the draining",
        )
        asked = HEALTH["HealthCheckRequest"]()
        assert calls.ask("/grpc.health.v1.Health/Check", asked, HEALTH["HealthCheckResponse"]).status == 2
        ids += calls.infer(request(ROWS))["prediction_id"]
        server.process.send_signal(signal.SIGINT)  # Without the drain.
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.errors
    assert set(ids) <= set(read_predictions(ferry.workspace, "ferry")["prediction_id"])


def test_half_a_call_ends(trained_ferry: Ferry, tmp_path: Path) -> None:
    """A call whose message does not come is ended, so that it holds no place for others."""
    workspace = trained_ferry.workspace
    trust = open_trust_root(workspace)
    model = load_model(workspace, "ferry", trained_ferry.digests[0], trust)
    recent, metrics = RecentPredictions(), Metrics()
    holder = ModelHolder(workspace, trust, model, None)
    service = Service(holder, None, recent, Predictor(None, recent, metrics), metrics)

    async def ask() -> grpc.StatusCode:
        stop = asyncio.Event()
        answering = GrpcServer(service, "127.0.0.1", 0)
        answering._seconds = 0.1
        running = asyncio.create_task(answering.run(stop))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{answering.port}") as channel:
            code = await channel.stream_unary(OIP + "ModelInfer")().code()
        stop.set()
        await running
        return code

    assert asyncio.run(ask()) == grpc.StatusCode.DEADLINE_EXCEEDED


def test_takes_no_port_that_is_taken(ferry: Ferry) -> None:
    """A port for gRPC that is taken ends the start with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = refused(ferry, "--grpc-port", str(taken.getsockname()[1]))
    assert found.returncode == 2
    assert "--grpc-port 0" in found.stderr
