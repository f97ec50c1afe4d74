"""HTTP around the service: paths, content types, and errors as JSON.

Nothing that a client sends ends in a 5xx, but for 503 when the feedback log cannot be written; a 500 is
a fault of ours, and is logged with its traceback.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

import orjson

from seatrial.errors import FeatureError, FeedbackError, RequestError
from seatrial.server.answers import Answer
from seatrial.server.http1 import Exchange
from seatrial.server.service import Service

CLIENT_HEADER = b"seatrial-client"
MAXIMUM_CLIENT = 100
_AGAIN = ((b"retry-after", b"1"),)
_log = logging.getLogger("seatrial.server")

Handler = Callable[[Exchange], "Answer | Coroutine[Any, Any, Answer] | None"]


@dataclass(frozen=True)
class Route:
    """What is at a path.

    Attributes:
        name: Its name in the metrics.
        methods: The methods that it takes.
        handle: Returns the answer, or what will return it, or None if it answers by itself.
    """

    name: str
    methods: tuple[str, ...]
    handle: Handler


def _get(name: str, describe: Callable[[], Answer]) -> Route:
    return Route(name, ("GET", "HEAD"), lambda _: describe())


class Application:
    """Answers exchanges.

    Args:
        service: What it answers with.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._metrics = service.metrics
        self._infer = Route("infer", ("POST",), self._handle_infer)
        self._quick = {f"/v2/models/{quote(service.name)}/infer": self._infer}
        self._tasks: set[asyncio.Task[None]] = set()

    def body_limit(self) -> int:
        """Return the most bytes that a request's body may have."""
        return self._service.model.limits.maximum_request_bytes

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        name = "none"
        try:
            route = self._quick.get(exchange.path) or self._find(exchange.path)
            name = route.name
            _check_method(exchange, route)
            answer = route.handle(exchange)
        except RequestError as error:
            self._fail(exchange, name, error)
        except Exception as error:  # noqa: BLE001 -- the client gets an answer, the log the traceback
            self._fail(exchange, name, error)
        else:
            if isinstance(answer, Answer):
                self._send(exchange, name, answer)
            elif answer is not None:
                self._answer_later(exchange, name, answer)

    def _answer_later(self, exchange: Exchange, name: str, answering: Coroutine[Any, Any, Answer]) -> None:
        async def answer() -> None:
            try:
                self._send(exchange, name, await answering)
            except Exception as error:  # noqa: BLE001 -- as above
                self._fail(exchange, name, error)

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
        self._fail(exchange, "none", error, close=True)

    def malformed(self, status: int, reason: str) -> bytes:
        """Return the answer to what is no HTTP, or did not arrive in time."""
        self._metrics.count("none", status)
        return orjson.dumps({"error": reason})

    def _handle_infer(self, exchange: Exchange) -> None:
        def told(answer: bytes | Exception) -> None:
            if isinstance(answer, Exception):
                self._fail(exchange, "infer", answer)
                return
            exchange.reply(200, answer)
            self._metrics.observe("infer", time.perf_counter() - exchange.started)

        self._service.infer(exchange.body, client_of(exchange), told, exchange.started)

    def _send(self, exchange: Exchange, name: str, answer: Answer) -> None:
        body = answer.content if isinstance(answer.content, bytes) else orjson.dumps(answer.content)
        exchange.reply(answer.status, body, content_type=answer.content_type)
        if answer.status == 200:  # noqa: PLR2004 -- OK
            self._metrics.observe(name, time.perf_counter() - exchange.started)
        else:
            self._metrics.count(name, answer.status)

    def _fail(self, exchange: Exchange, name: str, error: Exception, *, close: bool = False) -> None:
        status, message = 500, str(error)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if isinstance(error, RequestError):
            status = error.status
            headers = _AGAIN if status == 429 else ()  # noqa: PLR2004 -- too many requests
        elif isinstance(error, FeatureError):
            status = 400
        elif isinstance(error, FeedbackError):
            status, headers = 503, _AGAIN
        else:
            self._report(exchange, error)
            message = "The server failed. Its log says why."
        exchange.reply(status, orjson.dumps({"error": message}), headers=headers, close=close)
        self._metrics.count(name, status)

    def _report(self, exchange: Exchange, error: Exception) -> None:
        """Say what is wrong with us; an error's text may hold a client's values, and private ones stay out."""
        if self._service.model.concealer is None:
            _log.error("A request failed: %s %s", exchange.method, exchange.path, exc_info=error)
            return
        stack = "".join(traceback.format_tb(error.__traceback__))
        kind = type(error).__name__
        _log.error("A request failed: %s %s: %s\n%s", exchange.method, exchange.path, kind, stack)

    def _find(self, path: str) -> Route:
        route = self._route(path)
        if route is None:
            raise RequestError(f"There is nothing at {path[:200]!r}. See GET /v2.", status=404)
        return route

    def _route(self, path: str) -> Route | None:
        service = self._service
        match path.rstrip("/").split("/")[1:]:
            case ["metrics"]:
                return Route("metrics", ("GET", "HEAD"), lambda _: self._metrics.render())
            case ["v2"]:
                return _get("metadata", service.describe_server)
            case ["v2", "health", "live"]:
                return _get("health", lambda: Answer({"live": True}))
            case ["v2", "health", "ready"]:
                return _get("health", service.readiness)
            case ["v2", "models", name, *rest]:
                self._check_name(unquote(name))
                if rest[:1] == ["versions"] and rest[1:]:
                    self._check_version(unquote(rest[1]))
                    rest = rest[2:]
                return self._model_route(rest)
        return None

    def _model_route(self, rest: list[str]) -> Route | None:
        service = self._service
        match rest:
            case []:
                return _get("metadata", service.describe_model)
            case ["ready"]:
                return _get("health", service.readiness)
            case ["infer"]:
                return self._infer
            case ["feedback"]:
                return Route("feedback", ("POST",), lambda exchange: service.feedback(exchange.body))
        return None

    def _check_name(self, name: str) -> None:
        if name != self._service.name:
            raise RequestError(
                f"There is no model {name[:100]!r} here, but {self._service.name!r}.", status=404
            )

    def _check_version(self, version: str) -> None:
        if version != self._service.model.digest:
            raise RequestError(
                f"The version served is {self._service.model.digest}. Got {version[:100]!r} instead.",
                status=404,
            )


