"""HTTP/1.1 for one event loop: connections, limits, time limits, and a graceful end.

The bytes are parsed by llhttp (``httptools``, the parser of Node.js); what is here decides how long a
client may take, how much it may send, and how a connection ends. It is our own because a server in
the same loop costs a fraction of one in threads of its own: there is nothing to hand over. A request
is answered through its :class:`Exchange`, at once or later; a connection answers one request at a
time, and further ones wait unread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import httptools

from seatrial.server.tracing import Trace

JSON = b"application/json"
BACKLOG = 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_LENGTH = b"content-length"
_UPGRADE = (b"connection", b"upgrade", b"http2-settings")
_WAITING = 4
"""Requests of one connection that may wait before it is read no further."""
_TICK_SECONDS = 0.5
_LONGEST_TICK_SECONDS = 1.0
"""What a tick counts for at most. A loop that was stopped, asleep or busy for longer did not see what clients sent."""


@dataclass(frozen=True)
class Limits:
    """What a client may take.

    Attributes:
        head_bytes: Size of request line and headers.
        drained_bytes: Of a body that is too long, the part that is still read and dropped, because
            most clients read no answer before they have sent their body.
        head_seconds: Time for request line and headers.
        body_seconds: Time for the body.
        idle_seconds: Time between two requests of a connection.
        write_seconds: Time in which a client must take some of its answer.
        connections: Connections at once; a new one takes the place of the one that is idle longest.
    """

    head_bytes: int = 64 * 1024
    drained_bytes: int = 64 * 1024 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    connections: int = 10_000


class Exchange:
    """One request, and how it is answered.

    Attributes:
        method: Such as ``POST``.
        path: The path as it was sent, percent-encoded.
        query: What came after ``?``.
        headers: By their names in lower case; of one that came twice, the last.
        body: The body, whole.
        peer: The client's address.
        started: When the request was whole, by ``time.perf_counter``.
        trace: What is told where the request's time goes; None: nobody wants to know.
    """

    __slots__ = (
        "_connection",
        "answered",
        "body",
        "headers",
        "keep_alive",
        "method",
        "path",
        "peer",
        "query",
        "size",
        "started",
        "trace",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.method = ""
        self.path = ""
        self.query = ""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.peer = connection.peer
        self.size = 0
        self.started = 0.0
        self.trace: Trace | None = None
        self.keep_alive = True
        self.answered = False

    def reply(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = JSON,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        close: bool = False,
    ) -> None:
        """Answer; a second answer is dropped, and so is one to a client that has gone."""
        if self.answered:
            return
        self.answered = True
        self._connection.answer(self, status, body, content_type, headers, close=close)


@dataclass
class Listener:
    """What all connections of a server share.

    Attributes:
        handle: Answers a whole request.
        body_limit: Returns the most bytes that a body may have.
        too_long: Answers a request whose body is too long; it is not there.
        malformed: Returns the answer to what is no HTTP, or did not arrive in time: JSON.
        limits: What a client may take.
        clock: Returns seconds.
        now: Seconds in which the loop was there to serve; time limits are counted in them.
    """

    handle: Callable[[Exchange], None]
    body_limit: Callable[[], int]
    too_long: Callable[[Exchange], None]
    malformed: Callable[[int, str], bytes]
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    connections: set[Connection] = field(default_factory=set)
    idle: dict[Connection, None] = field(default_factory=dict)
    draining: bool = False
    now: float = 0.0
    date: bytes = b""
    refused: int = 0
    _looked: float | None = None

    def tick(self) -> None:
        """Look at the clock, and end what has taken too long; called every half second."""
        looked = self.clock()
        if self._looked is not None:
            self.now += min(looked - self._looked, _LONGEST_TICK_SECONDS)
        self._looked = looked
        self.date = b"date: " + formatdate(usegmt=True).encode() + b"\r\n"
        for connection in [one for one in self.connections if one.deadline < self.now]:
            connection.expire()

    def admit(self, connection: Connection) -> None:
        """Take in a connection; if there are too many, end the one that has been idle longest."""
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            self.refused += 1
            next(iter(self.idle), connection).abort()

    async def run(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Serve until ``stop`` is set, and then until every request that has begun is answered.

        Args:
            listening: The socket, which is listening.
            stop: Set it to end. Set ``draining`` before, and each answer says that its connection closes, so
                that whoever balances load can look elsewhere.
        """
        loop = asyncio.get_running_loop()
        self.tick()
        server = await loop.create_server(lambda: Connection(self), sock=listening, backlog=BACKLOG)
        ticking = asyncio.create_task(self._tick_on())
        await stop.wait()
        self.draining = True
        server.close()
        for connection in list(self.idle):
            connection.abort()
        while self.connections:  # noqa: ASYNC110 -- each ends by itself or by its time limit
            await asyncio.sleep(0.01)
        ticking.cancel()

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.tick()


