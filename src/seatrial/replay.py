"""Replay a period of the past as live traffic, in simulated time.

Rows are sent as requests in the order of the instants at which they would have been predicted,
and an outcome is sent before the first request at or after the instant at which it became known.
So a server that learns from outcomes finds what it would have found then: its answers are those of
the past, not those of hindsight.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

import aiohttp
import numpy as np
import orjson
import polars as pl

from seatrial.contract.schema import Contract, parse_duration
from seatrial.errors import UsageError

CONCURRENCY = 8
OUTCOMES_PER_CALL = 1_000
KEPT_ERRORS = 5
_SLOT = "_slot"
_LABEL_TIME = "_label_time"
_DATATYPES = {"string": "BYTES", "time": "BYTES", "integer": "INT64", "number": "FP64", "boolean": "BOOL"}
_ISO = "%Y-%m-%dT%H:%M:%S%.6fZ"


@dataclass(frozen=True, order=True)
class PendingOutcome:
    """An outcome that is to be sent when its time has come.

    Attributes:
        occurred_at: When it became known, UTC.
        prediction_id: The prediction it belongs to.
        value: The label.
    """

    occurred_at: datetime
    prediction_id: str
    value: bool


@dataclass
class ReplayResult:
    """What a replay did.

    Attributes:
        requests: Requests for predictions that were sent.
        failures: Requests, outcomes' included, that were not answered as they should be.
        errors: What was answered to the first of them.
        outcomes: Outcomes that were sent.
        seconds: How long it took.
        milliseconds: Time of each request for predictions.
        prediction_ids: The prediction of each row, by the row's key.
        bundles: How many rows each bundle answered, by its digest.
        pending: Outcomes that become known after the period: send them with the next one.
    """

    requests: int = 0
    failures: int = 0
    errors: list[str] = field(default_factory=list)
    outcomes: int = 0
    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    prediction_ids: dict[tuple[Any, ...], str] = field(default_factory=dict)
    bundles: dict[str, int] = field(default_factory=dict)
    pending: list[PendingOutcome] = field(default_factory=list)

    def latency(self, quantile: float) -> float:
        """Return a quantile (0 to 1) of the requests' times in milliseconds; NaN without requests."""
        return float(np.quantile(self.milliseconds, quantile)) if self.milliseconds else float("nan")

    @property
    def p50(self) -> float:
        """Median time of a request in milliseconds."""
        return self.latency(0.5)

    @property
    def p99(self) -> float:
        """99th percentile of the requests' times in milliseconds."""
        return self.latency(0.99)


Progress = Callable[[datetime, int, int], Awaitable[None]]
"""Waited for after each slot, while nothing is under way: with the simulated time, the rows done and all rows."""


async def replay(
    contract: Contract,
    rows: pl.DataFrame,
    url: str,
    *,
    known_at: pl.Expr,
    slot: str = "1m",
    rows_per_request: int = 1,
    end: datetime | None = None,
    pending: Iterable[PendingOutcome] = (),
    concurrency: int = CONCURRENCY,
    on_progress: Progress | None = None,
) -> ReplayResult:
    """Send rows as requests, and their labels as outcomes, in the order of simulated time.

    Time passes in slots. Before the requests of a slot, the outcomes known before its end are
    sent; its requests then go together. A request's features count only outcomes that had occurred
    by its own instant, whatever the server knows besides, so every request finds exactly what it
    would have found then, provided that no row's label is known within the slot of its request:
    such an outcome is sent a slot later.

    Args:
        contract: The model's contract.
        rows: Rows of the prediction's table: inputs, label and label time. A row without an
            instant of prediction is left out.
        url: Address of the server, such as ``http://127.0.0.1:8080``.
        known_at: The instant at which a row is predicted, as ``features.py`` says.
        slot: Length of a slot, such as ``1m`` or ``1h``.
        rows_per_request: Rows in a request.
        end: End of the period (exclusive): outcomes known before it are sent after the last slot.
            Without it, none are.
        pending: Outcomes of an earlier period that were not known at its end.
        concurrency: Most requests on their way at once.
        on_progress: Waited for after each slot.

    Returns:
        What was done. A row without a label never has an outcome.

    Raises:
        UsageError: if the server cannot be reached.
    """
    started = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        run = _Replay(contract, f"{url.rstrip('/')}/v2/models/{contract.name}", session, list(pending))
        await run.check()
        prepared, length = run.prepare(rows, known_at, slot), parse_duration(slot)
        done = 0
        for (instant,), group in prepared.group_by(_SLOT, maintain_order=True):
            assert isinstance(instant, datetime)
            await run.send_outcomes(instant + length - timedelta(microseconds=1))
            slot_rows = run.take_out(group)
            firsts = range(0, group.height, rows_per_request)
            await asyncio.gather(*(run.send_rows(slot_rows.part(i, rows_per_request)) for i in firsts))
            done += group.height
            if on_progress is not None:
                await on_progress(instant, done, rows.height)
        if end is not None:
            await run.send_outcomes(end - timedelta(microseconds=1))
    run.result.pending = sorted(run.waiting)
    run.result.seconds = time.perf_counter() - started
    return run.result


