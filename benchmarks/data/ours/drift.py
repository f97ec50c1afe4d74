"""The drift verdict from the baseline that a bundle keeps; the training rows are not read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
from measure import Task, contend

from seatrial.contract.schema import Monitoring
from seatrial.monitoring import Baseline, Drift, compare
from seatrial.monitoring.monitor import judge_drift

RULES = Monitoring()


def prepare(task: Task) -> Callable[[], Drift]:
    """Return the verdict on the rows as the feedback table holds them: encoded, a list a row."""
    content = (task.inputs / "baseline.json").read_bytes()
    rows = pl.read_parquet(task.inputs / "predictions.parquet")

    def work() -> Drift:
        baseline = Baseline.model_validate_json(content)
        matrix = rows["features"].explode().to_numpy().reshape(-1, len(baseline.features))
        drift = compare(
            baseline, matrix.astype(np.float32, copy=False), rows["probability"].to_numpy(), RULES
        )
        judge_drift(drift, RULES)
        return drift

    return work


def write(result: Drift, _: Task) -> dict[str, list[str]]:
    """Say which columns have drifted."""
    return {"drifted": sorted(column.name for column in result.columns if column.drifted)}


if __name__ == "__main__":
    contend(prepare, libraries=("seatrial", "numpy"), write=write)
