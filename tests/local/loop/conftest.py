"""The flights model with small budgets, trained once on two months of real flights.

Everything is real: the data, the pipelines under kfp.local with a process for each step, the
server, the replay over HTTP. Only budgets and bounds are smaller than in ``models/flights``.
"""

from __future__ import annotations

import os
import shutil

import pytest

from seatrial.contract import LoadedContract, load_contract
from seatrial.local_runs import StepEvent, run_locally
from seatrial.workspace import Workspace
from support.loop import FLIGHTS, SMALLER, TRAINED_AS_OF, Loop


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
def loop(flights: LoadedContract, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """The model, trained on January and February."""
    for name in ("SEATRIAL_WORKSPACE", "SEATRIAL_MODELS", "SEATRIAL_SIGNING_KEY", "SEATRIAL_TRUST"):
        os.environ.pop(name, None)
    workspace = Workspace.open(tmp_path_factory.mktemp("loop") / "workspace")
    events: list[StepEvent] = []
    arguments = {"model": str(flights.folder), "environment": "local", "as_of": TRAINED_AS_OF}
    training = run_locally("training", arguments, workspace, tell=events.append)
    return Loop(flights, workspace, training, events)
