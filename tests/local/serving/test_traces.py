"""OpenTelemetry traces, as a real receiver of OTLP gets them."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.local.serving.conftest import Ferry, Server, wait_for
from tests.local.serving.protocols import COLUMNS, OK, PROTOCOLS, send
from tests.local.serving.test_grpc import ROWS, Calls
from tests.local.serving.test_process import refused

pytestmark = pytest.mark.usefixtures("measured_processes")

ROOTS = {
    "v2 json": "POST /v2/models/{model}/infer",
    "v2 binary": "POST /v2/models/{model}/infer",
    "v2 grpc": "inference.GRPCInferenceService/ModelInfer",
    "v2 grpc raw": "inference.GRPCInferenceService/ModelInfer",
    "seldon json": "POST /api/v1.0/predictions",
    "seldon grpc": "seldon.protos.Model/Predict",
    "explain": "POST /v2/models/{model}/explain",
}
SAMPLED, UNSAMPLED = "01", "00"
SERVER_KIND = 2


class Receiver:
    """A receiver of OTLP over HTTP, which keeps the spans it gets; it may be held up."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.going = threading.Event()
        self.going.set()
        self.asked = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                receiver.asked.set()
                receiver.going.wait()
                receiver.take(ExportTraceServiceRequest.FromString(content))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "20",
        }
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, message: ExportTraceServiceRequest) -> None:
        for resource in message.resource_spans:
            found = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.services.add(found["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)

    def close(self) -> None:
        self.going.set()
        self.server.shutdown()
        self.server.server_close()

    def of(self, trace: str) -> list[Any]:
        """Return the spans of a trace, once its first span, which ends last, has arrived."""

        def found() -> list[Any]:
            return [span for span in list(self.spans) if span.trace_id.hex() == trace]

        wait_for(lambda: any(span.kind == SERVER_KIND for span in found()), "the request's span")
        return found()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def traced(
    trained_ferry: Ferry, receiver: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Calls]]:
    log = str(tmp_path_factory.mktemp("log"))
    arguments = ("--grpc-port", "0", "--log-folder", log, "--ship-every", "600")
    with trained_ferry.serve(*arguments, **receiver.environment, OTEL_SERVICE_NAME="ferries") as server:
        yield server, Calls(server)
        assert "Traceback" not in server.errors


def parent(number: int, flags: str = SAMPLED) -> tuple[str, str]:
    """Return the id of a client's trace, and the header that names it."""
    return f"{number:032x}", f"00-{number:032x}-{7:016x}-{flags}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_request_is_traced(traced: tuple[Server, Calls], receiver: Receiver, protocol: str) -> None:
    """A request's span goes on with its client's trace; its parts are its children, within its time and in order."""
    trace, header = parent(100 + list(PROTOCOLS).index(protocol))
    assert send(*traced, protocol, PROTOCOLS[protocol](COLUMNS), traceparent=header).code == OK
    spans = receiver.of(trace)
    (root,) = (span for span in spans if span.kind == SERVER_KIND)
    parts = {span.name: span for span in spans if span is not root}
    assert (root.name, root.parent_span_id.hex()) == (ROOTS[protocol], f"{7:016x}")
    more = {"explanation"} if protocol == "explain" else set()
    assert set(parts) == {"queue", "inference", "log commit"} | more
    assert {span.parent_span_id for span in parts.values()} == {root.span_id}
    instants = [root.start_time_unix_nano]
    for name in ("queue", "inference", "log commit"):
        instants += [parts[name].start_time_unix_nano, parts[name].end_time_unix_nano]
    assert instants == sorted(instants)
    assert instants[-1] <= root.end_time_unix_nano
    found = attributes(root)
    assert found.get("http.response.status_code", 200) == 200
    assert found.get("rpc.grpc.status_code", 0) == 0
    assert attributes(parts["inference"])["seatrial.batch_rows"] == 1
    assert receiver.services == {"ferries"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusal_is_traced(traced: tuple[Server, Calls], receiver: Receiver, protocol: str) -> None:
    """A refused request's span says with which status, is no fault of the server's, and repeats no value."""
    trace, header = parent(200 + list(PROTOCOLS).index(protocol))
    said = send(*traced, protocol, PROTOCOLS[protocol](COLUMNS[:2]), traceparent=header)
    assert said.code == "invalid"
    (root,) = receiver.of(trace)
    found = attributes(root)
    status = found.get("http.response.status_code", found.get("rpc.grpc.status_code"))
    assert (status, root.status.code) == (3 if "grpc" in protocol else 400, 0)
    assert ROWS[0]["crossing_id"] not in str(root)


def test_outcome_is_traced(traced: tuple[Server, Calls], receiver: Receiver) -> None:
    """An outcome's span has the wait for the log as its part."""
    server, _ = traced
    (name,) = server.infer(ROWS[:1]).content["outputs"][2]["data"]
    trace, header = parent(300)
    body = {"prediction_id": name, "value": True}
    assert server.post("/v2/models/ferry/feedback", body, traceparent=header).status == 200
    assert {span.name for span in receiver.of(trace)} == {"POST /v2/models/{model}/feedback", "log commit"}


def test_client_decides_what_is_sampled(traced: tuple[Server, Calls], receiver: Receiver) -> None:
    """A request whose client does not sample its trace has no span; a header that names no trace begins a new one."""
    (hidden, unsampled), (seen, sampled) = parent(400, UNSAMPLED), parent(401)
    message = PROTOCOLS["v2 json"](COLUMNS)
    for header in (unsampled, "00-nonsense", sampled):
        assert send(*traced, "v2 json", message, traceparent=header).code == OK
    receiver.of(seen)
    assert hidden not in {span.trace_id.hex() for span in receiver.spans}
    assert [span for span in receiver.spans if not span.parent_span_id]


def test_slow_receiver_delays_nothing(ferry: Ferry) -> None:
    """While the receiver holds up what it was sent, all requests are answered, and the server ends as ever."""
    receiver = Receiver()
    receiver.going.clear()
    with ferry.serve(
        **receiver.environment, OTEL_BSP_MAX_QUEUE_SIZE="8", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="4"
    ) as server:
        assert server.infer(ROWS).status == 200
        assert receiver.asked.wait(60)
        assert [server.infer(ROWS).status for _ in range(20)] == [200] * 20
        assert not receiver.spans
        assert server.stop() == 0
        assert "Traceback" not in server.errors
    receiver.close()


def test_receiver_that_is_down_delays_nothing(ferry: Ferry) -> None:
    """Without a receiver at the address all requests are answered, and the server ends as ever."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with ferry.serve(
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", OTEL_BSP_SCHEDULE_DELAY="20"
    ) as server:
        assert [server.infer(ROWS).status for _ in range(20)] == [200] * 20
        wait_for(lambda: "127.0.0.1" in server.errors, "the server to say so")
        assert server.stop() == 0
        assert "Traceback" not in server.errors


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_off_costs_nothing(environment: dict[str, str]) -> None:
    """Where the environment names no receiver, or turns traces off, OpenTelemetry is not loaded."""
    code = (
        "import sys; import seatrial.server.run, seatrial.server.grpc_server\n"
        "from seatrial.server.tracing import open_traces\n"
        "assert open_traces('seatrial') is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_other_protocol_is_refused(ferry: Ferry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another protocol than OTLP over HTTP ends the start with what to do."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    found = refused(ferry)
    assert found.returncode == 2
    assert "http/protobuf" in found.stderr