class Connection(asyncio.Protocol):
    """One client's connection.

    Args:
        listener: What it shares with the others.
    """

    def __init__(self, listener: Listener) -> None:
        self.deadline = 0.0
        self.peer = ""
        self._listener = listener
        self._limits = listener.limits
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._reading: Exchange | None = None
        self._current: Exchange | None = None
        self._queued: deque[Exchange] = deque()
        self._target = b""
        self._parts: list[bytes] = []
        self._limit = 0
        self._head_done = False
        self._closing = False
        self._blocked = False
        self._ended = False

    # What asyncio calls.

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else ""
        self._listener.admit(self)
        self.deadline = self._listener.now + self._limits.head_seconds
        self._listener.idle[self] = None

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """End."""
        self._closing = True
        self._listener.connections.discard(self)
        self._listener.idle.pop(self, None)
        for exchange in (self._current, *self._queued):
            if exchange is not None:
                exchange.answered = True
        self._queued.clear()

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent."""
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(400, f"The request is no HTTP/1.1: {error}.")
        if self._reading is not None and not self._head_done and self._reading.size > self._limits.head_bytes:
            self._refuse_head()

    def eof_received(self) -> bool:
        """The client sends no more; what it has asked is still answered."""
        self._ended = True
        return self._current is not None

    def pause_writing(self) -> None:
        """The client does not take its answers."""
        self._blocked = True
        self.deadline = self._listener.now + self._limits.write_seconds

    def resume_writing(self) -> None:
        """The client takes its answers again."""
        self._blocked = False
        if self._closing:
            return
        self._wait()
        self._next()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._listener.idle.pop(self, None)
        self._reading = Exchange(self)
        self._target = b""
        self._head_done = False
        self._wait()

    def on_url(self, url: bytes) -> None:
        """Take in a part of the request's target."""
        self._target += url
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        if self._reading is not None and not self._head_done:  # Not what comes after a body in chunks.
            self._reading.headers[name.lower()] = value
            self._grow(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        """Know how long the body may be."""
        exchange, parser = self._reading, self._parser
        assert exchange is not None
        exchange.method = parser.get_method().decode()
        path, _, query = self._target.partition(b"?")
        exchange.path, exchange.query = path.decode("latin-1"), query.decode("latin-1")
        exchange.keep_alive = parser.should_keep_alive()
        if exchange.size > self._limits.head_bytes:  # It came with its end, in one piece.
            self._refuse_head()
            return
        exchange.size = 0
        if parser.should_upgrade():
            return  # The parser stops here.
        self._head_done = True
        self._limit = self._listener.body_limit()
        self._parts = []
        self._wait()
        if b"expect" in exchange.headers:
            declared = exchange.headers.get(_LENGTH, b"")
            if declared.isdigit() and int(declared) > self._limit:
                self._end_too_long(exchange)
            else:
                self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body; of one that is too long nothing is kept."""
        exchange = self._reading
        if exchange is None:
            return
        exchange.size += len(body)
        if exchange.size <= self._limit:
            self._parts.append(body)
            return
        self._parts.clear()
        if exchange.size > self._limits.drained_bytes:
            self._end_too_long(exchange)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if not self._head_done:
            return  # It asked for another protocol.
        exchange, self._reading = self._reading, None
        if exchange is None or self._closing:
            return
        parts = self._parts
        exchange.body = parts[0] if len(parts) == 1 else b"".join(parts)
        if self._current is not None or self._blocked:
            self._queued.append(exchange)
            if len(self._queued) >= _WAITING:
                self._transport.pause_reading()
            return
        self._begin(exchange)

    # The life of a request.

    def answer(
        self,
        exchange: Exchange,
        status: int,
        body: bytes,
        content_type: bytes,
        headers: tuple[tuple[bytes, bytes], ...],
        *,
        close: bool,
    ) -> None:
        """Write an answer, and go on to the next request."""
        close = close or not exchange.keep_alive or self._listener.draining or self._closing
        close = close or (self._ended and not self._queued)
        head = [_LINES[status], self._listener.date, b"content-type: ", content_type]
        head += [b"\r\ncontent-length: ", b"%d" % len(body)]
        for name, value in headers:
            head += [b"\r\n", name, b": ", value]
        head.append(b"\r\nconnection: close\r\n\r\n" if close else b"\r\n\r\n")
        if exchange.method != "HEAD":
            head.append(body)
        self._transport.write(b"".join(head))
        self._current = None
        if close:
            self._close()
            return
        self._wait()
        if self._queued and not self._blocked:
            # Not from within the answer before: a thousand pipelined requests would nest as deep.
            asyncio.get_running_loop().call_soon(self._next)

    def _begin(self, exchange: Exchange) -> None:
        self._current = exchange
        self.deadline = float("inf")
        exchange.started = time.perf_counter()
        if exchange.size > self._limit:
            self._listener.too_long(exchange)
        else:
            self._listener.handle(exchange)

    def _next(self) -> None:
        if self._current is None and self._queued and not self._closing:
            self._begin(self._queued.popleft())
        if len(self._queued) < _WAITING and not self._closing:
            with contextlib.suppress(RuntimeError):  # It was not paused.
                self._transport.resume_reading()

    def _end_too_long(self, exchange: Exchange) -> None:
        """Answer before the body has arrived."""
        self._reading = None
        self._current = exchange
        self._listener.too_long(exchange)

    def _wait(self) -> None:
        """Set the time limit for what is waited for now."""
        if self._current is not None or self._blocked:
            return
        if self._reading is None:
            self._listener.idle[self] = None
            seconds = self._limits.idle_seconds
        else:
            seconds = self._limits.body_seconds if self._head_done else self._limits.head_seconds
        self.deadline = self._listener.now + seconds

    def _grow(self, size: int) -> None:
        assert self._reading is not None
        self._reading.size += size

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """No other protocol is spoken here: the request is read anew as if it had not asked for one."""
        exchange, self._parser = self._reading, httptools.HttpRequestParser(self)
        if exchange is None or exchange.method == "CONNECT":
            self._refuse(400, "No tunnel is made here.")
            return
        kept = [one for one in exchange.headers.items() if one[0] not in _UPGRADE]
        head = [exchange.method.encode(), b" ", self._target, b" HTTP/1.1\r\n"]
        for name, value in kept:
            head += [name, b": ", value, b"\r\n"]
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _refuse_head(self) -> None:
        self._refuse(431, f"Request line and headers may have {self._limits.head_bytes:,} bytes.")

    def _refuse(self, status: int, reason: str) -> None:
        exchange = self._reading or Exchange(self)
        self._reading = None
        if self._current is not None or self._closing:
            # An answer is on its way, and this one would be taken for it.
            self._closing = True
            return
        exchange.reply(status, self._listener.malformed(status, reason), close=True)

    def _close(self) -> None:
        self._closing = True
        self.deadline = self._listener.now + self._limits.write_seconds
        self._transport.close()

    # Ends that are not the client's wish.

    def expire(self) -> None:
        """End a connection that has taken too long; a client in the middle of its body is told so."""
        if self._reading is not None and self._head_done and not (self._blocked or self._closing):
            self._refuse(408, f"The body did not arrive within {self._limits.body_seconds:g} seconds.")
        else:
            self.abort()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        self._listener.idle.pop(self, None)
        self._listener.connections.discard(self)
        if self._transport is not None:
            self._transport.abort()
