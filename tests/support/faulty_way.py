"""The way to an object store, on which one request fails: refused, broken, or with its answer lost."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["refused", "broken", "lost", "answer lost"]
"""403 and 500 by the store, a connection that ends before the store hears of it, and one that ends after it did it."""
REFUSALS: dict[Fault, tuple[int, str]] = {"refused": (403, "AccessDenied"), "broken": (500, "InternalError")}
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
WRITES = {"PUT", "POST", "DELETE"}


@dataclass
class FaultyWay:
    """Forwards requests to a store, but for one.

    Attributes:
        address: Where it listens.
        fault: What becomes of that one.
        number: Which request it is, counted from 1; 0: none.
        writes_only: Whether requests that change nothing are not counted.
        seen: The requests that were counted, by method and path.
    """

    address: str
    fault: Fault = "broken"
    number: int = 0
    writes_only: bool = False
    seen: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fails(self, method: str, path: str) -> bool:
        """Count a request, and return whether it is the one."""
        if self.writes_only and method not in WRITES:
            return False
        with self._lock:
            self.seen.append(f"{method} {path}")
            return len(self.seen) == self.number

    def begin(self, fault: Fault, number: int, *, writes_only: bool) -> None:
        """Count anew, and let a request fail."""
        with self._lock:
            self.fault, self.number, self.writes_only = fault, number, writes_only
            self.seen.clear()


class _Server(ThreadingHTTPServer):
    """The way's end here; ``store`` is the ``HOST:PORT`` of its other end, and ``way`` says what fails."""

    daemon_threads = True
    store: str
    way: FaultyWay


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.server.way.fault if self.server.way.fails(self.command, self.path) else None
        if fault == "lost":
            self.close_connection = True
            return
        if fault in REFUSALS:
            status, code = REFUSALS[fault]
            self._answer(
                status,
                {"content-type": "application/xml"},
                f"<Error><Code>{code}</Code></Error>".encode(),
            )
            return
        connection = http.client.HTTPConnection(self.server.store, timeout=60)
        try:
            # The host is part of what the client signed, so it stays as it was sent.
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        except OSError:  # The store is gone: so is the way to it.
            self.close_connection = True
            return
        finally:
            connection.close()
        if fault == "answer lost":
            self.close_connection = True
            return
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        length = answer.getheader("content-length") if self.command == "HEAD" else None
        self._answer(answer.status, kept, content, length)

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, length: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 -- names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def faulty_way(store: str) -> Iterator[FaultyWay]:
    """Be a way to the store at ``http://HOST:PORT`` until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.store = store.removeprefix("http://")
    way = server.way = FaultyWay(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield way
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
