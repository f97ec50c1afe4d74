"""The weather of each flight through the flights model's own feature definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import polars as pl
from measure import Task, contend

from seatrial.contract import load_contract
from seatrial.features import Features, compute_features
from seatrial.model_check import load_features


def prepare(task: Task) -> Callable[[], pl.DataFrame]:
    """Return the point-in-time join; the definitions' age limit is the 24 hours of the others."""
    loaded = load_contract("flights")
    features = load_features(loaded)
    weather = next(part for part in features.parts if part.table == "weather")
    wanted = weather.names
    parts = tuple(replace(part, within="24h") if part is weather else part for part in features.parts)
    definitions = Features(features.known_at, parts, features.expressions)
    rows = pl.read_parquet(task.inputs / "flights")
    tables = {"weather": pl.read_parquet(task.inputs / "weather").lazy()}

    def work() -> pl.DataFrame:
        return rows.select("flight_id").hstack(compute_features(definitions, rows, tables, use=wanted))

    return work


def write(result: pl.DataFrame, task: Task) -> None:
    """Write the answers."""
    result.write_parquet(task.answers)


if __name__ == "__main__":
    contend(prepare, libraries=("seatrial", "polars"), write=write)
