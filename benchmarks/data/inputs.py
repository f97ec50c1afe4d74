"""The inputs of the contenders, as Parquet files: real flights, and drawn rows with a planted drift."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seatrial.contract import load_contract
from seatrial.features import FeatureSchema
from seatrial.monitoring import fit_baseline
from seatrial.sources import PROBLEMS, read_source

PLANTED = ["category_1", "category_4", "number_03", "number_07", "number_11"]
"""The columns that drift: two categories, a shift, a stretch, and a tie that grows."""

_YEAR_OF_DAYS = 364
"""Flights of later years are those of 2013, whole weeks later, so that weekdays stay."""


def write_flights(folder: Path, rows: int | None = None) -> Path:
    """Write the flights and the weather of the flights model.

    Args:
        folder: Where they go: ``flights/*.parquet`` and ``weather/*.parquet``, in the order of time.
        rows: How many flights; the year is repeated for more than it has. All of the year's without it.

    Returns:
        The folder.
    """
    done = folder / "done"
    if done.exists():
        return folder
    loaded = load_contract("flights")
    flights = read_source(loaded, "flights").drop(PROBLEMS).sort("scheduled_departure")
    weather = read_source(loaded, "weather").drop(PROBLEMS).sort("observed_at")
    for name in ("flights", "weather"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    wanted = flights.height if rows is None else rows
    for year in range(-(-wanted // flights.height)):
        later = pl.duration(days=year * _YEAR_OF_DAYS)
        part = flights.head(wanted - year * flights.height)
        times = pl.col("scheduled_departure", "scheduled_arrival", "landed_at") + later
        named = pl.format("{}/{}", "flight_id", pl.lit(year)) if year else pl.col("flight_id")
        part.with_columns(times, named.alias("flight_id")).write_parquet(
            folder / "flights" / f"{year:02d}.parquet", row_group_size=30_000
        )
        weather.with_columns(pl.col("observed_at") + later).write_parquet(
            folder / "weather" / f"{year:02d}.parquet"
        )
    done.touch()
    return folder


def write_drift(folder: Path, rows: int, reference_rows: int) -> Path:
    """Write reference and current rows of 15 numbers and 5 categories, with drift in five of them.

    Args:
        folder: Where they go: both sides as frames for evidently, the current rows as the feedback
            table holds them, and the baseline of the reference.
        rows: Current rows.
        reference_rows: Reference rows.

    Returns:
        The folder.
    """
    done = folder / "done"
    if done.exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(2013)
    reference = _draw(generator, reference_rows, drifted=False)
    current = _draw(generator, rows, drifted=True)
    reference.write_parquet(folder / "reference.parquet")
    current.write_parquet(folder / "current.parquet")
    schema = FeatureSchema.fit(reference)
    answers = [generator.beta(2, 5, size=size) for size in (reference_rows, rows)]
    baseline = fit_baseline(schema.encode(reference), schema, answers[0], answers[0] > 0.5)  # noqa: PLR2004
    (folder / "baseline.json").write_text(baseline.model_dump_json())
    encoded = pl.Series("features", schema.encode(current)).arr.to_list()
    pl.DataFrame({"features": encoded, "probability": answers[1]}).write_parquet(
        folder / "predictions.parquet"
    )
    done.touch()
    return folder


def _draw(generator: np.random.Generator, rows: int, *, drifted: bool) -> pl.DataFrame:
    columns: dict[str, NDArray[Any]] = {}
    for place in range(15):
        kinds: list[Callable[..., NDArray[Any]]] = [
            generator.normal,
            generator.standard_gamma,
            generator.poisson,
        ]
        values = kinds[place % 3](size=rows) if place % 3 == 0 else kinds[place % 3](3.0, size=rows)
        columns[f"number_{place:02d}"] = values.astype(np.float32)
    for place in range(5):
        letters = generator.choice(10, size=rows, p=np.arange(10, 0, -1) / 55)
        columns[f"category_{place}"] = letters
    if drifted:
        columns["number_03"] = columns["number_03"] + np.float32(0.6)
        columns["number_07"] = columns["number_07"] * np.float32(1.6)
        columns["number_11"] = np.where(generator.binomial(1, 0.3, rows), 0, columns["number_11"])
        columns["category_1"] = generator.choice(10, size=rows, p=np.arange(1, 11) / 55)
        columns["category_4"] = np.where(generator.binomial(1, 0.25, rows), 10, columns["category_4"])
    names = pl.Series([chr(ord("a") + place) for place in range(11)])
    return pl.DataFrame(
        {
            name: names.gather(values.astype(np.uint32))
            if name.startswith("category")
            else values.astype(np.float32)
            for name, values in columns.items()
        }
    )
