"""gRPC's calls that stay open: health that is watched, and a client that asks what is spoken here."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tests.local.serving.conftest import Ferry, Server, outputs, wait_for
from tests.local.serving.test_grpc import OIP, ROWS, Calls, request

from seatrial.server.grpc_streams import NOT_SERVING, REFLECTION, SERVICE_UNKNOWN, SERVING, STREAMS
from seatrial.server.messages import HEALTH

WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def calls(server: Server) -> Calls:
    return Calls(server)


def watch(calls: Calls, service: str = "") -> Any:
    """Watch a service; the call yields its states."""
    call = calls.channel.unary_stream(WATCH, response_deserializer=HEALTH["HealthCheckResponse"].FromString)
    return call(HEALTH["HealthCheckRequest"](service=service).SerializeToString(), timeout=120)


def states(watching: Any) -> Iterator[int]:
    return (message.status for message in watching)


def test_client_learns_all_by_reflection(server: Server, calls: Calls) -> None:
    """A client that knows nothing but the address learns services and messages, and predicts with what it learnt."""
    learnt = ProtoReflectionDescriptorDatabase(calls.channel)
    assert {"inference.GRPCInferenceService", "seldon.protos.Model", "grpc.health.v1.Health"} <= set(
        learnt.get_services()
    )
    assert set(REFLECTION) <= set(learnt.get_services())
    pool = descriptor_pool.DescriptorPool(learnt)
    method = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    asked, answered = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
    message = json_format.ParseDict(json_format.MessageToDict(request(ROWS)), asked())
    found = calls.ask(OIP + "ModelInfer", message, answered)
    probability = next(tensor for tensor in found.outputs if tensor.name == "probability")
    assert list(probability.contents.fp64_contents) == outputs(server.infer(ROWS))["probability"]
    (watching,) = pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"].output_type.fields
    assert "SERVICE_UNKNOWN" in watching.enum_type.values_by_name


def test_newer_name_of_reflection_is_answered(calls: Calls) -> None:
    """The protocol's newer name, by which clients ask first, has the same answers; nonsense ends that call only."""
    newer, older = (calls.channel.stream_stream(f"/{name}/ServerReflectionInfo") for name in REFLECTION)
    listing = b"\x3a\x00"  # list_services of a ServerReflectionRequest.
    (answer,) = newer(iter([listing]), timeout=60)
    assert b"inference.GRPCInferenceService" in answer
    assert [answer] == list(older(iter([listing]), timeout=60))
    with pytest.raises(grpc.RpcError) as raised:
        list(newer(iter([b"nonsense"]), timeout=60))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_watching_sees_the_end_coming(ferry: Ferry) -> None:
    """Who watches is told the state now and when the server drains; a watch that stays open holds up no end."""
    with ferry.serve("--grpc-port", "0", "--drain", "600") as server:
        calls = Calls(server)
        whole, one, none = (states(watch(calls, name)) for name in ("", "seldon.protos.Model", "a.B"))
        assert [next(watching) for watching in (whole, one, none)] == [SERVING, SERVING, SERVICE_UNKNOWN]
        server.process.terminate()
        assert [next(whole), next(one)] == [NOT_SERVING, NOT_SERVING]
        assert next(states(watch(calls))) == NOT_SERVING
        server.process.send_signal(signal.SIGINT)  # Without the drain.
        assert [list(watching) for watching in (whole, one, none)] == [[], [], []]
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.errors


def test_streams_take_no_places_of_predictions(calls: Calls) -> None:
    """There are few streams: one more is refused at once, predictions go on, and one that ends makes room."""
    watching = [watch(calls) for _ in range(STREAMS)]
    assert [next(states(one)) for one in watching] == [SERVING] * STREAMS
    with pytest.raises(grpc.RpcError) as raised:
        next(watch(calls))
    assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert calls.infer(request(ROWS))["probability"]
    watching[0].cancel()

    def has_room() -> bool:
        try:
            watching.append(watch(calls))
            return next(states(watching[-1])) == SERVING
        except grpc.RpcError:
            return False

    wait_for(has_room, "a stream's end to make room")
    for one in watching:
        one.cancel()
