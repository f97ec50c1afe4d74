"""A load at a steady rate: a server that stalls is seen to, by every request that was due meanwhile."""

from __future__ import annotations

import asyncio
import contextlib

from seatrial.delivery import load_test

RATE = 100
STALL_SECONDS = 1.0


async def _asked(status: str, stall: float) -> load_test.Loaded:
    """Ask a server that answers at once, but for one stall of all its connections after the warm-up."""
    seen, stalled_until = [0], [0.0]
    loop = asyncio.get_running_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            seen[0] += 1
            if seen[0] == load_test.WARM_UP + 20:
                stalled_until[0] = loop.time() + stall
            await asyncio.sleep(max(stalled_until[0] - loop.time(), 0))
            writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await answer(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        loaded = await load_test._ask(f"127.0.0.1:{port}", "ferry", [b"{}"], RATE, 2)
    await server.wait_closed()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others)
    return loaded


def test_a_stall_counts_for_each_request_that_was_due() -> None:
    """Those that were due in its first half waited for the rest; a client that waits for answers would see one."""
    loaded = asyncio.run(_asked("200", STALL_SECONDS))

    assert loaded.requests == 2 * RATE
    assert loaded.failed == 0
    assert sum(milliseconds >= 500 for milliseconds in loaded.milliseconds) >= 40
    assert loaded.percentile(100) >= 900


def test_what_is_not_answered_with_200_is_counted() -> None:
    """By its status."""
    loaded = asyncio.run(_asked("503", 0))

    assert loaded.failures == {"status 503": 2 * RATE}
