"""The weather of each flight from Feast: its duckdb offline store, a time to live of 24 hours."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

os.environ["FEAST_USAGE"] = "False"  # read at import: it must not call home

import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64
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
STORE = """
project: benchmark
provider: local
registry: {scratch}/registry.db
offline_store: {{type: duckdb}}
online_store: {{type: sqlite, path: {scratch}/online.db}}
entity_key_serialization_version: 3
"""


def make_store(task: Task) -> FeatureStore:
    """Define the weather as a feature view over a Parquet file."""
    weather = ds.dataset(task.inputs / "weather").to_table()
    path = task.scratch / "weather.parquet"
    names = {column: name for name, column in COLUMNS.items()}
    pq.write_table(weather.rename_columns([names.get(name, name) for name in weather.column_names]), path)
    (task.scratch / "feature_store.yaml").write_text(STORE.format(scratch=task.scratch))
    store = FeatureStore(repo_path=str(task.scratch))
    airport = Entity(name="origin", join_keys=["origin"], value_type=ValueType.STRING)
    view = FeatureView(
        name="weather",
        entities=[airport],
        ttl=timedelta(hours=24),
        schema=[Field(name=name, dtype=Float64) for name in COLUMNS],
        source=FileSource(path=str(path), timestamp_field="observed_at"),
    )
    store.apply([airport, view])
    return store


def prepare(task: Task) -> Callable[[], pd.DataFrame]:
    """Return the retrieval of historical features for all flights."""
    store = make_store(task)
    flights = ds.dataset(task.inputs / "flights").to_table(
        columns=["flight_id", "origin", "scheduled_departure"]
    )
    rows = flights.to_pandas()
    rows["event_timestamp"] = rows.pop("scheduled_departure") - pd.Timedelta(hours=2)
    wanted = [f"weather:{name}" for name in COLUMNS]

    def work() -> pd.DataFrame:
        return store.get_historical_features(entity_df=rows, features=wanted).to_df()

    return work


def write(result: pd.DataFrame, task: Task) -> None:
    """Write the answers."""
    result[["flight_id", *COLUMNS]].to_parquet(Path(task.answers), index=False)


if __name__ == "__main__":
    contend(prepare, libraries=("feast", "duckdb", "pandas"), write=write)
