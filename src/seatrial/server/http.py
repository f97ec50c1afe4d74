"""HTTP around the service: paths, content types, and errors as JSON.

Nothing that a client sends ends in a 5xx, but for 503 when the feedback log cannot be written; a 500 is
a fault of ours, and is logged with its traceback.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import orjson

from seatrial.errors import RequestError
from seatrial.server.answers import Answer
from seatrial.server.faults import describe_fault
from seatrial.server.http1 import Exchange
from seatrial.server.inference import HEADER_LENGTH
from seatrial.server.openapi import describe_api, render_page
from seatrial.server.requests import parse_json
from seatrial.server.routes import MODEL, Route
from seatrial.server.seldon import describe_error
from seatrial.server.service import Service
from seatrial.server.tracing import Trace, Traces, tracing

CLIENT_HEADER = b"seatrial-client"
PUID_HEADER = b"seldon-puid"
MAXIMUM_CLIENT = 100
_JSON = b"application/json"
_FORM = b"application/x-www-form-urlencoded"
_BYTES = b"application/octet-stream"
_AGAIN = ((b"retry-after", b"1"),)


def _get(name: str, paths: tuple[str, ...], summary: str, describe: Callable[[], Answer]) -> Route:
    return Route(name, paths, ("GET", "HEAD"), summary, lambda _: describe())


class Application:
    """Answers exchanges.

    Args:
        service: What it answers with.
        traces: Takes what the time of requests is spent on; None: nobody wants to know.
    """

    def __init__(self, service: Service, traces: Traces | None = None) -> None:
        self._service = service
        self._traces = traces
        self._metrics = service.metrics
        self.routes = (*self._open_inference(), *self._seldon(), *self._others())
        """All that the server answers; of paths below a model, without its versions."""
        self._paths = {path: route for route in self.routes for path in route.paths}
        self._nowhere = Route("none", (), (), "", lambda _: None)
        infer = self._paths[f"/v2/models/{MODEL}/infer"]
        self._quick = {f"/v2/models/{quote(service.name)}/infer": infer}
        self._tasks: set[asyncio.Task[None]] = set()

    def _open_inference(self) -> tuple[Route, ...]:
        service, model = self._service, f"/v2/models/{MODEL}"
        return (
            _get("metadata", ("/v2",), "Name, version and extensions of the server", service.describe_server),
            _get(
                "health",
                ("/v2/health/live", "/live"),
                "Whether the process lives",
                lambda: Answer({"live": True}),
            ),
            _get("health", ("/v2/health/ready",), "Whether requests are answered", service.readiness),
            _get("metadata", (model,), "Inputs, outputs and limits of the model", service.describe_model),
            _get("health", (f"{model}/ready",), "Whether requests are answered", service.readiness),
            Route("infer", (f"{model}/infer",), ("POST",), "Predictions", self._handle_infer, tensors=True),
            Route(
                "feedback",
                (f"{model}/feedback",),
                ("POST",),
                "Outcomes of predictions",
                lambda exchange: service.feedback(exchange.body),
            ),
            Route(
                "explain",
                (f"{model}/explain",),
                ("POST",),
                "A prediction, and what each feature added to it",
                lambda exchange: service.explain(exchange.body, client_of(exchange)),
            ),
        )

    def _seldon(self) -> tuple[Route, ...]:
        def messages(name: str, paths: tuple[str, ...], summary: str, handle: Any) -> Route:
            return Route(name, paths, ("POST",), summary, handle, error=describe_error, form=True)

        return (
            messages(
                "seldon_predict",
                ("/api/v1.0/predictions", "/api/v0.1/predictions", "/predict"),
                "Predictions, in Seldon's protocol",
                self._handle_message,
            ),
            messages(
                "seldon_feedback",
                ("/api/v1.0/feedback", "/api/v0.1/feedback", "/send-feedback"),
                "Outcomes of predictions, in Seldon's protocol",
                self._handle_feedback_message,
            ),
            _get(
                "metadata",
                ("/metadata", "/api/v1.0/metadata"),
                "Inputs and outputs of the model, in Seldon's protocol",
                self._service.describe_seldon,
            ),
            _get(
                "health",
                ("/health/ping",),
                "Whether the process lives",
                lambda: Answer(b"pong", content_type=b"text/plain"),
            ),
            _get(
                "health",
                ("/health/status", "/api/v1.0/health/status", "/ready"),
                "Whether requests are answered",
                self._seldon_readiness,
            ),
        )

    def _others(self) -> tuple[Route, ...]:
        return (
            _get("metrics", ("/metrics",), "Figures for Prometheus", self._metrics.render),
            _get("docs", ("/docs",), "This list, as a page", self._render_docs),
            _get("docs", ("/openapi.json", "/seldon.json"), "This list, as OpenAPI", self._describe_api),
        )

    def _render_docs(self) -> Answer:
        return Answer(render_page(self.routes, self._service.name), content_type=b"text/html; charset=utf-8")

    def _describe_api(self) -> Answer:
        return Answer(describe_api(self.routes, self._service.name))

    def _seldon_readiness(self) -> Answer:
        answer = self._service.readiness()
        return Answer({"meta": {}, "jsonData": answer.content}, answer.status)

    def body_limit(self) -> int:
        """Return the most bytes that a request's body may have."""
        return self._service.model.limits.maximum_request_bytes

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        route = self._nowhere
        try:
            route = self._quick.get(exchange.path) or self._find(exchange.path)
            if self._traces is None:
                self._begin(exchange, route)
            else:
                exchange.trace = self._begin_trace(self._traces, exchange, route)
                with tracing(exchange.trace):
                    self._begin(exchange, route)
        except RequestError as error:
            self._fail(exchange, route, error)
        except Exception as error:  # noqa: BLE001 -- the client gets an answer, the log the traceback
            self._fail(exchange, route, error)

    def _begin(self, exchange: Exchange, route: Route) -> None:
        _check_method(exchange, route)
        answer = route.handle(exchange)
        if isinstance(answer, Answer):
            self._send(exchange, route, answer)
        elif answer is not None:
            self._answer_later(exchange, route, answer)

    @staticmethod
    def _begin_trace(traces: Traces, exchange: Exchange, route: Route) -> Trace | None:
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in exchange.headers.items()}
        attributes = {"http.request.method": exchange.method, "http.route": route.paths[0]}
        return traces.begin(f"{exchange.method} {route.paths[0]}", headers, attributes)

    def _answer_later(self, exchange: Exchange, route: Route, answering: Coroutine[Any, Any, Answer]) -> None:
        async def answer() -> None:
            try:
                self._send(exchange, route, await answering)
            except Exception as error:  # noqa: BLE001 -- as above
                self._fail(exchange, route, error)

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def too_long(self, exchange: Exchange) -> None:
        """Answer a request whose body is too long."""
        limit = self.body_limit()
        declared = exchange.headers.get(b"content-length", b"")
        got = f"{int(declared):,}" if declared.isdigit() else f"more than {limit:,}"
        error = RequestError(
            f"A request may have at most {limit:,} bytes. Got {got} instead.",
            status=413,
            remedy="Send its rows in several requests.",
        )
        route = self._paths.get(exchange.path, self._nowhere)
        self._fail(exchange, route, error, close=True)

    def malformed(self, status: int, reason: str) -> bytes:
        """Return the answer to what is no HTTP, or did not arrive in time."""
        self._metrics.count("none", status)
        return orjson.dumps({"error": reason})

    def _handle_infer(self, exchange: Exchange) -> None:
        def told(answer: bytes | Answer | Exception) -> None:
            if isinstance(answer, bytes):
                exchange.reply(200, answer)
                self._metrics.observe("infer", time.perf_counter() - exchange.started)
                if exchange.trace is not None:
                    _end_trace(exchange.trace, 200)
            elif isinstance(answer, Answer):
                self._send(exchange, infer, answer)
            else:
                self._fail(exchange, infer, answer)

        infer = self._paths[f"/v2/models/{MODEL}/infer"]
        self._service.infer(
            exchange.body,
            client_of(exchange),
            told,
            exchange.started,
            header_length=_header_length(exchange),
            for_model="/versions/" in exchange.path,
        )

    async def _handle_message(self, exchange: Exchange) -> Answer:
        puid = exchange.headers.get(PUID_HEADER)
        alias = None if puid is None else client_alias(puid)
        return Answer(await self._service.predict_message(_document(exchange), client_of(exchange), alias))

    async def _handle_feedback_message(self, exchange: Exchange) -> Answer:
        return Answer(await self._service.feedback_message(_document(exchange)))

    def _send(self, exchange: Exchange, route: Route, answer: Answer) -> None:
        body = answer.content if isinstance(answer.content, bytes) else orjson.dumps(answer.content)
        exchange.reply(answer.status, body, content_type=answer.content_type, headers=answer.headers)
        if answer.status == 200:  # noqa: PLR2004 -- OK
            self._metrics.observe(route.name, time.perf_counter() - exchange.started)
        else:
            self._metrics.count(route.name, answer.status)
        if exchange.trace is not None:
            _end_trace(exchange.trace, answer.status)

    def _fail(self, exchange: Exchange, route: Route, error: Exception, *, close: bool = False) -> None:
        status, message = describe_fault(
            error,
            f"{exchange.method} {exchange.path}",
            discreet=self._service.model.concealer is not None,
        )
        headers = _AGAIN if status in (429, 503) else ()
        body = orjson.dumps(route.error(status, message))
        exchange.reply(status, body, headers=headers, close=close)
        self._metrics.count(route.name, status)
        if exchange.trace is not None:
            _end_trace(exchange.trace, status)

    def _find(self, path: str) -> Route:
        plain = path.rstrip("/")
        if plain.startswith("/v2/models/"):
            name, *rest = plain.split("/")[3:]
            self._service.check_name(unquote(name))
            if rest[:1] == ["versions"] and rest[1:]:
                self._service.check_version(unquote(rest[1]))
                rest = rest[2:]
            plain = "/".join(("/v2/models", MODEL, *rest))
        route = self._paths.get(plain)
        if route is None:
            raise RequestError(f"There is nothing at {path[:200]!r}. See GET /docs.", status=404)
        return route


