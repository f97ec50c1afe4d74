"""Where the processor time of one request goes, part by part: single rows, 16 answered together, no network.

Each part works on the same requests, on its own and many times; its best time counts, as what is slower is the rest of
the machine. What a whole request takes beyond the sum of its parts goes into calls between them, and into caches that
are cold because all parts take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import orjson
import uvloop
from bench import FOLDER, RESULTS
from inputs import asked_rows, infer_body, served_model, workspace_of
from rich.console import Console
from rich.table import Table

from seatrial.bundle import open_trust_root
from seatrial.feedback.recent import RecentPredictions
from seatrial.server.batching import Answered, Predictor, Question, _record
from seatrial.server.holder import ModelHolder
from seatrial.server.http import Application
from seatrial.server.http1 import Connection, Listener
from seatrial.server.inference import write_inference
from seatrial.server.metrics import Metrics
from seatrial.server.model import ServedModel
from seatrial.server.service import Service
from seatrial.workspace import Workspace

REQUESTS, BATCH, PASSES = 1_024, 16, 15


class _Transport:
    """Takes what a connection writes, and drops it."""

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return ("127.0.0.1", 1)

    def write(self, _: bytes) -> None:
        pass


def best(work: Callable[[Any], Any], items: list[Any]) -> float:
    """Return the microseconds a request of the best pass over all items."""

    def once() -> float:
        started = time.perf_counter()
        for item in items:
            work(item)
        return time.perf_counter() - started

    return min(once() for _ in range(PASSES)) / REQUESTS * 1e6


def parts_of(model: ServedModel, bodies: list[bytes]) -> dict[str, float]:
    """Return the microseconds of each part of a request."""
    requests = [model.reader.read(body) for body in bodies]
    rows = [request.rows[0] for request in requests if request is not None]
    batches = [rows[first : first + BATCH] for first in range(0, REQUESTS, BATCH)]
    online, schema = model.online, model.schema.features
    plain = [online.compute_plain(batch)[0] for batch in batches]  # type: ignore[index]
    matrices = [schema.encode_rows(features) for features in plain]
    asked = [
        (
            [Question(model, [row], None, "127.0.0.1", lambda _: None) for row in batch],
            batch,
            model.predict(batch),
        )
        for batch in batches
    ]
    records = [_record(*one) for one in asked]
    answers = [
        (
            model.answer_head,
            request,
            Answered(record.bundle, record.prediction_id[:1], record.probability[:1], [True]),
        )
        for request, record in zip(requests, records * BATCH, strict=True)
    ]
    echo = Listener(lambda exchange: exchange.reply(200, exchange.body), lambda: 2**20, print, lambda *_: b"")
    echo.tick()
    connection = Connection(echo)
    connection.connection_made(_Transport())
    session = model._session  # noqa: SLF001 -- it is what is measured
    return {
        "HTTP: parse the request, frame the answer": best(
            connection.data_received, [_http(body) for body in bodies]
        ),
        "JSON: read the body, check names, types, shapes, values": best(model.reader.read, bodies),
        "features: histories, weather, plane, expressions": best(online.compute_plain, batches),
        "features: encode as numbers": best(schema.encode_rows, plain),
        "model: onnxruntime": best(
            lambda matrix: session.run(["probabilities"], {"features": matrix}), matrices
        ),
        "log: ids and the record": best(lambda one: _record(*one), asked),
        "log: the record as JSON": best(lambda record: record.to_bytes(), records),
        "write the answer's JSON": best(lambda one: write_inference(*one), answers),
    }


def _http(body: bytes) -> bytes:
    head = b"POST /v2/models/flights/infer HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


async def whole(workspace: Workspace, model: ServedModel, bodies: list[bytes]) -> float:
    """Return the microseconds of a whole request without network and log."""
    recent, metrics = RecentPredictions(), Metrics()
    holder = ModelHolder(workspace, open_trust_root(workspace), model, None)
    application = Application(Service(holder, None, recent, Predictor(None, recent, metrics), metrics))
    listener = Listener(
        application.handle, application.body_limit, application.too_long, application.malformed
    )
    listener.tick()
    connections = [Connection(listener) for _ in range(BATCH)]
    for connection in connections:
        connection.connection_made(_Transport())
    texts = [_http(body) for body in bodies]
    found = []
    for _ in range(PASSES):
        started = time.perf_counter()
        for first in range(0, REQUESTS, BATCH):
            for connection, text in zip(connections, texts[first : first + BATCH], strict=True):
                connection.data_received(text)
            while application._service.predictor.waiting:  # noqa: ASYNC110, SLF001 -- turns of the loop are measured
                await asyncio.sleep(0)
        found.append(time.perf_counter() - started)
    return min(found) / REQUESTS * 1e6


def main() -> None:
    """Measure, and print and write the table."""
    workspace = workspace_of(FOLDER)
    model = served_model(workspace)
    bodies = [infer_body(model, [row]) for row in asked_rows(workspace, model)[:REQUESTS]]
    parts = parts_of(model, bodies)
    total = uvloop.run(whole(workspace, model, bodies))
    parts["calls between the parts, cold caches"] = total - sum(
        took for name, took in parts.items() if name != "log: the record as JSON"
    )
    table = Table(title=f"Microseconds of processor time a request, {BATCH} together", title_justify="left")
    table.add_column("part")
    table.add_column("µs", justify="right")
    for name, took in parts.items():
        table.add_row(name, f"{took:.1f}")
    table.add_section()
    table.add_row("whole, without network and log", f"{total:.1f}")
    Console().print(table)
    content = {"parts": parts, "whole": total}
    (RESULTS / "serving-profile.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    main()
