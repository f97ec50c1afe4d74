"""The weather of each flight by a bare as-of join, as one would write it by hand in polars."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
from measure import Task, contend

COLUMNS = {
    "temperature": "temp",
    "dew_point": "dewp",
    "humidity": "humid",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precipitation": "precip",
    "pressure": "pressure",
    "visibility": "visib",
}


def prepare(task: Task) -> Callable[[], pl.DataFrame]:
    """Return the join; both sides must be sorted by time, and the answers stay in that order."""
    flights = pl.read_parquet(task.inputs / "flights")
    weather = pl.read_parquet(task.inputs / "weather")

    def work() -> pl.DataFrame:
        left = flights.select(
            "flight_id", "origin", at=pl.col("scheduled_departure") - pl.duration(hours=2)
        ).sort("at")
        right = weather.select("origin", "observed_at", **{k: pl.col(v) for k, v in COLUMNS.items()}).sort(
            "observed_at"
        )
        joined = left.join_asof(
            right,
            left_on="at",
            right_on="observed_at",
            by="origin",
            tolerance="24h",
            check_sortedness=False,
        )
        return joined.select("flight_id", *COLUMNS)

    return work


def write(result: pl.DataFrame, task: Task) -> None:
    """Write the answers."""
    result.write_parquet(task.answers)


if __name__ == "__main__":
    contend(prepare, libraries=("polars",), write=write)