def _end_trace(trace: Trace, status: int) -> None:
    trace.end({"http.response.status_code": status}, failed=status >= 500)  # noqa: PLR2004 -- ours, not the client's


def _check_method(exchange: Exchange, route: Route) -> None:
    if exchange.method not in route.methods:
        raise RequestError(
            f"{exchange.path[:200]} takes {route.methods[0]}. Got {exchange.method} instead.", status=405
        )
    if exchange.method == "POST":
        _check_headers(exchange.headers, route)


def _check_headers(headers: dict[bytes, bytes], route: Route) -> None:
    given = headers.get(b"content-type", _JSON)
    if given != _JSON and not _is_taken(given.split(b";")[0].strip().lower(), headers, route):
        # A page in a browser can send other types to this address without being asked.
        raise RequestError(
            f"The content type must be application/json. Got {_shown(given)} instead.", status=415
        )
    for name in (b"content-encoding", *(() if route.tensors else (HEADER_LENGTH,))):
        if name in headers:
            raise RequestError(
                f"The header {name.decode()} is not supported. Got {_shown(headers[name])}.", status=415
            )


def _is_taken(given: bytes, headers: dict[bytes, bytes], route: Route) -> bool:
    if given == _FORM:
        # A browser says where a form's page is from; a client of Seldon's has no such page.
        return route.form and b"origin" not in headers and b"sec-fetch-site" not in headers
    return given == _JSON or (given == _BYTES and route.tensors and HEADER_LENGTH in headers)