def _check_method(exchange: Exchange, route: Route) -> None:
    if exchange.method not in route.methods:
        raise RequestError(
            f"{exchange.path[:200]} takes {route.methods[0]}. Got {exchange.method} instead.", status=405
        )
    if exchange.method == "POST":
        _check_headers(exchange.headers)


def _check_headers(headers: dict[bytes, bytes]) -> None:
    given = headers.get(b"content-type", b"application/json")
    if given != b"application/json" and given.split(b";")[0].strip().lower() != b"application/json":
        # A page in a browser can send other types to this address without being asked.
        raise RequestError(
            f"The content type must be application/json. Got {_shown(given)} instead.", status=415
        )
    for name in (b"content-encoding", b"inference-header-content-length"):
        if name in headers:
            raise RequestError(
                f"The header {name.decode()} is not supported. Got {_shown(headers[name])}.", status=415
            )


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("latin-1"))


def client_of(exchange: Exchange) -> str:
    """Return who asks: the client's own word for itself, else its address. It is an alias, never a key."""
    return client_alias(exchange.headers.get(CLIENT_HEADER) or exchange.peer.encode())


@lru_cache(maxsize=10_000)
def client_alias(name: bytes) -> str:
    """Return a client's name as it may be written down: short, and of printable ASCII only."""
    return quote(name, safe=":;,. /@+=()[]{}!#$&'*?^_`|~<>\"")[:MAXIMUM_CLIENT]
