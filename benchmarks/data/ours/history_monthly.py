"""The same as history.py, month by month from scanned files, each month written and forgotten."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from history import FEATURES, INPUTS
from measure import Task, contend

from seatrial.features.monthly import compute_monthly


def prepare(task: Task) -> Callable[[], int]:
    """Return the computation, which gives the number of rows that it wrote."""
    flights = pl.scan_parquet(task.inputs / "flights")
    folder = task.scratch / "months"
    folder.mkdir(exist_ok=True)

    def work() -> int:
        written = 0
        for month in compute_monthly(FEATURES, flights.select(INPUTS), {"flights": flights}):
            made = month.rows.select("flight_id").hstack(month.features)
            made.write_parquet(folder / f"{month.month}.parquet")
            written += made.height
        return written

    return work


def write(result: int, task: Task) -> dict[str, int]:
    """Gather the answers without holding them."""
    pl.scan_parquet(task.scratch / "months").sink_parquet(task.answers)
    return {"rows": result}


if __name__ == "__main__":
    contend(prepare, libraries=("seatrial", "polars"), write=write)
