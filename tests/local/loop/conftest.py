"""The flights model with small budgets, trained once on two months of real flights.

Everything is real: the data, the pipelines under kfp.local with a process for each step, the
server, the replay over HTTP. Only budgets and bounds are smaller than in ``models/flights``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from seatrial.contract import LoadedContract, load_contract
from seatrial.local_runs import LocalRun, StepEvent, run_locally
from seatrial.workspace import Workspace

FLIGHTS = Path(__file__).parents[3] / "models" / "flights"
TRAINED_AS_OF = "2013-03-01T00:00:00+00:00"
SMALLER = {
    "trials: 6": "trials: 1",
    "sample_rows: 40000": "sample_rows: 5000",
    "max_iter: 150": "max_iter: 40",
    "max_iter: 400": "max_iter: 100",
    "validation: 28d": "validation: 10d",
    "test: 28d": "test: 10d",
    "new_rows: 80000": "new_rows: 100",
    "cool_down: 28d": "cool_down: 3d",
    # A busy machine must not fail a test of what the gates do; tests/unit holds the gates themselves.
    "maximum_milliseconds: 10": "maximum_milliseconds: 5000",
    "maximum_minutes: 10": "maximum_minutes: 60",
}


@dataclass(frozen=True)
class Loop:
    """A trained model in a workspace.

    Attributes:
        loaded: The smaller contract.
        workspace: The workspace.
        training: The run that trained it.
        events: What its steps told.
    """

    loaded: LoadedContract
    workspace: Workspace
    training: LocalRun
    events: list[StepEvent]

    def run(self, pipeline: str, **arguments: str) -> LocalRun:
        """Run a pipeline on this model."""
        arguments |= {"model": str(self.loaded.folder), "environment": "local"}
        return run_locally(pipeline, arguments, self.workspace, tell=self.events.append)


@pytest.fixture(scope="package")
def flights(tmp_path_factory: pytest.TempPathFactory) -> LoadedContract:
    """A copy of the flights model with small budgets."""
    folder = tmp_path_factory.mktemp("models") / "flights"
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / "model.yaml").read_text()
    for old, new in SMALLER.items():
        assert old in text, f"{old!r} is not in the contract any more"
        text = text.replace(old, new)
    (folder / "model.yaml").write_text(text)
    return load_contract(folder)


@pytest.fixture(scope="package")
def loop(flights: LoadedContract, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """The model, trained on January and February."""
    for name in ("SEATRIAL_WORKSPACE", "SEATRIAL_MODELS", "SEATRIAL_SIGNING_KEY", "SEATRIAL_TRUST"):
        os.environ.pop(name, None)
    workspace = Workspace.open(tmp_path_factory.mktemp("loop") / "workspace")
    events: list[StepEvent] = []
    arguments = {"model": str(flights.folder), "environment": "local", "as_of": TRAINED_AS_OF}
    training = run_locally("training", arguments, workspace, tell=events.append)
    yield Loop(flights, workspace, training, events)
