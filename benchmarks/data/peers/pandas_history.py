"""The same history features in pandas, as its users write them fast: running totals and merge_asof."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from measure import Task, contend

KEYS = {"carrier_late": ["carrier"], "route_late": ["origin", "dest"], "plane_late": ["tailnum"]}
WINDOWS = {"1d": pd.Timedelta(days=1), "7d": pd.Timedelta(days=7), "28d": pd.Timedelta(days=28)}
INSTANT = "datetime64[us, UTC]"


def running_totals(flights: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return the running count and sum of late flights by key, one row a key and instant."""
    known = flights.dropna(subset=[*keys, "landed_at", "late"])
    grouped = known.groupby([*keys, "landed_at"], sort=True, observed=True)["late"].agg(["count", "sum"])
    totals = grouped.groupby(level=list(range(len(keys))), observed=True).cumsum()
    return totals.reset_index().sort_values("landed_at", kind="stable")


def windows_of(rows: pd.DataFrame, totals: pd.DataFrame, name: str, keys: list[str]) -> pd.DataFrame:
    """Return share and count over each window, in the rows' order."""
    made = {}
    end = pd.merge_asof(rows, totals, left_on="known_at", right_on="landed_at", by=keys)
    for window, length in WINDOWS.items():
        starts = rows.assign(known_at=(rows["known_at"] - length).astype(INSTANT))
        start = pd.merge_asof(starts, totals, left_on="known_at", right_on="landed_at", by=keys)
        count = end["count"].fillna(0) - start["count"].fillna(0)
        total = end["sum"].fillna(0) - start["sum"].fillna(0)
        made[f"{name}_share_{window}"] = (total / count).where(count > 0)
        made[f"{name}_count_{window}"] = count.astype("int64")
    return pd.DataFrame(made)


def prepare(task: Task) -> Callable[[], pd.DataFrame]:
    """Return the computation for all flights."""
    flights = pd.read_parquet(task.inputs / "flights")
    flights["landed_at"] = flights["landed_at"].astype(INSTANT)
    flights["late"] = flights["late"].astype("boolean").astype("float64")

    def work() -> pd.DataFrame:
        rows = flights[["flight_id", "carrier", "origin", "dest", "tailnum"]].copy()
        rows["known_at"] = (flights["scheduled_departure"] - pd.Timedelta(hours=2)).astype(INSTANT)
        rows = rows.sort_values("known_at", kind="stable").reset_index(drop=True)
        made = [windows_of(rows, running_totals(flights, keys), name, keys) for name, keys in KEYS.items()]
        return pd.concat([rows[["flight_id"]], *made], axis=1)

    return work


def write(result: pd.DataFrame, task: Task) -> None:
    """Write the answers."""
    result.to_parquet(task.answers, index=False)


if __name__ == "__main__":
    contend(prepare, libraries=("pandas",), write=write)
