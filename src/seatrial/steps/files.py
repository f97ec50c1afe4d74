"""What steps share: how they tell of progress, and the files that pass between them."""

from __future__ import annotations

import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from seatrial.contract.load import LoadedContract
from seatrial.data_tests import BatchCheck
from seatrial.tables import Tables
from seatrial.training.dataset import AT, INPUT, LABEL, LABELLED_AT, SLICE, Dataset
from seatrial.verdicts import Verdict
from seatrial.workspace import Workspace

PROGRESS = "seatrial: "
"""What a line of progress begins with in a step's log; the command line shows just those."""


def say(line: str) -> None:
    """Tell a person what the step decided, in its log."""
    sys.stdout.write(f"{PROGRESS}{line}\n")
    sys.stdout.flush()


def write_json(path: str, value: Any) -> None:
    """Write a value as JSON, making the folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    Path(path).write_bytes(orjson.dumps(value, option=options, default=_plain))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump()
    return str(value)


def read_json(path: str) -> Any:
    """Read a JSON file that an earlier step wrote."""
    return orjson.loads(Path(path).read_bytes())


def read_checks(path: str) -> list[BatchCheck]:
    """Read what the data tests found."""
    return [
        BatchCheck(**{**check, "verdicts": [Verdict.model_validate(v) for v in check["verdicts"]]})
        for check in read_json(path)
    ]


def open_tables(
    loaded: LoadedContract, workspace: Workspace, versions: dict[str, dict[str, Any]]
) -> dict[str, pl.LazyFrame]:
    """Return the valid tables at the versions that an earlier step pinned."""
    valid = Tables(workspace, loaded.contract.name, "valid")
    return {name: valid.read(name, int(version["version"])) for name, version in versions.items()}


def write_dataset(path: str, dataset: Dataset) -> None:
    """Write a dataset as Parquet."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dataset.frame.write_parquet(path)


def read_dataset(path: str) -> Dataset:
    """Read a dataset that an earlier step wrote."""
    frame = pl.read_parquet(path)
    own = (LABEL, AT, LABELLED_AT)
    features = [n for n in frame.columns if n not in own and not n.startswith((SLICE, INPUT))]
    return Dataset(frame, tuple(features))
