"""Make the new model's folder: all of it, or nothing."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import polars as pl

from seatrial.contract.load import models_folder
from seatrial.contract.schema import NAME_PATTERN
from seatrial.data_tests import row_problems
from seatrial.errors import SourceError, TrainingError, UsageError
from seatrial.init_model.choices import choose
from seatrial.init_model.columns import FoundColumn, find_columns
from seatrial.init_model.reading import read_data
from seatrial.init_model.readme import readme_md
from seatrial.init_model.texts import Proposal, days, features_py, model_yaml, prepare_py
from seatrial.model_check import check_model, load_features
from seatrial.model_code import load_model_code
from seatrial.sources import Period, conform
from seatrial.training.dataset import Dataset, build_dataset, split_dataset

SHARE = 0.2
QUARANTINE_SHARE = 0.01
UNLIKE = 4.0
"""Standard errors by which a part's share of yes may be off before the file counts as sorted by it."""


class Rows(NamedTuple):
    """Rows of each part that training divides the data into."""

    training: int
    validation: int
    test: int


@dataclass(frozen=True)
class Created:
    """A new model.

    Attributes:
        folder: Its folder.
        files: The files that were written.
        proposal: What they say.
        rows: The rows of training, validation and test.
        waiting: Rows of a month that has not ended yet, which training leaves out.
    """

    folder: Path
    files: list[Path]
    proposal: Proposal
    rows: Rows
    waiting: int


def init_model(
    name: str,
    data: Path,
    *,
    label: str | None = None,
    time: str | None = None,
    no_time: bool = False,
    force: bool = False,
    now: datetime | None = None,
) -> Created:
    """Make a model from a data file.

    Args:
        name: The model's name.
        data: A CSV (also zipped) or Parquet file; the contract refers to it, it is not copied.
        label: The column to learn; without it the one that it must be.
        time: The column that says when a row happened; without it the one that it must be, if any.
        no_time: Whether no column is the row's time.
        force: Whether to write over the files of a model of that name; others stay.
        now: The instant of the run.

    Returns:
        What was made.

    Raises:
        UsageError: if the name is none, the model exists, the file does not, or it is not clear
            which column is the label or the time.
        SourceError: if the file cannot be read, or no model can be trained from it.
    """
    target = _target(name, force=force)
    frame, source = read_data(data)
    columns = find_columns(frame)
    roles = choose(columns, label=label, time=time, no_time=no_time)
    kept = [column for column in columns if column.name not in roles.left_out]
    source = source.model_copy(update={"path": _relative(data, target)})
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".init-", dir=target.parent) as temporary:
        draft = Path(temporary) / name
        plans = _plans(Proposal(name, source, kept, roles), now or datetime.now(UTC))
        proposal, until, rows = _first_that_trains(plans, draft, frame)
        _write(draft, proposal, readme=True)
        files = _put_in_place(draft, target)
    waiting = int((roles.time.values >= until).sum()) if roles.time else 0
    return Created(target, files, proposal, rows, waiting)


def _target(name: str, *, force: bool) -> Path:
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            "A model's name must begin with a small letter and have at most 48 small letters, digits and _. "
            f"Got {name!r} instead."
        )
    target = models_folder() / name
    if target.exists() and not (force and target.is_dir()):
        raise UsageError(
            f"{target} exists already.", remedy="Take another name, or write over its files with --force."
        )
    return target


def _relative(data: Path, target: Path) -> str:
    path = os.path.relpath(data.resolve(), target.resolve())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"The path {path!r} is not UTF-8.", remedy="Rename the data file.") from None
    return Path(path).as_posix()


def _plans(base: Proposal, now: datetime) -> Iterator[tuple[Proposal, datetime]]:
    """Yield ways to divide the rows, the best one first, each with the instant up to which rows count."""
    time = base.roles.time
    if time is None:
        yield base, now
        yield replace(base, shuffled=True), now
        return
    base = replace(base, quarantine_share=_quarantine_share(time))
    newest = time.values.max()
    assert isinstance(newest, datetime)
    this_month, newest_month = (Period.parse(f"{instant:%Y-%m}") for instant in (now, newest))
    for until, as_of in ((this_month.start, ""), (newest_month.end, newest_month.name)):
        times = time.values.filter(time.values < until).sort()
        if times.len():
            yield replace(base, spans=_spans(times), as_of=as_of), until
            yield replace(base, as_of=as_of), until