def _header_length(exchange: Exchange) -> int | None:
    given = exchange.headers.get(HEADER_LENGTH)
    if given is None:
        return None
    size = len(exchange.body)
    if not given.isdigit() or len(given) > len(str(size)) or int(given) > size:
        raise RequestError(
            f"The header {HEADER_LENGTH.decode()} must be a number of bytes, at most the body's {size:,}. "
            f"Got {_shown(given)} instead."
        )
    return int(given)


def _document(exchange: Exchange) -> dict[str, Any]:
    """Return the JSON object that was sent, as the body or as the field ``json`` of a form."""
    given = exchange.headers.get(b"content-type", _JSON)
    if given.split(b";")[0].strip().lower() != _FORM:
        return parse_json(exchange.body)
    try:
        fields = parse_qsl(exchange.body.decode(), keep_blank_values=True, errors="strict", max_num_fields=10)
    except ValueError as error:
        raise RequestError(f"The body must be a form. {error}.") from None
    if [name for name, _ in fields] != ["json"]:
        raise RequestError("The form must have one field, 'json'.")
    return parse_json(fields[0][1].encode())


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))


def client_of(exchange: Exchange) -> str:
    """Return who asks: the client's own word for itself, else its address. It is an alias, never a key."""
    return client_alias(exchange.headers.get(CLIENT_HEADER) or exchange.peer.encode())


@lru_cache(maxsize=10_000)
def client_alias(name: bytes) -> str:
    """Return a client's name as it may be written down: short, and of printable ASCII only."""
    return quote(name, safe=":;,. /@+=()[]{}!#$&'*?^_`|~<>\"")[:MAXIMUM_CLIENT]
