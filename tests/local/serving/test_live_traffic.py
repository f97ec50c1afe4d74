"""A month of live traffic beside a training: its end waits for whoever is trained meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl
import pytest
from tests.local.serving.conftest import Ferry, crossings, wait_for

from seatrial.contract import load_contract
from seatrial.errors import SeatrialError
from seatrial.live_traffic import HELD_FROM, Traffic

FEBRUARY = datetime(2024, 2, 1, tzinfo=UTC)


@pytest.fixture
def held(ferry: Ferry) -> Iterator[tuple[Traffic, list[int], int]]:
    """Traffic of a month that waits with its last part: itself, the rows done after each slot, and all rows."""
    rows = pl.DataFrame(crossings(4, start=FEBRUARY), infer_schema_length=None)
    done: list[int] = []
    with ferry.serve() as server:
        traffic = Traffic(
            load_contract(ferry.folder), rows, server.address, lambda _, now, __: done.append(now)
        )
        traffic.is_held = True
        traffic.start("2024-02", 50)
        wait_for(lambda: bool(done) and done[-1] >= HELD_FROM * rows.height, "three quarters")
        yield traffic, done, rows.height


def test_held_traffic_waits_with_its_last_part(held: tuple[Traffic, list[int], int]) -> None:
    """Three quarters are asked about, the rest once nobody holds it; a month that is not held runs through."""
    traffic, done, height = held
    time.sleep(0.5)
    held_at = done[-1]
    result = traffic.finish()

    assert HELD_FROM * height <= held_at < height
    assert done[-1] == height
    assert (result.failures, sum(result.bundles.values())) == (0, height)


def test_held_traffic_can_be_stopped(held: tuple[Traffic, list[int], int]) -> None:
    """What waits ends when it is told to, and says so to who asks for the result."""
    traffic, done, height = held
    traffic.stop()
    with pytest.raises(SeatrialError, match="stopped"):
        traffic.finish()

    assert done[-1] < height
