"""The load: as many connections as asked for, each with one request on its way at any time.

It is a process of its own on a core of its own, one loop over ``epoll`` without a framework, so that it is not
what limits a server; what it can drive is measured by the echo. Latency is from handing a request to the kernel
to having its answer whole.
"""

from __future__ import annotations

import argparse
import os
import re
import select
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import orjson

RECEIVED = 256 * 1024
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_OK = (b"HTTP/1.1 200", b"HTTP/1.0 200")


@dataclass
class Client:
    """One connection.

    Attributes:
        connection: Its socket.
        sent: When its request was handed over, by ``time.perf_counter``.
        received: What has arrived of the answer.
    """

    connection: socket.socket
    sent: float = 0.0
    received: bytes = field(default=b"")


class Load:
    """Asks one server.

    Args:
        address: Host and port.
        requests: Whole requests, asked in turn.
    """

    def __init__(self, address: tuple[str, int], requests: list[bytes]) -> None:
        self._address = address
        self._requests = cycle(requests)
        self._epoll = select.epoll()
        self._clients: dict[int, Client] = {}
        self.latencies = array("d")
        self.connected = 0
        self.answered = 0

    def run(self, connections: int, seconds: float, warm_up: float) -> float:
        """Ask for so many seconds over so many connections; in a share of them, the warm-up, nothing is counted.

        Returns:
            The seconds in which the answers of ``latencies`` came.

        Raises:
            SystemExit: if an answer is not 200.
        """
        for _ in range(connections):
            self._connect()
        began = time.perf_counter()
        counted_from, end = began + warm_up * seconds, began + seconds
        counting = False
        while (now := time.perf_counter()) < end:
            if not counting and now >= counted_from:
                counting, counted_from = True, now
                self.answered = len(self.latencies)
                del self.latencies[:]
            for descriptor, _ in self._epoll.poll(1.0):
                self._take(self._clients[descriptor])
        took = time.perf_counter() - counted_from
        self.answered += len(self.latencies)
        for client in self._clients.values():
            client.connection.close()
        return took

    def _connect(self) -> None:
        connection = socket.create_connection(self._address, timeout=30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._clients[connection.fileno()] = Client(connection)
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        self.connected += 1
        self._ask(client)

    def _ask(self, client: Client) -> None:
        client.sent = time.perf_counter()
        client.connection.sendall(next(self._requests))

    def _take(self, client: Client) -> None:
        received = client.connection.recv(RECEIVED)
        answer = client.received + received if client.received else received
        end = answer.find(b"\r\n\r\n")
        length = _LENGTH.search(answer, 0, end) if end >= 0 else None
        if length is None or len(answer) < end + 4 + int(length[1]):
            if not received:
                sys.exit(f"The server ended a connection: {answer[:200]!r}")
            client.received = answer
            return
        self.latencies.append(time.perf_counter() - client.sent)
        client.received = b""
        if not answer.startswith(_OK):
            sys.exit(f"The server answered: {answer[:500]!r}")
        if _CLOSE.search(answer, 0, end):
            # Some servers take one request a connection: a client of theirs connects anew each time.
            self._epoll.unregister(client.connection.fileno())
            del self._clients[client.connection.fileno()]
            client.connection.close()
            self._connect()
        else:
            self._ask(client)


def read_requests(path: Path) -> list[bytes]:
    """Read what :func:`write_requests` wrote."""
    content, requests, place = path.read_bytes(), [], 0
    while place < len(content):
        (size,) = struct.unpack_from("<I", content, place)
        requests.append(content[place + 4 : place + 4 + size])
        place += 4 + size
    return requests


def write_requests(path: Path, target: str, bodies: list[bytes]) -> None:
    """Write whole requests: POST with a JSON body each, with its length before it."""
    head = f"POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    requests = [head.encode() % len(body) + body for body in bodies]
    path.write_bytes(b"".join(struct.pack("<I", len(request)) + request for request in requests))


def main() -> None:
    """Put the load on a server as the command line says, and print what was seen as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--warm-up", type=float, default=0.3)
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    load = Load(("127.0.0.1", given.port), read_requests(given.requests))
    seconds = load.run(given.connections, given.seconds, given.warm_up)
    cpu = time.process_time()
    found = sorted(load.latencies)
    if not found:
        sys.exit("No answer came in the time that is counted.")
    print(
        orjson.dumps(
            {
                "answers": len(found),
                "answers_with_warm_up": load.answered,
                "throughput": len(found) / seconds,
                "client_busy": cpu / given.seconds,
                "connected": load.connected,
                **{
                    name: found[min(int(share * len(found)), len(found) - 1)]
                    for name, share in PERCENTILES.items()
                },
            }
        ).decode()
    )


if __name__ == "__main__":
    main()
