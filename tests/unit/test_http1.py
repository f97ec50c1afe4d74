"""HTTP/1.1 over real sockets: answers in order, limits of size and time, and a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from seatrial.server.http1 import Exchange, Limits, Listener

HEAD = b"POST /x HTTP/1.1\r\nhost: a\r\n"
BODY_LIMIT = 1000
# What the kernel may take from a sender before the server has read any of it (Linux's defaults, both ends).
SOCKET_BUFFERS = 40_000_000
SMALL = Limits(head_bytes=2000, drained_bytes=50_000, connections=50)
"""Small sizes, and times that no busy machine uses up; a test of one time shortens that one alone."""
SHORT = 0.5
PATIENCE = 30.0
"""Seconds that a test waits for what must come, on the busiest machine."""


@dataclass
class Running:
    """A server in a thread of its own."""

    port: int
    listener: Listener
    waiting: list[Exchange]
    end: Callable[[], None]
    thread: threading.Thread
    call: Callable[[Callable[[], object]], None]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def ask(self, raw: bytes) -> bytes:
        """Send bytes, and return all that comes until the server hangs up."""
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(raw)
            return connection.makefile("rb").read()
        return b""


def _answer(exchange: Exchange, waiting: list[Exchange]) -> None:
    if exchange.path == "/later":
        waiting.append(exchange)
        return
    if exchange.path == "/much":
        exchange.reply(200, b"x" * 20_000_000)
        return
    said = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query,
        "headers": {name.decode(): value.decode("latin-1") for name, value in exchange.headers.items()},
        "body": exchange.body.decode("latin-1"),
        "peer": exchange.peer,
    }
    exchange.reply(200, json.dumps(said).encode())


@contextlib.contextmanager
def serving(limits: Limits, clock: Callable[[], float] = time.monotonic) -> Iterator[Running]:
    waiting: list[Exchange] = []
    listener = Listener(
        lambda exchange: _answer(exchange, waiting),
        lambda: BODY_LIMIT,
        lambda exchange: exchange.reply(413, b'{"error":"long"}', close=True),
        lambda _, reason: json.dumps({"error": reason}).encode(),
        limits,
        clock,
    )
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        thread = threading.Thread(target=lambda: loop.run_until_complete(listener.run(listening, stop)))
        thread.start()

        def call(function: Callable[[], object]) -> None:
            loop.call_soon_threadsafe(function)

        try:
            yield Running(port, listener, waiting, lambda: call(stop.set), thread, call)
        finally:
            call(stop.set)
            thread.join(PATIENCE)
            loop.close()


@pytest.fixture
def server() -> Iterator[Running]:
    with serving(SMALL) as running:
        yield running


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def bodies(raw: bytes) -> list[dict[str, object]]:
    """Return the JSON bodies of answers that came one after the other."""
    found = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        length = int(next(line for line in head.split(b"\r\n") if b"content-length" in line).split()[1])
        found.append(json.loads(rest[:length]))
        raw = rest[length:]
    return found


def test_request_is_taken_apart(server: Running) -> None:
    """Method, path, query, headers in lower case, body and the client's address arrive as sent."""
    raw = server.ask(
        b"POST /a%20b?c=d&e HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nConnection: close\r\n"
        b"Content-Length: 5\r\n\r\nhello"
    )
    (said,) = bodies(raw)
    assert (said["method"], said["path"], said["query"]) == ("POST", "/a%20b", "c=d&e")
    assert said["headers"] == {"host": "a", "x-one": "1", "connection": "close", "content-length": "5"}
    assert (said["body"], said["peer"]) == ("hello", "127.0.0.1")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
    assert b"connection: close" in raw


