"""Replaying the past as live traffic, and what the server learns from it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tests.local.serving.conftest import Ferry, Server, crossings, wait_for

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.contract import load_contract
from seatrial.feedback import count_outcomes, join_outcomes
from seatrial.replay import ReplayResult, replay

FEBRUARY = datetime(2024, 2, 1, tzinfo=UTC)


def run(ferry: Ferry, server: Server, rows: list[dict[str, Any]], **options: Any) -> ReplayResult:
    contract = load_contract(ferry.folder).contract
    known_at = pl.col("departs_at") - pl.duration(minutes=30)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return asyncio.run(replay(contract, frame, server.address, known_at=known_at, **options))


def live_features(ferry: Ferry, result: ReplayResult, rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    """Return what the server computed for ``rows``, of shape (n_rows, n_features)."""
    stored = dict(join_outcomes(ferry.workspace, "ferry").select("prediction_id", "features").iter_rows())
    return np.array([stored[result.prediction_ids[(row["crossing_id"],)]] for row in rows], dtype=np.float32)


def batch_features(ferry: Ferry, rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    """Return what the tables, which have all of it by now, make of ``rows``."""
    bundle = load_bundle(ferry.workspace, ferry.digests[0], open_trust_root(ferry.workspace))
    return bundle.schema.features.encode(ferry.features_of(rows))


def test_live_features_are_those_of_the_batch(ferry: Ferry) -> None:
    """What is learned from outcomes gives the very features that the tables give once they have the rows.

    Also after a restart, which must find what was learned, and after the rows came into the tables
    while the server was running, which must not count them twice.
    """
    january = crossings(31)
    rows = crossings(6, start=FEBRUARY, seed=2)
    days = [[row for row in rows if row["departs_at"].day in span] for span in ((1, 2), (3, 4), (5, 6))]
    with ferry.serve("--ship-every", "0.5") as server:
        results = [run(ferry, server, days[0])]
        assert server.stop() == 0
    with ferry.serve("--ship-every", "0.5") as server:
        results.append(run(ferry, server, days[1], pending=results[0].pending))
        landed = [row for row in rows[: 4 * 24 * 3] if row["arrived_at"] is None or row["arrived_at"].day < 4]
        ferry.ingest(january + landed)
        wait_for(lambda: "newer tables" in server.errors, "the server to see the newer tables")
        results.append(
            run(ferry, server, days[2], pending=results[1].pending, end=datetime(2024, 2, 8, tzinfo=UTC))
        )
        assert server.stop() == 0
    ferry.ingest(january + rows)
    for result, part in zip(results, days, strict=True):
        assert result.failures == 0, result.errors
        np.testing.assert_array_equal(live_features(ferry, result, part), batch_features(ferry, part))
    counts = count_outcomes(ferry.workspace, "ferry")
    labelled = sum(row["late"] is not None for row in rows)
    assert (counts.predictions, counts.joined, counts.conflicts, counts.unknown) == (
        len(rows),
        labelled,
        0,
        0,
    )
    assert results[-1].pending == []


def test_outcomes_after_the_end_are_returned(ferry: Ferry) -> None:
    """What lands after the period's end is left for the next one, and cancelled rows never land."""
    rows = crossings(1, start=FEBRUARY, seed=3)
    noon = datetime(2024, 2, 1, 12, tzinfo=UTC)
    with ferry.serve() as server:
        result = run(ferry, server, rows, slot="1h", rows_per_request=50, end=noon)
        assert result.failures == 0, result.errors
    later = [row["arrived_at"] for row in rows if row["arrived_at"] is not None and row["arrived_at"] >= noon]
    sent_before_the_end = [outcome.occurred_at for outcome in result.pending]
    # Slots after the end still sent what was known at their beginning.
    assert set(sent_before_the_end) <= set(later)
    labelled = sum(row["late"] is not None for row in rows)
    assert result.outcomes + len(result.pending) == labelled
    assert len(result.prediction_ids) == len(rows)
    assert result.bundles == {ferry.digests[0]: len(rows)}
    assert 0 < result.p50 <= result.p99