@dataclass(frozen=True)
class _Rows:
    """Rows of a slot: their inputs by name, and for each its key, its label and when that became known."""

    inputs: dict[str, list[Any]]
    keys: list[tuple[Any, ...]]
    labels: list[Any]
    known: list[datetime | None]

    def part(self, first: int, size: int) -> _Rows:
        cut = slice(first, first + size)
        inputs = {name: values[cut] for name, values in self.inputs.items()}
        return _Rows(inputs, self.keys[cut], self.labels[cut], self.known[cut])


class _Replay:
    """One replay: the outcomes that wait for their time, and the result so far."""

    def __init__(
        self, contract: Contract, address: str, session: aiohttp.ClientSession, pending: list[PendingOutcome]
    ) -> None:
        self.result = ReplayResult()
        self.waiting = pending
        heapq.heapify(self.waiting)
        self._contract = contract
        self._table = contract.tables[contract.prediction.table]
        self._address = address
        self._session = session

    async def check(self) -> None:
        try:
            async with self._session.get(self._address) as answer:
                if answer.status == HTTPStatus.OK:
                    return
                said = (await answer.text())[:200]
        except (aiohttp.ClientError, TimeoutError) as error:
            said = str(error)
        raise UsageError(
            f"The server at {self._address} cannot be used: {said}", remedy="Start it: seatrial serve MODEL"
        )

    def prepare(self, rows: pl.DataFrame, known_at: pl.Expr, slot: str) -> pl.DataFrame:
        """Return the rows by their slots, with times as texts and when each label became known."""
        label_time = self._contract.label.time or self._table.time
        times = [name for name, column in self._table.columns.items() if column.type == "time"]
        return (
            rows.with_columns(
                known_at.dt.cast_time_unit("us").alias("_known_at"),
                (pl.col(label_time) if label_time else known_at).alias(_LABEL_TIME),
            )
            .with_columns(pl.col("_known_at").dt.truncate(slot).alias(_SLOT))
            .drop_nulls(_SLOT)
            .sort("_known_at", maintain_order=True)
            .with_columns(pl.col([name for name in times if name in rows.columns]).dt.strftime(_ISO))
        )

    def take_out(self, group: pl.DataFrame) -> _Rows:
        """Return a slot's rows as Python's own values, all at once: asking a frame for each row costs more."""
        return _Rows(
            inputs={name: group[name].to_list() for name in self._contract.prediction.inputs},
            keys=group.select(self._table.key).rows(),
            labels=group[self._contract.label.column].to_list(),
            known=group[_LABEL_TIME].to_list(),
        )

    async def send_rows(self, part: _Rows) -> None:
        tensors = [
            {
                "name": name,
                "shape": [len(values)],
                "datatype": _DATATYPES[self._table.columns[name].type],
                "data": values,
            }
            for name, values in part.inputs.items()
        ]
        begun = time.perf_counter()
        answer = await self._post("infer", {"inputs": tensors}, accepted=(200,))
        self.result.requests += 1
        self.result.milliseconds.append(1000 * (time.perf_counter() - begun))
        if answer is not None:
            self._expect_outcomes(part, answer)

    def _expect_outcomes(self, part: _Rows, answer: dict[str, Any]) -> None:
        ids = next(output["data"] for output in answer["outputs"] if output["name"] == "prediction_id")
        bundle = answer["model_version"]
        self.result.bundles[bundle] = self.result.bundles.get(bundle, 0) + len(part.keys)
        self.result.prediction_ids.update(zip(part.keys, ids, strict=True))
        for name, value, instant in zip(ids, part.labels, part.known, strict=True):
            if value is not None and instant is not None:
                heapq.heappush(self.waiting, PendingOutcome(instant, name, bool(value)))

    async def send_outcomes(self, until: datetime) -> None:
        """Send what became known at ``until`` or before."""
        due: list[PendingOutcome] = []
        while self.waiting and self.waiting[0].occurred_at <= until:
            due.append(heapq.heappop(self.waiting))
        for first in range(0, len(due), OUTCOMES_PER_CALL):
            await self._send_some(due[first : first + OUTCOMES_PER_CALL])

    async def _send_some(self, outcomes: list[PendingOutcome]) -> None:
        items = [
            {"prediction_id": o.prediction_id, "value": o.value, "occurred_at": o.occurred_at.isoformat()}
            for o in outcomes
        ]
        # An id that the server has forgotten is kept all the same; see docs/reference/server.md.
        answer = await self._post("feedback", {"outcomes": items}, accepted=(200, 202, 404))
        if answer is not None:
            self.result.outcomes += len(outcomes)
            return
        for outcome in outcomes:
            heapq.heappush(self.waiting, outcome)

    async def _post(self, what: str, content: Any, *, accepted: tuple[int, ...]) -> dict[str, Any] | None:
        headers = {"content-type": "application/json"}
        try:
            async with self._session.post(
                f"{self._address}/{what}", data=orjson.dumps(content), headers=headers
            ) as answer:
                body = await answer.read()
                if answer.status in accepted:
                    said: dict[str, Any] = orjson.loads(body)
                    return said
                problem = f"{answer.status}: {body[:200].decode(errors='replace')}"
        except (aiohttp.ClientError, TimeoutError) as error:
            problem = f"{type(error).__name__}: {error}"
        self.result.failures += 1
        self.result.errors += [problem] if len(self.result.errors) < KEPT_ERRORS else []
        return None
