"""Put a real server of a bundle under load: requests that are due at a steady rate, whether or not it keeps up.

Each request has an instant at which it is due, and its time counts from then. A client that waits for one
answer before it asks again would ask a slow server less, and so not see how slow it is (coordinated
omission; Tene, "How not to measure latency", 2013).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson

from seatrial.bundle import Bundle, TrustRoot
from seatrial.delivery.declared import ServingImage
from seatrial.delivery.load_server import started
from seatrial.server.requests import KINDS
from seatrial.tables import Tables
from seatrial.workspace import Workspace

ROWS = 1_000
"""Rows that are asked about, again and again."""
CONNECTIONS = 64
ANSWER_SECONDS = 10.0
WARM_UP = 200
"""Requests before it begins."""


@dataclass(frozen=True)
class Loaded:
    """What came of a load.

    Attributes:
        milliseconds: Of each request, from when it was due until its answer, or until it was given up.
        failures: How many failed, by what was wrong.
    """

    milliseconds: list[float]
    failures: dict[str, int]

    @property
    def requests(self) -> int:
        """How many there were."""
        return len(self.milliseconds)

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(self.failures.values())

    def percentile(self, share: int) -> float:
        """Return the time within which so many of a hundred were answered, in milliseconds."""
        return float(np.percentile(self.milliseconds, share))


def put_under_load(
    bundle: Bundle,
    workspace: Workspace,
    trust: TrustRoot,
    *,
    rate: int,
    seconds: int,
    image: ServingImage | None = None,
) -> Loaded:
    """Ask a server of a bundle at a steady rate.

    Args:
        bundle: The bundle.
        workspace: Where it and the tables lie that its features read.
        trust: The makers of bundles that are trusted.
        rate: Requests of one row that are due in a second.
        seconds: How long.
        image: The image that the server runs in, as a container; without it, it is a process.

    Raises:
        ToolError: if the server does not start.
        TableError: if the predicted table is missing.
    """
    bodies = _bodies(bundle, workspace)
    with started(bundle, workspace, trust, image) as address:
        return asyncio.run(_ask(address, bundle.manifest.model, bodies, rate, seconds))


def _bodies(bundle: Bundle, workspace: Workspace) -> list[bytes]:
    """Return requests of one row each, from the newest rows of the predicted table."""
    inputs = bundle.schema.inputs
    table = Tables(workspace, bundle.manifest.model, "valid").read(bundle.schema.table)
    rows = table.select([column.name for column in inputs]).tail(ROWS).collect()
    return [
        orjson.dumps(
            {
                "inputs": [
                    {
                        "name": column.name,
                        "shape": [1],
                        "datatype": KINDS[column.type].datatypes[0],
                        "data": [_plain(row[column.name])],
                    }
                    for column in inputs
                ]
            }
        )
        for row in rows.iter_rows(named=True)
    ]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


async def _ask(address: str, model: str, bodies: list[bytes], rate: int, seconds: int) -> Loaded:
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n"
    requests = [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    free: asyncio.LifoQueue[_Connection] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        free.put_nowait(_Connection(address))
    for number in range(WARM_UP):
        await _one(free, requests[number % len(requests)])
    failures: Counter[str] = Counter()
    milliseconds: list[float] = []
    begun = time.monotonic()

    async def one(number: int) -> None:
        due = begun + number / rate
        await asyncio.sleep(due - time.monotonic())
        wrong = await _one(free, requests[number % len(requests)])
        milliseconds.append((time.monotonic() - due) * 1_000)
        if wrong:
            failures[wrong] += 1

    await asyncio.gather(*(one(number) for number in range(rate * seconds)))
    while not free.empty():
        await free.get_nowait().close()
    return Loaded(milliseconds, dict(failures))


async def _one(free: asyncio.LifoQueue[_Connection], request: bytes) -> str:
    """Ask once, when a connection is free, and return what was wrong; empty where nothing was."""
    connection = await free.get()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            status = await connection.ask(request)
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        await connection.close()
        return type(error).__name__
    finally:
        free.put_nowait(connection)
    return "" if status == "200" else f"status {status}"


class _Connection:
    """One connection to the server, opened when it is needed."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> str:
        """Send a request and return its answer's status."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        if "connection: close" in head:
            await self.close()
        return head.split(" ", 2)[1]

    async def close(self) -> None:
        """Close it; the next request opens it anew."""
        if self._streams is not None:
            (_, writer), self._streams = self._streams, None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
