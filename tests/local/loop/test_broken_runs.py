"""A training run that is stopped by its data or killed leaves nothing that serves, and can be run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seatrial.bundle import list_bundles, load_bundle, open_trust_root
from seatrial.contract import LoadedContract
from seatrial.data_tests import as_of_or_now
from seatrial.errors import DataTestError
from seatrial.local_runs import run_locally
from seatrial.promotion import read_pointer
from seatrial.sources import ingest
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support.loop import TRAINED_AS_OF


def test_a_bad_month_stops_the_run_and_nothing_of_it_is_learned(
    flights: LoadedContract, tmp_path: Path
) -> None:
    """Too many rows in quarantine end the run with the data tests' error; valid rows stay as they were."""
    text = flights.text.replace("maximum: 6000", "maximum: 300")
    folder = tmp_path / "flights"
    folder.mkdir()
    for name in ("features.py", "prepare.py"):
        (folder / name).write_bytes((flights.folder / name).read_bytes())
    (folder / "model.yaml").write_text(text)
    workspace = Workspace.open(tmp_path / "workspace")
    arguments = {"model": str(folder), "environment": "local", "as_of": "2013-02-01T00:00:00+00:00"}

    with pytest.raises(DataTestError, match="flights 2013-01") as caught:
        run_locally("training", arguments, workspace, tell=lambda _: None)
    assert "seatrial data show flights flights --layer quarantine" in caught.value.remedy
    assert Tables(workspace, "flights", "valid").open("flights") is None
    assert read_pointer(workspace, "local", "flights").digest is None


@pytest.mark.parametrize("step", ["ingest", "train"])
def test_a_killed_run_is_simply_run_again(flights: LoadedContract, tmp_path: Path, step: str) -> None:
    """After SIGKILL in a step nothing serves, every bundle that can be seen is whole, and rows are there once."""
    workspace = Workspace.open(tmp_path / "workspace")
    command = [sys.executable, "-m", "seatrial", "train", str(flights.folder), "--as-of", TRAINED_AS_OF]
    process = subprocess.Popen(
        [*command, "--workspace", workspace.root], stdout=subprocess.DEVNULL, start_new_session=True
    )
    log, deadline = workspace.folder / "pipeline-runs" / "training.log", time.monotonic() + 400
    while not (log.exists() and f"Executing task '{step}'" in log.read_text(encoding="utf-8")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1)  # Into the step; when exactly is the test's input, not a wait for something.
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    assert read_pointer(workspace, "local", "flights").digest is None
    ingest(flights, workspace, until=as_of_or_now(TRAINED_AS_OF))
    for name, table in flights.contract.tables.items():
        rows = Tables(workspace, "flights", "raw").read(name).collect()
        assert rows.select(table.key).is_unique().all()
    for digest in list_bundles(workspace):
        load_bundle(workspace, digest, open_trust_root(workspace))
