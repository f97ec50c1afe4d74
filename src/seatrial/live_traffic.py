"""Live traffic of past months, one after the other, beside whatever else a demonstration does meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import polars as pl
import uvloop

from seatrial.contract.load import LoadedContract
from seatrial.errors import SeatrialError
from seatrial.model_check import load_features
from seatrial.replay import PendingOutcome, ReplayResult, replay
from seatrial.sources import Period

SLOT = "1h"
"""Traffic goes hour by hour: within the two hours before a departure no flight lands that is asked about."""
CONCURRENCY = 32
HELD_FROM = 0.75
"""The share of a month's rows after which traffic that is held waits."""
LOOK_SECONDS = 0.1


class Traffic:
    """Live traffic of one month after the other, in a thread of its own.

    Args:
        loaded: The model's contract.
        rows: The rows of all months, with labels and label times.
        url: The server's address.
        tell: Called after each slot with the month, the flights asked about and all of its flights.
    """

    def __init__(
        self, loaded: LoadedContract, rows: pl.DataFrame, url: str, tell: Callable[[str, int, int], None]
    ) -> None:
        self._loaded = loaded
        self._rows = rows
        self.url = url
        self._tell = tell
        self._known_at = load_features(loaded).known_at
        self._thread: threading.Thread | None = None
        self._result: ReplayResult | None = None
        self._error: BaseException | None = None
        self._pending: list[PendingOutcome] = []
        self._stop = threading.Event()
        self.pause = 0.0
        """Seconds between two slots of traffic."""
        self.is_held = False
        """Whether the last part of a month waits."""

    def start(self, month: str, rows_per_request: int) -> None:
        """Begin a month: its requests hour by hour, each after the outcomes that were known by then."""
        arguments = (Period.parse(month), rows_per_request)
        self._thread = threading.Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def finish(self) -> ReplayResult:
        """Wait for the month's end, and hold nothing up until then.

        Raises:
            SeatrialError: if the traffic ended with an error.
        """
        self.pause, self.is_held = 0.0, False
        assert self._thread is not None
        while self._thread.is_alive():
            self._thread.join(LOOK_SECONDS)  # A join without a limit would keep Ctrl-C waiting.
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """End the traffic after the slot that is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self, month: Period, rows_per_request: int) -> None:
        assert self._known_at is not None
        departure = pl.col(str(self._loaded.contract.tables[self._loaded.contract.prediction.table].time))
        rows = self._rows.filter(departure >= month.start, departure < month.end)
        try:
            self._result = uvloop.run(
                replay(
                    self._loaded.contract,
                    rows,
                    self.url,
                    known_at=self._known_at,
                    slot=SLOT,
                    rows_per_request=rows_per_request,
                    concurrency=CONCURRENCY,
                    end=month.end,
                    pending=self._pending,
                    on_progress=lambda _, done, total: self._between(month.name, done, total),
                )
            )
            self._pending = self._result.pending
        except BaseException as error:  # noqa: BLE001 -- raised again in the thread that waits
            self._error = error

    async def _between(self, month: str, done: int, total: int) -> None:
        """Let time pass between two slots."""
        self._tell(month, done, total)
        await asyncio.sleep(self.pause)
        while self.is_held and done >= HELD_FROM * total and not self._stop.is_set():  # noqa: ASYNC110 -- another thread's
            await asyncio.sleep(LOOK_SECONDS)
        if self._stop.is_set():
            raise SeatrialError("The traffic was stopped.")
