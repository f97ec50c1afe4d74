"""What all contenders answer: one model, trained by the pipeline, and the same flights asked of each.

Ours is asked with the eight columns that a client knows of a flight, and computes its 27 features itself. The
peers are asked with the encoded features, as numbers: what a user of theirs would have had to look up before.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray
from ruamel.yaml import YAML

from seatrial.bundle import open_trust_root
from seatrial.promotion import read_pointer
from seatrial.server.model import ServedModel, load_model
from seatrial.tables import Tables
from seatrial.workspace import Workspace

MODEL = "flights"
AS_OF = datetime(2013, 7, 1, tzinfo=UTC)
ASKED = timedelta(days=28)
"""The flights of so many days before ``AS_OF`` are asked about: their weather and their histories are known."""

ROOT = Path(__file__).parents[2]
KINDS = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}


def workspace_of(folder: Path) -> Workspace:
    """Return a workspace in which the gradient-boosted flights model serves; train it where it is not there.

    Args:
        folder: Where workspace and model lie.

    Raises:
        CalledProcessError: if the model did not pass its gates.
    """
    home = folder / "workspace"
    if not (home / "environments").exists():
        command = [Path(sys.executable).with_name("seatrial"), "train", _model_folder(folder)]
        arguments = [f"--as-of={AS_OF:%Y-%m-%d}", f"--workspace={home}"]
        subprocess.run([*map(str, command), *arguments], check=True)  # noqa: S603 -- our own command
    return Workspace.open(home)


def _model_folder(folder: Path) -> Path:
    """Copy the example with the gradient-boosted trees as its only candidate: every contender serves those."""
    source, copy = ROOT / "models" / MODEL, folder / MODEL
    copy.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.py"):
        (copy / path.name).write_bytes(path.read_bytes())
    yaml = YAML()
    content = yaml.load(source / "model.yaml")
    content["candidates"] = [one for one in content["candidates"] if one["name"] == "gradient_boosted_trees"]
    yaml.dump(content, copy / "model.yaml")
    return copy


def served_model(workspace: Workspace) -> ServedModel:
    """Return the model as the server loads it."""
    digest = read_pointer(workspace, "local", MODEL).digest
    assert digest is not None
    return load_model(workspace, MODEL, digest, open_trust_root(workspace))


def asked_rows(workspace: Workspace, model: ServedModel) -> list[tuple[Any, ...]]:
    """Return the rows that are asked about, with a value for every input, in a fixed random order."""
    flights = Tables(workspace, MODEL, "valid").read("flights")
    asked = flights.filter(pl.col("scheduled_departure").is_between(AS_OF - ASKED, AS_OF, closed="left"))
    return asked.select(model.input_names).collect().sample(fraction=1.0, shuffle=True, seed=2013).rows()


def infer_body(model: ServedModel, rows: list[tuple[Any, ...]]) -> bytes:
    """Return the request of the Open Inference Protocol that asks about rows by their inputs."""
    tensors = [
        {
            "name": column.name,
            "shape": [len(rows)],
            "datatype": KINDS.get(column.type, "BYTES"),
            "data": [row[place] for row in rows],
        }
        for place, column in enumerate(model.schema.inputs)
    ]
    return orjson.dumps({"inputs": tensors}, option=orjson.OPT_UTC_Z)


def parts(rows: list[Any], size: int, count: int) -> Iterator[list[Any]]:
    """Yield so many parts of so many rows each, beginning anew at the end."""
    for number in range(count):
        first = number * size % max(len(rows) - size, 1)
        yield rows[first : first + size]


def plain_matrix(features: NDArray[np.float32]) -> list[list[float | None]]:
    """Return features as JSON takes them: a missing number is null."""
    return orjson.loads(orjson.dumps(features, option=orjson.OPT_SERIALIZE_NUMPY))  # type: ignore[no-any-return]
