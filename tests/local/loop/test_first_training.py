"""A training run on real flights ends in a signed bundle that serves, and can be repeated to the byte.

The file's name puts it before the live traffic, which trains the model anew.
"""

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
from seatrial.registry import list_versions
from seatrial.sources import ingest
from seatrial.steps.files import read_dataset
from seatrial.tables import Tables
from seatrial.training import to_onnx, to_skops, train_candidates
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace
from support.loop import TRAINED_AS_OF, Loop


def test_a_run_ends_in_a_bundle_that_serves(loop: Loop) -> None:
    """The environment's pointer names a verified bundle with a verdict for every gate, none failed."""
    pointer = read_pointer(loop.workspace, "local", "flights")
    assert pointer.digest is not None
    bundle = load_bundle(loop.workspace, pointer.digest, open_trust_root(loop.workspace))

    assert loop.training.output is True
    assert (pointer.generation, pointer.as_of) == (1, TRAINED_AS_OF)
    assert {v.check for v in bundle.verdicts} == {"data_tests", *loop.loaded.contract.gates.model_fields_set}
    assert [v.check for v in bundle.verdicts if v.outcome is Outcome.FAIL] == []
    assert {"model.onnx", "model.skops", "features.py", "model.yaml", "baseline.json", "card.md"} <= set(
        bundle.files
    )
    assert bundle.manifest.data["flights"]["rows"] == 51_801


def test_the_registry_shows_the_version(loop: Loop) -> None:
    """MLflow has one version, tagged with digest and data versions, with the environment as its alias."""
    (version,) = list_versions(loop.workspace, "flights")

    assert version.digest == read_pointer(loop.workspace, "local", "flights").digest
    assert version.aliases == ["local"]
    assert version.tags["seatrial.verdict"] == "pass"
    assert "seatrial.data.flights" in version.tags


def test_each_step_says_what_it_decided(loop: Loop) -> None:
    """Every step of the pipeline tells a person at least one line."""
    said = {event.step for event in loop.events if event.kind == "said"}

    assert set(loop.training.seconds) <= said


def test_the_report_lies_in_the_workspace(loop: Loop) -> None:
    """The run's report is one HTML file with the verdicts."""
    page = loop.workspace.get(f"runs/flights/{loop.training.name}/report.html")

    assert page is not None
    assert b"quality" in page.lower()


def test_the_same_rows_code_and_contract_give_the_same_model(loop: Loop) -> None:
    """Training again on the run's rows, in another process, gives the bytes that are in the bundle."""
    folder = loop.training.folder
    parts = [read_dataset(str(folder / "split" / name)) for name in ("training", "validation")]
    again = train_candidates(loop.loaded, *parts, progress=lambda _: None)
    digest = read_pointer(loop.workspace, "local", "flights").digest
    assert digest is not None
    bundle = load_bundle(loop.workspace, digest, open_trust_root(loop.workspace))

    assert to_onnx(again.estimator, len(again.schema.columns)) == bundle.files["model.onnx"]
    assert to_skops(again.estimator) == bundle.files["model.skops"]
    assert again.schema == bundle.schema.features


def test_a_bad_month_stops_the_run_and_nothing_of_it_is_learned(loop: Loop, tmp_path: Path) -> None:
    """Too many rows in quarantine end the run with the data tests' error; valid rows stay as they were."""
    text = loop.loaded.text.replace("maximum: 6000", "maximum: 300")
    folder = tmp_path / "flights"
    folder.mkdir()
    for name in ("features.py", "prepare.py"):
        (folder / name).write_bytes((loop.loaded.folder / name).read_bytes())
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
