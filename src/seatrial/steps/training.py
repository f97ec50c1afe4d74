"""Step 5: tune, choose and fit, and write all that the bundle will hold of the model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.bundle import BundleSchema, InputColumn
from seatrial.bundle.content import BACKGROUND, BASELINE, ONNX, SCHEMA, SKOPS
from seatrial.contract.load import LoadedContract
from seatrial.model_check import check_model
from seatrial.monitoring import fit_baseline
from seatrial.steps.files import read_dataset, reported, say, write_json
from seatrial.training import TrainedModel, parity, to_onnx, to_skops, train_candidates

TRAINING = "training.json"
BACKGROUND_ROWS = 500

# Threads that wait spin for microseconds only: longer, on a busy machine, slows training tenfold. It is read
# once, when scikit-learn is imported, which is after this.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")


@contextmanager
def _measured(country: str) -> Iterator[dict[str, float]]:
    """Measure time and, by codecarbon, energy and CO2 of what is done within."""
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code=country, save_to_file=False, log_level="critical", allow_multiple_runs=True
    )
    tracker.start()
    figures: dict[str, float] = {}
    started = time.perf_counter()
    try:
        yield figures
    finally:
        figures["seconds"] = time.perf_counter() - started
        tracker.stop()
        data = tracker.final_emissions_data
        figures["energy_watt_hours"] = float(data.energy_consumed) * 1000
        figures["co2_grams"] = float(data.emissions) * 1000


@reported
def train_model(model: str, training_in: str, validation_in: str, model_out: str) -> dict[str, float]:
    """Tune the contract's candidates, choose one, fit it and export it.

    Args:
        model: The model's name or folder.
        training_in: Path of the training rows.
        validation_in: Path of the validation rows.
        model_out: Folder for the model's files.

    Returns:
        Figures of the training: validation metrics of each candidate, seconds, watt-hours, grams.

    Raises:
        TrainingError: if no candidate can be fitted or exported.
    """
    loaded = check_model(model)
    training, validation = read_dataset(training_in), read_dataset(validation_in)
    with _measured(os.environ.get("SEATRIAL_COUNTRY", "USA")) as cost:
        trained = train_candidates(loaded, training, validation, progress=say)
    write_model(loaded, trained, cost, Path(model_out))
    chosen = trained.chosen
    say(
        f"chose {chosen.name} {chosen.parameters or ''}: the simplest within {loaded.contract.selection.margin:g} "
        f"of the best {loaded.contract.selection.metric}; {cost['seconds']:.0f} s, {cost['energy_watt_hours']:.2f} Wh"
    )
    metric = loaded.contract.selection.metric
    scores = {f"validation_{metric}_{c.name}": c.metrics[metric] for c in trained.candidates}
    return {**scores, **{f"training_{key}": value for key, value in cost.items()}}


def write_model(loaded: LoadedContract, trained: TrainedModel, cost: dict[str, float], folder: Path) -> None:
    """Write a trained model's files: ONNX, skops, schema, baseline, background and training facts."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx, skops = to_onnx(trained.estimator, len(trained.schema.columns)), to_skops(trained.estimator)
    (folder / ONNX).write_bytes(onnx)
    (folder / SKOPS).write_bytes(skops)
    newest = trained.matrix[-loaded.contract.gates.parity.rows :]
    probabilities = np.asarray(trained.estimator.predict_proba(trained.matrix)[:, 1], dtype=np.float64)
    baseline = fit_baseline(trained.matrix, trained.schema, probabilities, trained.labels)
    write_json(str(folder / SCHEMA), _schema(loaded, trained))
    write_json(str(folder / BASELINE), baseline)
    write_json(str(folder / BACKGROUND), _background(trained, loaded.contract.tuning.seed))
    facts: dict[str, Any] = {
        "candidates": [asdict(candidate) for candidate in trained.candidates],
        "base_rate": trained.base_rate,
        "rows": trained.rows,
        "cost": cost,
        "parity": {"difference": parity(onnx, skops, newest), "rows": len(newest)},
    }
    write_json(str(folder / TRAINING), facts)


def _schema(loaded: LoadedContract, trained: TrainedModel) -> BundleSchema:
    contract = loaded.contract
    target = contract.tables[contract.prediction.table]
    inputs = [
        InputColumn(
            name=name,
            type=target.columns[name].type,
            required=target.columns[name].required or name in target.key,
        )
        for name in contract.prediction.inputs
    ]
    return BundleSchema(
        table=contract.prediction.table,
        key=tuple(target.key),
        inputs=tuple(inputs),
        features=trained.schema,
        label=contract.label.column,
        label_time=contract.label.time,
        threshold=trained.threshold,
    )


def _background(trained: TrainedModel, seed: int) -> dict[str, Any]:
    """A sample of encoded training rows, for explanations and for the drift report's picture."""
    chosen = np.random.default_rng(seed).permutation(trained.rows)[:BACKGROUND_ROWS]
    rows = trained.matrix[np.sort(chosen)]
    return {
        "columns": trained.schema.names,
        "rows": [[_finite(value) for value in row] for row in rows.tolist()],
    }


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else value