def test_body_may_come_in_pieces_and_chunks(server: Running) -> None:
    """A body that arrives byte by byte, or in chunks with a trailer, is the same body; a trailer is no header."""
    with server.connect() as connection:
        for byte in HEAD + b"content-length: 5\r\nconnection: close\r\n\r\nhello":
            connection.sendall(bytes([byte]))
        (pieces,) = bodies(connection.makefile("rb").read())
    chunked = HEAD + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    (chunks,) = bodies(server.ask(chunked + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nx-late: 1\r\n\r\n"))
    assert pieces["body"] == chunks["body"] == "hello"
    assert "x-late" not in chunks["headers"]  # type: ignore[operator]


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    """A hundred requests sent at once are answered one by one, in their order."""
    requests = b"".join(b"GET /%d HTTP/1.1\r\nhost: a\r\n\r\n" % n for n in range(100))
    raw = server.ask(requests + b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert [said["path"] for said in bodies(raw)] == [*(f"/{n}" for n in range(100)), "/last"]


def test_later_answer_holds_back_the_next(server: Running) -> None:
    """While a request waits for its answer, the connection's next one is not begun."""
    with server.connect() as connection:
        connection.sendall(
            b"GET /later HTTP/1.1\r\nhost: a\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        )
        until(lambda: len(server.waiting) == 1)
        server.call(lambda: server.waiting[0].reply(200, b'{"first":1}'))
        raw = connection.makefile("rb").read()
    first, second = bodies(raw)
    assert first == {"first": 1}
    assert second["path"] == "/next"


def test_other_protocols_are_declined_without_harm(server: Running) -> None:
    """A client that offers HTTP/2 with its request is answered over HTTP/1.1, body and all."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    with server.connect() as connection:
        connection.sendall(HEAD + offer + b"content-length: 5\r\n\r\nhello")
        connection.sendall(b"GET /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        said = bodies(connection.makefile("rb").read())
    assert [one["path"] for one in said] == ["/x", "/next"]
    assert said[0]["body"] == "hello"


def test_head_has_no_body(server: Running) -> None:
    """HEAD gets the headers that GET would get, and no body."""
    raw = server.ask(b"HEAD /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert raw.endswith(b"\r\n\r\n")
    assert b"content-length: 1" in raw


REFUSED = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "length and chunks": (HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nhey", 400),
    "negative length": (HEAD + b"content-length: -5\r\n\r\n{}", 400),
    "header with a space": (b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
    "bad chunk": (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    "long line": (b"GET /" + b"a" * 3000, 431),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 600, 431),
    "many headers, with their end": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 600 + b"\r\n", 431),
    "long body": (HEAD + b"content-length: 1001\r\n\r\n" + b"x" * 1001, 413),
    "long body, never sent": (HEAD + b"expect: 100-continue\r\ncontent-length: 1001\r\n\r\n", 413),
    "body without an end": (
        HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1000 + b"\r\n",
        408,
    ),
    "half a body": (HEAD + b"content-length: 10\r\n\r\nhalf", 408),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_answered_and_ends_the_connection(case: str) -> None:
    """Malformed, too long or too slow: an error as JSON with its status, and the connection is closed."""
    raw, status = REFUSED[case]
    with serving(replace(SMALL, body_seconds=SHORT) if status == 408 else SMALL) as server:
        said = server.ask(raw)
        assert said.startswith(b"HTTP/1.1 %d " % status)
        assert "error" in bodies(said)[0]
        after = server.ask(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert after.startswith(b"HTTP/1.1 200")


def test_endless_body_is_not_read_for_ever(server: Running) -> None:
    """A body that goes on and on is cut off after a bounded part of it."""
    hundred = 100 * (b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(10 * SOCKET_BUFFERS // len(hundred)):
            connection.sendall(hundred)
        pytest.fail("the server read without an end")


def test_slow_headers_are_cut_off() -> None:
    """A connection whose headers drip in is closed when its time is over, however steadily they drip."""
    hasty = replace(SMALL, head_seconds=SHORT, head_bytes=1_000_000)
    with serving(hasty) as server, server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        deadline = time.monotonic() + PATIENCE
        connection.settimeout(0.1)
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                connection.sendall(b"a: b\r\n")
                if connection.recv(1) == b"":
                    return
        pytest.fail("the server waited on and on")


def test_idle_connections_end() -> None:
    """A connection on which nothing is asked any more is closed after its time."""
    with serving(replace(SMALL, idle_seconds=SHORT)) as server:
        with server.connect() as connection:
            connection.sendall(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
            stream = connection.makefile("rb")
            assert stream.readline().startswith(b"HTTP/1.1 200")
            with contextlib.suppress(ConnectionError):
                stream.read()
        until(lambda: not server.listener.connections)


def test_time_in_which_the_loop_did_not_run_counts_against_no_client() -> None:
    """A server that was stopped, or on a laptop that slept, ends no connection when it goes on."""
    slept = [0.0]
    with serving(SMALL, lambda: time.monotonic() + slept[0]) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        with contextlib.closing(client):
            client.request("GET", "/x")
            client.getresponse().read()
            sock, before = client.sock, server.listener.now
            slept[0] = 1_000.0
            until(lambda: server.listener.now > before + 1)
            client.request("GET", "/x")
            assert client.getresponse().status == 200
            assert client.sock is sock


def test_client_that_takes_no_answer_is_let_go() -> None:
    """A client that reads next to nothing of a large answer does not hold its connection for ever."""
    with serving(replace(SMALL, write_seconds=SHORT)) as server, server.connect() as connection:
        connection.sendall(b"GET /much HTTP/1.1\r\nhost: a\r\n\r\n")
        assert connection.recv(1) == b"H"  # So it was there, and its answer has begun.
        until(lambda: not server.listener.connections)


def test_answer_to_a_client_that_has_gone_is_dropped(server: Running) -> None:
    """Who hangs up before the answer gets none, and nothing fails for it."""
    with server.connect() as connection:
        connection.sendall(b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n")
        until(lambda: len(server.waiting) == 1)
    # Until there is something to write, it might only have said all that it has to say.
    server.call(lambda: server.waiting[0].reply(200, b"{}"))
    until(lambda: not server.listener.connections)
    assert server.ask(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_idle_connections_give_way_to_new_ones(server: Running) -> None:
    """Beyond the most connections, the one idle longest is closed, and whoever comes new is answered."""
    with contextlib.ExitStack() as stack:
        for _ in range(120):
            stack.enter_context(server.connect())
        said = server.ask(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200")
        assert len(server.listener.connections) <= 50
        assert server.listener.refused > 0


def test_end_waits_for_what_has_begun() -> None:
    """Told to stop, the server answers what it has begun, says that it closes, and takes no more."""
    with serving(Limits()) as server, server.connect() as busy, server.connect() as idle:
        busy.sendall(b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n")
        until(lambda: len(server.waiting) == 1)
        server.end()
        assert idle.recv(10) == b""
        assert server.thread.is_alive()
        with pytest.raises(ConnectionError):
            server.connect().close()
        server.call(lambda: server.waiting[0].reply(200, b"{}"))
        assert b"connection: close" in busy.makefile("rb").read()
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()


def test_draining_answers_and_sends_away() -> None:
    """While it drains, the server still answers new connections, and each answer closes its own."""
    with serving(Limits()) as server:
        server.listener.draining = True
        said = server.ask(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in said