def _quarantine_share(time: FoundColumn) -> float:
    """Rows without a time are set aside: let there be twice as many as there are."""
    share = 2 * time.missing / time.values.len()
    return max(QUARANTINE_SHARE, math.ceil(share * 100) / 100)


def _spans(times: pl.Series) -> tuple[timedelta, timedelta]:
    """Lengths of time that hold about a fifth of the rows each, counted from the end."""
    newest, count = times[-1], times.len()
    test = days(newest - times[int(count * (1 - SHARE))])
    return days(newest - test - times[int(count * (1 - 2 * SHARE))]), test


def _first_that_trains(
    plans: Iterator[tuple[Proposal, datetime]], draft: Path, frame: pl.DataFrame
) -> tuple[Proposal, datetime, Rows]:
    """Write the first plan by which the rows can be divided as training will divide them."""
    problem: TrainingError | None = None
    for proposal, until in plans:
        _write(draft, proposal)
        try:
            rows = _rows_of_parts(draft, proposal, frame, until)
        except TrainingError as error:
            problem = problem or error
            continue
        return proposal, until, rows
    raise SourceError(
        f"No model can be trained from this file. {problem.message if problem else ''}",
        remedy="About 150 rows with a label are the least, and each fifth of them must have both values.",
    )


def _rows_of_parts(draft: Path, proposal: Proposal, frame: pl.DataFrame, until: datetime) -> Rows:
    """Divide the rows by the functions that training calls, and return how many each part has."""
    loaded = check_model(str(draft))
    table = loaded.contract.tables[proposal.name]
    prepared = load_model_code(draft / "prepare.py", table.prepare)(frame) if table.prepare else frame
    rows = conform(prepared, table)
    if table.time:  # Later months wait; a row without a time does not, as it goes to quarantine.
        rows = rows.filter((pl.col(table.time) < until).fill_null(value=True))
    bad = row_problems(rows, table, until)["_row"]
    good = rows.with_row_index("_row").join(bad.to_frame(), on="_row", how="anti", maintain_order="left")
    if bad.len() > table.quarantine_share * rows.height:
        raise SourceError(f"{bad.len():,} of {rows.height:,} rows break the rules that they led to.")
    valid = good.select(table.columns.keys()).lazy()
    dataset = build_dataset(loaded, load_features(loaded), {proposal.name: valid}, as_of=until)
    parts = split_dataset(dataset, loaded.contract.split)
    if table.time is None and not proposal.shuffled:
        _refuse_sorted(dataset, parts)
    return Rows(*(part.frame.height for part in parts))


def _refuse_sorted(dataset: Dataset, parts: tuple[Dataset, ...]) -> None:
    """Without a time, a part whose share of yes is quite another one means that the file is sorted by it."""
    rate = float(dataset.labels.mean())
    for part in parts:
        error = math.sqrt(rate * (1 - rate) / part.labels.size)
        if abs(float(part.labels.mean()) - rate) > UNLIKE * error:
            raise TrainingError("The rows are sorted by the label.")


def _write(draft: Path, proposal: Proposal, *, readme: bool = False) -> None:
    texts = {"model.yaml": model_yaml(proposal), "features.py": features_py(proposal)}
    if proposal.needs_prepare:
        texts["prepare.py"] = prepare_py(proposal)
    if readme:
        texts["README.md"] = readme_md(proposal)
    draft.mkdir(exist_ok=True)
    for name, text in texts.items():
        (draft / name).write_text(text, encoding="utf-8")


def _put_in_place(draft: Path, target: Path) -> list[Path]:
    """Rename the folder, or its files one by one where the folder is there already; the contract last."""
    names = sorted((path.name for path in draft.iterdir()), key=lambda name: (name == "model.yaml", name))
    if target.exists():
        for name in names:
            (draft / name).replace(target / name)
    else:
        draft.rename(target)
    return [target / name for name in sorted(names)]
