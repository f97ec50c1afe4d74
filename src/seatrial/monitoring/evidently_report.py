"""Evidently's drift report of a window, drawn from samples.

Evidently draws what people in the field look at, but takes a minute for a million rows and seven
seconds to import. So it never decides: the verdicts are :mod:`seatrial.monitoring.monitor`'s, and
the report is drawn from a sample of the window beside the sample of training rows that the bundle
keeps, by the contract's index and bounds. On samples this small a column next to its bound may be
called differently than by the verdict, which has seen every row.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seatrial.bundle import Bundle
from seatrial.bundle.content import BACKGROUND
from seatrial.contract.schema import Monitoring
from seatrial.errors import BundleError
from seatrial.features.encoding import MISSING, FeatureColumn
from seatrial.monitoring.monitor import features_matrix

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 5_000
_NOTHING = "<!doctype html><meta charset='utf-8'><title>Drift</title><p>There is nothing to draw: {}.</p>"


def write_drift_report(
    bundle: Bundle, joined: pl.DataFrame, path: Path, *, seed: int, sample_rows: int = SAMPLE_ROWS
) -> None:
    """Draw the drift of a window, as one HTML file that needs no network.

    Args:
        bundle: The bundle that was watched.
        joined: The window's predictions; those of other bundles are left out.
        path: Where the report goes.
        seed: Seed of the sample.
        sample_rows: Most rows of the window that are drawn.

    Raises:
        BundleError: if the bundle's sample of training rows does not have its features.
        FeedbackError: if a prediction's features are not those of the bundle.
    """
    own = joined.filter(pl.col("bundle") == bundle.digest)
    sample = own.sample(min(sample_rows, own.height), seed=seed)
    columns = bundle.schema.features.columns
    current = decoded(features_matrix(sample, bundle), columns)
    reference = decoded(_background(bundle), columns)
    # Evidently refuses a column that is empty on one side; the verdict has judged it all the same.
    shown = [
        column
        for column in columns
        if not current[column.name].isna().all() and not reference[column.name].isna().all()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not shown:
        why = "the window has no predictions of this bundle" if own.is_empty() else "every feature is missing"
        path.write_text(_NOTHING.format(why), encoding="utf-8")
        return
    _draw(current, reference, shown, bundle.contract.contract.monitoring, path)


def decoded(matrix: NDArray[np.float32], columns: tuple[FeatureColumn, ...]) -> pd.DataFrame:
    """Return encoded rows with their categories by name, for people to read.

    Args:
        matrix: Encoded rows of shape (n_rows, n_features).
        columns: What the matrix's columns are.
    """
    import pandas as pd

    content: dict[str, Any] = {}
    for place, column in enumerate(columns):
        values = matrix[:, place]
        if column.kind == "category":
            names = np.array(["(missing)", "(unseen)", *column.categories], dtype=object)
            content[column.name] = names[np.clip(values, MISSING, None).astype(np.int64) - int(MISSING)]
        else:
            content[column.name] = np.where(np.isinf(values), np.nan, values).astype(np.float64)
    return pd.DataFrame(content)


def _background(bundle: Bundle) -> NDArray[np.float32]:
    content = bundle.json(BACKGROUND)
    names = bundle.schema.features.names
    if content.get("columns") != names or not content.get("rows"):
        raise BundleError(
            f"{BACKGROUND} of bundle {bundle.digest[:12]} must have rows of {', '.join(names)}."
        )
    return np.array(content["rows"], dtype=np.float32)  # a missing number is null there, NaN here


def _draw(
    current: pd.DataFrame,
    reference: pd.DataFrame,
    shown: list[FeatureColumn],
    rules: Monitoring,
    path: Path,
) -> None:
    os.environ["DO_NOT_TRACK"] = "1"  # read when evidently is imported: it must not call home
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(
        numerical_columns=[column.name for column in shown if column.kind == "number"],
        categorical_columns=[column.name for column in shown if column.kind == "category"],
    )
    names = [column.name for column in shown]
    preset = DataDriftPreset(method="psi", threshold=rules.psi, drift_share=rules.drifted_share)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # evidently divides by the spread of constant columns
        snapshot = Report([preset]).run(
            Dataset.from_pandas(current[names], data_definition=definition),
            Dataset.from_pandas(reference[names], data_definition=definition),
        )
        snapshot.save_html(str(path))
