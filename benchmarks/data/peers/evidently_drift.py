"""Drift by evidently's DataDriftPreset on all rows of both sides."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

os.environ["DO_NOT_TRACK"] = "1"  # read at import: it must not call home

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from measure import Task, contend


def prepare(task: Task) -> Callable[[], dict[str, Any]]:
    """Return the report of both frames, up to its figures; no page is drawn."""
    reference = pd.read_parquet(task.inputs / "reference.parquet")
    current = pd.read_parquet(task.inputs / "current.parquet")
    definition = DataDefinition(
        numerical_columns=[name for name in reference if name.startswith("number")],
        categorical_columns=[name for name in reference if name.startswith("category")],
    )
    warnings.simplefilter("ignore")

    def work() -> dict[str, Any]:
        report = Report([DataDriftPreset()]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        return report.dict()

    return work


def write(result: dict[str, Any], _: Task) -> dict[str, list[str]]:
    """Say which columns have drifted; its default tests are distances here, so more is more drift."""
    columns = [metric["config"] | {"value": metric["value"]} for metric in result["metrics"][1:]]
    return {"drifted": sorted(c["column"] for c in columns if c["value"] >= c["threshold"])}


if __name__ == "__main__":
    contend(prepare, libraries=("evidently", "pandas"), write=write)
