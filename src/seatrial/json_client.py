"""POST JSON to one server, over a few connections, at little cost.

Who replays months of requests needs as much of a core as the server that answers them; half of it went into what a
general client does for a request that this one never needs: cookies, redirects, proxies, compression, and a task of
its own. Answers are parsed by llhttp (``httptools``), as the server parses requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

import httptools

TIMEOUT_SECONDS = 60.0


class _Connection(asyncio.Protocol):
    """A connection; it asks one thing at a time."""

    def __init__(self, gone: Callable[[_Connection], None]) -> None:
        self.is_open = True
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass.

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"The answer is no HTTP/1.1: {error}."))
            self.close()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 -- only the beginning of an answer
            return
        body, self._parts = b"".join(self._parts), []
        self.is_open = self.is_open and self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result((status, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._fail(ConnectionError(f"The server closed the connection{f': {exc}' if exc else ''}."))
        self._gone(self)

    def _fail(self, error: ConnectionError) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


class JsonClient:
    """Asks one server; an asynchronous context manager that closes the connections at its end.

    Args:
        url: Address of the server, such as ``http://127.0.0.1:8080``.
        connections: Most requests on their way at once.

    Raises:
        ValueError: if the address is none of HTTP.
    """

    def __init__(self, url: str, connections: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url} is no address of HTTP.")
        self._host, self._secure = parts.hostname, parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._head = f"host: {parts.netloc.rpartition('@')[2]}\r\ncontent-type: application/json\r\n"
        self._turns = asyncio.Semaphore(connections)
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        """Connect at the first request."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        for connection in list(self._all):
            connection.close()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request and wait for its answer.

        Args:
            method: Such as ``POST``.
            path: Path and query, percent-encoded.
            body: What is sent.

        Returns:
            Status and body of the answer.

        Raises:
            OSError: if the server cannot be reached, or closes the connection before it has answered.
            TimeoutError: if no answer comes in time.
        """
        request = f"{method} {path} HTTP/1.1\r\n{self._head}content-length: {len(body)}\r\n\r\n".encode()
        async with self._turns, asyncio.timeout(TIMEOUT_SECONDS):
            connection = await self._connection()
            try:
                answer = await connection.ask(request + body)
            except BaseException:
                connection.close()  # An answer may still come, and would be taken for the next one's.
                raise
            if connection.is_open:
                self._idle.append(connection)
            else:
                connection.close()
            return answer

    async def _connection(self) -> _Connection:
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(
            lambda: _Connection(self._all.discard), self._host, self._port, ssl=self._secure or None
        )
        self._all.add(made)
        return made
