"""What many unit tests work on: an empty workspace, and the tables of a model's feedback in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.feedback.shipping import feedback_tables
from seatrial.tables import Tables
from seatrial.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of the test's own."""
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def tables(workspace: Workspace) -> Tables:
    """The tables of the feedback to the model ``ferry``, without a row."""
    return feedback_tables(workspace, "ferry")
