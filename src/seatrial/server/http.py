"""HTTP around the service: paths, bodies up to a size, and errors as JSON.

An RSGI application (granian's interface). Nothing that a client sends ends in a 5xx, but for 503
when the feedback log cannot be written; a 500 is a fault of ours, and is logged with its traceback.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import unquote

import orjson
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope

from seatrial.errors import FeatureError, FeedbackError, RequestError
from seatrial.server.service import Answer, Service

BODY_SECONDS = 30.0
DRAINED_BYTES = 64 * 1024 * 1024
_JSON = ("content-type", "application/json")
_CLOSE = ("connection", "close")
_log = logging.getLogger("seatrial.server")


@dataclass(frozen=True)
class Route:
    """What is at a path: the method that it takes, and what answers it."""

    method: str
    answer: Callable[[bytes], Awaitable[Answer]]


def _get(describe: Callable[[], Answer]) -> Route:
    async def answer(_: bytes) -> Answer:
        return describe()

    return Route("GET", answer)


class Application:
    """The RSGI application.

    Args:
        service: What it answers with.
        ready: Called once, when requests are about to be answered.
    """

    def __init__(self, service: Service, ready: Callable[[], None]) -> None:
        self.draining = False
        """Whether the server is about to stop: each answer then closes its connection."""
        self._service = service
        self._ready = ready

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say that the server is ready."""
        self._ready()

    async def __rsgi__(self, scope: Scope, protocol: HTTPProtocol) -> None:
        """Answer one request."""
        headers = [_JSON]
        if self.draining:
            headers.append(_CLOSE)
        try:
            answer = await self._answer(scope, protocol)
        except ProtocolClosed:
            return  # The client has gone.
        except RequestError as error:
            answer = Answer({"error": str(error)}, error.status)
            if error.status in (408, 413) and not self.draining:
                headers.append(_CLOSE)
        except FeatureError as error:
            answer = Answer({"error": str(error)}, 400)
        except FeedbackError as error:
            answer = Answer({"error": str(error)}, 503)
            headers.append(("retry-after", "1"))
        except Exception:  # noqa: BLE001 -- the client gets an answer, the log the traceback
            _log.exception("A request failed: %s %s", scope.method, scope.path)
            answer = Answer({"error": "The server failed. Its log says why."}, 500)
        protocol.response_bytes(answer.status, headers, orjson.dumps(answer.content))

    async def _answer(self, scope: Scope, protocol: HTTPProtocol) -> Answer:
        route = self._route(scope.path)
        if route is None:
            raise RequestError(f"There is nothing at {scope.path[:200]!r}. See GET /v2.", status=404)
        if scope.method != route.method:
            raise RequestError(
                f"{scope.path[:200]} takes {route.method}. Got {scope.method} instead.", status=405
            )
        if route.method == "GET":
            return await route.answer(b"")
        _check_headers(scope)
        return await route.answer(
            await _read_body(scope, protocol, self._service.model.limits.maximum_request_bytes)
        )

    def _route(self, path: str) -> Route | None:
        service = self._service
        match path.rstrip("/").split("/")[1:]:
            case ["v2"]:
                return _get(service.describe_server)
            case ["v2", "health", "live"]:
                return _get(lambda: Answer({"live": True}))
            case ["v2", "health", "ready"]:
                return _get(service.readiness)
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
                return _get(service.describe_model)
            case ["ready"]:
                return _get(service.readiness)
            case ["infer"]:
                return Route("POST", service.infer)
            case ["feedback"]:
                return Route("POST", service.feedback)
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


def _check_headers(scope: Scope) -> None:
    kind = str(scope.headers.get("content-type") or "application/json").split(";")[0].strip().lower()
    if kind != "application/json":
        # A page in a browser can send other types to this address without being asked.
        raise RequestError(
            f"The content type must be application/json. Got {kind[:100]!r} instead.", status=415
        )
    for header in ("content-encoding", "inference-header-content-length"):
        if value := scope.headers.get(header):
            raise RequestError(f"The header {header} is not supported. Got {str(value)[:100]!r}.", status=415)


async def _read_body(scope: Scope, protocol: HTTPProtocol, limit: int) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_within(scope, protocol, limit)
    except TimeoutError:
        raise RequestError(f"The body did not arrive within {BODY_SECONDS:g} seconds.", status=408) from None


async def _read_within(scope: Scope, protocol: HTTPProtocol, limit: int) -> bytes:
    """Read a body of at most ``limit`` bytes; of a longer one nothing is kept.

    What a client has on its way is read and dropped, up to a bound, because most clients read no
    answer before they have sent their body.
    """
    declared = str(scope.headers.get("content-length") or "")
    too_long = declared.isdecimal() and int(declared) > limit
    body = bytearray()
    size = 0
    if not (too_long and scope.headers.get("expect")):
        async for chunk in protocol:
            size += len(chunk)
            too_long = too_long or size > limit
            if size > DRAINED_BYTES:
                break
            if too_long:
                body.clear()
            else:
                body += chunk
    if too_long:
        got = f"{int(declared):,}" if declared.isdecimal() else f"more than {limit:,}"
        raise RequestError(
            f"A request may have at most {limit:,} bytes. Got {got} instead.",
            status=413,
            remedy="Send its rows in several requests.",
        )
    return bytes(body)
