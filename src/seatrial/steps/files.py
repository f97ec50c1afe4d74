"""What steps share: how they tell of progress, and the files that pass between them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import orjson
import polars as pl

from seatrial import errors
from seatrial.bundle import forbid_unpickling
from seatrial.contract.load import LoadedContract
from seatrial.data_tests import BatchCheck
from seatrial.errors import SeatrialError
from seatrial.tables import Tables
from seatrial.training.dataset import AT, INPUT, LABEL, LABELLED_AT, SLICE, Dataset
from seatrial.verdicts import Verdict
from seatrial.workspace import Workspace

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

PROGRESS = "seatrial: "
"""What a line of progress begins with in a step's log; the command line shows just those."""


FAILURE = "seatrial-failure: "
"""What the line begins with that says why a step ended, for whoever started it."""


def reported(step: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a step say in its log, in a line that a machine can read, which of our errors ended it.

    A step's process does nothing else, so here it is also kept from unpickling.
    """

    @functools.wraps(step)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        forbid_unpickling()
        try:
            return step(*args, **kwargs)
        except SeatrialError as error:
            facts = {"class": type(error).__name__, "message": error.message, "remedy": error.remedy}
            sys.stdout.write(f"{FAILURE}{orjson.dumps(facts).decode()}\n")
            sys.stdout.flush()
            raise

    return run


def rebuild_failure(said: dict[str, str]) -> SeatrialError:
    """Return the error that ended a step in another process, with its class, from what the step said of it.

    Args:
        said: What stood in the line that begins with ``FAILURE``.
    """
    kind = getattr(errors, said["class"], SeatrialError)
    error = SeatrialError(said["message"], remedy=said["remedy"])
    if issubclass(kind, SeatrialError):
        # The class alone decides the exit code; its own arguments stayed in the step's process.
        error.__class__ = kind
    return error


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


def read_checks(found: list[dict[str, Any]]) -> list[BatchCheck]:
    """Read what the data tests found, from its JSON."""
    return [
        BatchCheck(**{**check, "verdicts": [Verdict.model_validate(v) for v in check["verdicts"]]})
        for check in found
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
