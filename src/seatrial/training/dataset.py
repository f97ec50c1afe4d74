"""The rows that a model learns from, in the order of time, and their division by time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Split, format_duration
from seatrial.errors import TrainingError
from seatrial.features.batch import compute_features
from seatrial.features.definitions import Features

LABEL = "_label"
AT = "_at"
LABELLED_AT = "_labelled_at"
SLICE = "_slice_"
INPUT = "_input_"
MINIMUM_ROWS = 30
_CLASSES = 2


@dataclass(frozen=True)
class Dataset:
    """Rows with features and label.

    Attributes:
        frame: The features' columns, ``_label`` (Int8), ``_at`` (when the row happened; its place
            where the data have no time), ``_labelled_at`` (when the label became known),
            ``_slice_NAME`` for each of the contract's slices and ``_input_NAME`` for each column
            of a request; in the order of ``_at``.
        features: Names of the features, in their order.
    """

    frame: pl.DataFrame
    features: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.int8]:
        """The labels, 0 or 1, of shape (n_rows,)."""
        return self.frame[LABEL].to_numpy()

    @property
    def slices(self) -> dict[str, pl.Series]:
        """The columns by whose values quality is shown, by name."""
        names = [name for name in self.frame.columns if name.startswith(SLICE)]
        return {name.removeprefix(SLICE): self.frame[name] for name in names}

    @property
    def inputs(self) -> pl.DataFrame:
        """The rows as requests, of shape (n_rows, n_inputs)."""
        names = [name for name in self.frame.columns if name.startswith(INPUT)]
        return self.frame.select(pl.col(name).alias(name.removeprefix(INPUT)) for name in names)

    @property
    def period(self) -> tuple[str, str]:
        """When the first and the last row happened, as texts."""
        return str(self.frame[AT].min()), str(self.frame[AT].max())


def build_dataset(
    loaded: LoadedContract, features: Features, tables: dict[str, pl.LazyFrame], *, as_of: datetime
) -> Dataset:
    """Compute the features of every row whose label was known at ``as_of``.

    Args:
        loaded: The model's contract.
        features: Its feature definitions.
        tables: The valid tables, by name.
        as_of: The instant of the run.

    Raises:
        TrainingError: if fewer rows than 30 have a label, or all have the same.
        FeatureError: if the features cannot be computed.
    """
    contract = loaded.contract
    target = contract.tables[contract.prediction.table]
    rows = tables[contract.prediction.table].collect().with_row_index(AT)
    if target.time is not None:
        rows = rows.drop(AT).with_columns(pl.col(target.time).alias(AT))
    known = pl.col(contract.label.time) if contract.label.time else pl.col(AT)
    rows = rows.with_columns(
        pl.col(contract.label.column).cast(pl.Int8).alias(LABEL), known.alias(LABELLED_AT)
    ).filter(pl.col(LABEL).is_not_null())
    if contract.label.time is not None:
        rows = rows.filter(pl.col(LABELLED_AT) <= as_of)
    if target.time is not None:
        rows = rows.filter(pl.col(AT) <= as_of)
    _refuse_hopeless(rows, contract.label.column)
    rows = rows.sort([AT, *target.key])
    names = contract.features.use or features.all_names
    wanted = list(dict.fromkeys([*names, *(s for s in contract.slices if s in features.all_names)]))
    made = compute_features(features, rows.select(contract.prediction.inputs), tables, use=wanted)
    slices = {f"{SLICE}{s}": (made if s in made.columns else rows)[s] for s in contract.slices}
    inputs = {f"{INPUT}{name}": rows[name] for name in contract.prediction.inputs}
    own = (rows[LABEL], rows[AT], rows[LABELLED_AT])
    frame = made.select(names).with_columns(*own, **slices, **inputs)
    return Dataset(frame, tuple(names))


def _refuse_hopeless(rows: pl.DataFrame, label: str) -> None:
    if rows.height < MINIMUM_ROWS:
        raise TrainingError(
            f"At least {MINIMUM_ROWS} rows must have a label by the time of the run. Got {rows.height} instead.",
            remedy="Ingest more data, or run with a later --as-of.",
        )
    if rows[LABEL].n_unique() < _CLASSES:
        raise TrainingError(
            f"The label {label!r} must have both classes. All {rows.height:,} rows have {rows[LABEL][0]}.",
            remedy="Check the label's column in the contract.",
        )


def split_dataset(dataset: Dataset, split: Split) -> tuple[Dataset, Dataset, Dataset]:
    """Divide a dataset by time.

    A training row's label must have been known before the validation begins, and a validation
    row's before the test begins, or a model would learn from what nobody knew then.

    Args:
        dataset: All rows.
        split: The contract's spans.

    Returns:
        Training, validation and test rows, in the order of time.

    Raises:
        TrainingError: if one of the three has fewer than 30 rows, or but one class.
    """
    frame = dataset.frame
    test_from = _boundary(frame, split.test)
    before = frame.filter(pl.col(AT) < test_from)
    validation_from = _boundary(before, split.validation) if before.height else test_from
    parts = {
        "training": before.filter(pl.col(AT) < validation_from, pl.col(LABELLED_AT) < validation_from),
        "validation": before.filter(pl.col(AT) >= validation_from, pl.col(LABELLED_AT) < test_from),
        "test": frame.filter(pl.col(AT) >= test_from),
    }
    for name, part in parts.items():
        if part.height < MINIMUM_ROWS or part[LABEL].n_unique() < _CLASSES:
            raise TrainingError(
                f"The {name} rows must be at least {MINIMUM_ROWS} and have both classes. Got {part.height} rows "
                f"of {part[LABEL].n_unique()} class(es) instead, of {frame.height} rows in all.",
                remedy=f"Ingest more data, or change the split ({_shown(split)}) in the contract.",
            )
    training, validation, test = (Dataset(part, dataset.features) for part in parts.values())
    return training, validation, test


def _boundary(frame: pl.DataFrame, span: timedelta | float) -> Any:
    """The first instant (or place) of the last ``span`` of the rows."""
    if isinstance(span, timedelta):
        newest = frame[AT].max()
        if not isinstance(newest, datetime):
            raise TrainingError(
                f"The split {format_duration(span)} is a length of time, but the rows have no time.",
                remedy="Give a share such as 0.2 in the contract, or the table's time.",
            )
        return newest - span
    return frame[AT][min(int(frame.height * (1 - span)), frame.height - 1)]


def _shown(split: Split) -> str:
    spans = {"validation": split.validation, "test": split.test}
    return ", ".join(
        f"{name} {format_duration(span) if isinstance(span, timedelta) else span}"
        for name, span in spans.items()
    )
