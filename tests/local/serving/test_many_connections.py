"""Ten thousand clients that are connected and ask nothing take nothing from those that ask."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.local.serving.conftest import Ferry, crossings, outputs
from tests.local.serving.test_load import figures

pytestmark = pytest.mark.long

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
IDLE = 9_990
"""With those that ask, as many as the server takes at once."""
OTHERS = 300
"""Files that both processes have open beside the connections."""


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as ten thousand connections need; skips where the machine forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + OTHERS:
        pytest.skip(f"a process may have {hard:,} open files here; {IDLE + OTHERS:,} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + OTHERS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_take_nothing_from_others(ferry: Ferry, many_files: None) -> None:
    """With 9,990 idle connections every request of others is answered, and the idle ones stay."""
    with ferry.serve() as server, contextlib.ExitStack() as open_sockets:
        before = figures(server)["process_resident_memory_bytes"]
        host, port = server.address.removeprefix("http://").split(":")
        idle = []
        for _ in range(IDLE):
            client = open_sockets.enter_context(socket.create_connection((host, int(port)), timeout=60))
            client.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            idle.append(client)
        answered = [outputs(server.infer([row])) for row in ROWS[:50]]
        found = figures(server)

        assert len(answered) == 50
        assert found["seatrial_connections"] > IDLE
        assert found["seatrial_refused_connections_total"] == 0
        assert found["process_resident_memory_bytes"] - before < IDLE * 20_000
        last = idle[-1]
        last.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        assert last.recv(1000).startswith(b"HTTP/1.1 200")
        assert server.stop() == 0
