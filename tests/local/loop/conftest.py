"""The flights model with small budgets, trained once on two months of real flights.

Everything is real: the data, the pipelines under kfp.local with a process for each step, the
server, the replay over HTTP. Only budgets and bounds are smaller than in ``models/flights``.
"""

from __future__ import annotations

import os

import pytest

from seatrial.contract import LoadedContract
from seatrial.local_runs import StepEvent, run_locally
from seatrial.workspace import Workspace
from support.loop import TRAINED_AS_OF, Loop, small_flights


@pytest.fixture(scope="package")
def flights(tmp_path_factory: pytest.TempPathFactory) -> LoadedContract:
    """A copy of the flights model with small budgets."""
    return small_flights(tmp_path_factory.mktemp("models"))


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
