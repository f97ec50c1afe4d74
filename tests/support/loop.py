"""The flights model with small budgets, and what a test of the whole loop holds in its hand."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from seatrial.contract import LoadedContract, load_contract
from seatrial.local_runs import LocalRun, StepEvent, run_locally
from seatrial.workspace import Workspace

FLIGHTS = Path(__file__).parents[2] / "models" / "flights"
TRAINED_AS_OF = "2013-03-01T00:00:00+00:00"
SMALLER = {
    "trials: 4": "trials: 1",
    "sample_rows: 20000": "sample_rows: 5000",
    "max_iter: 100": "max_iter: 40",
    "max_iter: 400": "max_iter: 99",
    "validation: 28d": "validation: 10d",
    "test: 28d": "test: 10d",
    "new_rows: 80000": "new_rows: 100",
    "cool_down: 84d": "cool_down: 3d",
    # A busy machine must not fail a test of what the gates do; tests/unit holds the gates themselves.
    "maximum_milliseconds: 10": "maximum_milliseconds: 5000",
    "maximum_minutes: 10": "maximum_minutes: 60",
}


def small_flights(folder: Path) -> LoadedContract:
    """Copy the flights model below a folder, with small budgets."""
    copy = folder / "flights"
    shutil.copytree(FLIGHTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "model.yaml").read_text()
    for old, new in SMALLER.items():
        assert old in text, f"{old!r} is not in the contract any more"
        text = text.replace(old, new)
    (copy / "model.yaml").write_text(text)
    return load_contract(copy)


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
