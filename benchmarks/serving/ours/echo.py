"""The limit: the server's HTTP core alone, which answers each request with its body."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import uvloop

from seatrial.server.http1 import BACKLOG, Exchange, Listener


def _answer(exchange: Exchange) -> None:
    exchange.reply(200, exchange.body)


def listen(port_file: Path) -> socket.socket:
    """Listen at a free port, and write it down."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listening.setblocking(False)
    port_file.write_text(str(listening.getsockname()[1]))
    return listening


async def _run(listening: socket.socket) -> None:
    listener = Listener(_answer, lambda: 2**24, _answer, lambda _, reason: reason.encode())
    await listener.run(listening, asyncio.Event())


if __name__ == "__main__":
    uvloop.run(_run(listen(Path(sys.argv[1]))))
