"""The recent lateness of each flight's carrier, route and plane, through our feature definitions."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from measure import Task, contend

from seatrial.features import Features, History, compute_features

KEYS = {"carrier_late": ("carrier",), "route_late": ("origin", "dest"), "plane_late": ("tailnum",)}
WINDOWS = ("1d", "7d", "28d")
FEATURES = Features(
    known_at=pl.col("scheduled_departure") - pl.duration(hours=2),
    parts=tuple(
        History(name, "flights", by=by, time="landed_at", value="late", windows=WINDOWS)
        for name, by in KEYS.items()
    ),
)
INPUTS = ("flight_id", "scheduled_departure", "carrier", "origin", "dest", "tailnum")


def prepare(task: Task) -> Callable[[], pl.DataFrame]:
    """Return the computation for all flights at once."""
    flights = pl.read_parquet(task.inputs / "flights")
    rows, tables = flights.select(INPUTS), {"flights": flights.lazy()}

    def work() -> pl.DataFrame:
        return rows.select("flight_id").hstack(compute_features(FEATURES, rows, tables))

    return work


def write(result: pl.DataFrame, task: Task) -> None:
    """Write the answers."""
    result.write_parquet(task.answers)


if __name__ == "__main__":
    contend(prepare, libraries=("seatrial", "polars"), write=write)
