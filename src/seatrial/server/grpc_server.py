"""gRPC: the Open Inference Protocol, Seldon's protocol and gRPC's health checks at one port.

It shares the event loop, the model, the batches, the limits and the log with REST: only how a request is written
differs. Each message is read as bytes and parsed here, so that what is no protobuf is the client's fault and
is told so, and within a time limit, so that half a message holds no place for long. Where a call is not
implemented, the library says so (threats: V1, V3, V10, I12).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from seatrial.errors import RequestError, UsageError
from seatrial.server.faults import describe_fault
from seatrial.server.grpc_inference import read_inference, write_description, write_inference
from seatrial.server.grpc_streams import REFLECTION, SERVICE_UNKNOWN, STREAMS, Streams
from seatrial.server.http import CLIENT_HEADER, PUID_HEADER, client_alias
from seatrial.server.http1 import Limits
from seatrial.server.messages import HEALTH, INFERENCE, SELDON, request_of
from seatrial.server.service import Service
from seatrial.server.tracing import Trace, Traces, tracing

_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_HEALTH = "grpc.health.v1.Health"
_PLACES_BESIDE = 64
"""Calls at once beyond those that may wait for a prediction."""

Answering = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]


@dataclass(frozen=True)
class _Call:
    """A call: its name in the metrics, and what answers it."""

    name: str
    answer: Answering


class GrpcServer:
    """Answers calls.

    Args:
        service: What it answers with.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        traces: Takes what the time of calls is spent on; None: nobody wants to know.

    Raises:
        UsageError: if the address cannot be listened at.
    """

    def __init__(self, service: Service, host: str, port: int, traces: Traces | None = None) -> None:
        self._service = service
        self._traces = traces
        self._seconds = Limits.body_seconds
        limits = service.model.limits
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", limits.maximum_request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_connection_idle_ms", int(Limits.idle_seconds * 1000)),
                ("grpc.server_handshake_timeout_ms", int(Limits.head_seconds * 1000)),
                ("grpc.so_reuseport", 0),
            ),
            maximum_concurrent_rpcs=limits.maximum_waiting + _PLACES_BESIDE + STREAMS,
        )
        self._streams = Streams(frozenset(self._calls()), lambda: service.draining, self._seconds)
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(name, methods)
                for name, methods in self._handlers().items()
            )
        )
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise UsageError(
                f"The server cannot listen for gRPC at {address}: {error}.",
                remedy="Choose another port: --grpc-port 0",
            ) from None

    def drain(self) -> None:
        """Tell those who watch that the server is about to end."""
        self._streams.tell()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, and then until every call that has begun is answered."""
        await self._server.start()
        await stop.wait()
        self._streams.end()
        await self._server.stop(self._seconds)

    def _calls(self) -> dict[str, dict[str, _Call]]:
        """Return all calls that have one answer, by service and method."""
        seldon = {
            "Predict": _Call("grpc_seldon_predict", self._predict),
            "SendFeedback": _Call("grpc_seldon_feedback", self._feedback),
        }
        metadata = _Call("grpc_metadata", self._seldon_metadata)
        return {
            "inference.GRPCInferenceService": {
                "ServerLive": _Call("grpc_health", self._server_live),
                "ServerReady": _Call("grpc_health", self._server_ready),
                "ModelReady": _Call("grpc_health", self._model_ready),
                "ServerMetadata": _Call("grpc_metadata", self._server_metadata),
                "ModelMetadata": _Call("grpc_metadata", self._model_metadata),
                "ModelInfer": _Call("grpc_infer", self._infer),
            },
            "seldon.protos.Model": {**seldon, "Metadata": metadata},
            "seldon.protos.Seldon": {
                **seldon,
                "ModelMetadata": metadata,
                "GraphMetadata": _Call("grpc_metadata", self._graph_metadata),
            },
            _HEALTH: {"Check": _Call("grpc_health", self._check)},
        }

    def _handlers(self) -> dict[str, dict[str, Any]]:
        """Return what answers, by service and method."""
        found: dict[str, dict[str, Any]] = {
            service: {method: self._handler(service, method, call) for method, call in calls.items()}
            for service, calls in self._calls().items()
        }
        found[_HEALTH]["Watch"] = self._stream_handler("grpc_watch", self._watch)
        for service in REFLECTION:
            found[service] = {
                "ServerReflectionInfo": self._stream_handler("grpc_reflection", self._streams.reflect)
            }
        return found

    def _stream_handler(
        self, name: str, answer: Callable[[grpc.aio.ServicerContext], Awaitable[None]]
    ) -> Any:
        """Return what answers a call that stays open."""

        async def stream(_: Any, context: grpc.aio.ServicerContext) -> None:
            try:
                await answer(context)
            except Exception as error:  # noqa: BLE001 -- the client gets an answer, the log the traceback
                await self._fail(name, context, error, None)
            else:
                self._service.metrics.count(name, 200)

        return grpc.stream_stream_rpc_method_handler(stream)

    async def _watch(self, context: grpc.aio.ServicerContext) -> None:
        await self._streams.watch(await self._read(request_of(_HEALTH, "Watch"), context), context)

    def _handler(self, service: str, method: str, call: _Call) -> Any:
        """Return what answers a call: as if its one message were a stream, so that waiting for it has an end."""
        request = request_of(service, method)

        async def answer(_: Any, context: grpc.aio.ServicerContext) -> bytes:
            started = time.perf_counter()
            trace = self._begin_trace(service, method, context)
            try:
                with tracing(trace):
                    message = await self._read(request, context)
                    found: bytes = (await call.answer(message, context)).SerializeToString()
            except asyncio.CancelledError:
                if trace is not None:
                    _end_trace(trace, grpc.StatusCode.CANCELLED)
                raise
            except Exception as error:
                await self._fail(call.name, context, error, trace)
                raise  # Not reached: failing ends the call.
            self._service.metrics.observe(call.name, time.perf_counter() - started)
            if trace is not None:
                _end_trace(trace, grpc.StatusCode.OK)
            return found

        return grpc.stream_unary_rpc_method_handler(answer)

    async def _read(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            content = await asyncio.wait_for(context.read(), self._seconds)
        except TimeoutError:
            raise RequestError(
                f"The message did not arrive within {self._seconds:g} seconds.", status=408
            ) from None
        if not isinstance(content, bytes):
            raise RequestError("The call must have a message. Got none instead.")
        try:
            return request.FromString(content)
        except DecodeError as error:
            raise RequestError(f"The message must be a {request.__name__}. {error}.") from None

    def _begin_trace(self, service: str, method: str, context: grpc.aio.ServicerContext) -> Trace | None:
        if self._traces is None:
            return None
        headers = {name: value for name, value in _metadata(context).items() if isinstance(value, str)}
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        return self._traces.begin(f"{service}/{method}", headers, attributes)

    async def _fail(
        self, name: str, context: grpc.aio.ServicerContext, error: Exception, trace: Trace | None
    ) -> None:
        discreet = self._service.model.concealer is not None
        status, message = describe_fault(error, name, discreet=discreet)
        self._service.metrics.count(name, status)
        again = (("retry-after", "1"),) if status in (429, 503) else ()
        code = _STATUS.get(status, grpc.StatusCode.INTERNAL)
        if trace is not None:
            _end_trace(trace, code)
        await context.abort(code, message, again)

    # The Open Inference Protocol.

    async def _server_live(self, _: Any, __: Any) -> Any:
        return INFERENCE["ServerLiveResponse"](live=True)

    async def _server_ready(self, _: Any, __: Any) -> Any:
        return INFERENCE["ServerReadyResponse"](ready=not self._service.draining)

    async def _model_ready(self, message: Any, _: Any) -> Any:
        self._check_model(message.name, message.version)
        return INFERENCE["ModelReadyResponse"](ready=not self._service.draining)

    async def _server_metadata(self, _: Any, __: Any) -> Any:
        return INFERENCE["ServerMetadataResponse"](**self._service.describe_server().content)

    async def _model_metadata(self, message: Any, _: Any) -> Any:
        self._check_model(message.name, message.version)
        return write_description(self._service.describe_model().content)

    async def _infer(self, message: Any, context: grpc.aio.ServicerContext) -> Any:
        self._check_model(message.model_name, message.model_version)
        model = self._service.model
        request = read_inference(message, model.schema.inputs, maximum_rows=model.limits.maximum_rows)
        answered = await self._service.predictor.predict(
            model,
            request.rows,
            request.request_id,
            _client_of(context),
            for_model=bool(message.model_version),
        )
        return write_inference(self._service.name, request, answered)

    def _check_model(self, name: str, version: str) -> None:
        self._service.check_name(name)
        if version:
            self._service.check_version(version)

    # Seldon's protocol.

    async def _predict(self, message: Any, context: grpc.aio.ServicerContext) -> Any:
        puid = _metadata(context).get(PUID_HEADER.decode())
        alias = None if puid is None else client_alias(_as_bytes(puid))
        answer = await self._service.predict_message(_as_json(message), _client_of(context), alias)
        return json_format.ParseDict(answer, SELDON["SeldonMessage"]())

    async def _feedback(self, message: Any, _: Any) -> Any:
        answer = await self._service.feedback_message(_as_json(message))
        return json_format.ParseDict(answer, SELDON["SeldonMessage"]())

    async def _seldon_metadata(self, _: Any, __: Any) -> Any:
        return json_format.ParseDict(self._service.describe_seldon().content, SELDON["SeldonModelMetadata"]())

    async def _graph_metadata(self, _: Any, __: Any) -> Any:
        model = self._service.describe_seldon().content
        graph = {
            "name": model["name"],
            "models": {model["name"]: model},
            "inputs": model["inputs"],
            "outputs": model["outputs"],
        }
        return json_format.ParseDict(graph, SELDON["SeldonGraphMetadata"]())

    # gRPC's health checks.

    async def _check(self, message: Any, _: Any) -> Any:
        state = self._streams.state(message.service)
        if state == SERVICE_UNKNOWN:
            raise RequestError(f"There is no service {message.service[:100]!r} here.", status=404)
        return HEALTH["HealthCheckResponse"](status=state)


def _end_trace(trace: Trace, code: grpc.StatusCode) -> None:
    failed = code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)
    trace.end({"rpc.grpc.status_code": code.value[0]}, failed=failed)


def _as_json(message: Any) -> dict[str, Any]:
    """Return a message of Seldon's as the JSON that it is over REST; what JSON has no form for is refused."""
    try:
        found: dict[str, Any] = json_format.MessageToDict(message)
    except (json_format.Error, TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"The message must have values that JSON has. {error}.") from None
    return found


def _metadata(context: grpc.aio.ServicerContext) -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _as_bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def _client_of(context: grpc.aio.ServicerContext) -> str:
    """Return who asks: the client's own word for itself, else its address. It is an alias, never a key."""
    said = _metadata(context).get(CLIENT_HEADER.decode())
    if said:
        return client_alias(_as_bytes(said))
    # Such as ipv4:127.0.0.1:50000.
    return client_alias(context.peer().partition(":")[2].rpartition(":")[0].encode())
