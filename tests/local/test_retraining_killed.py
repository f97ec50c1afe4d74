"""A retraining that was fired and whose process was killed: the next monitoring trains in its place, once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.contract import load_contract
from seatrial.promotion import promote, read_pointer
from seatrial.sources import ingest
from seatrial.steps.release import register_model
from seatrial.steps.watching import decide_retraining
from seatrial.triggers import course, trigger_log, unfinished
from seatrial.workspace import Workspace
from support import bundles
from support.processes import environment
from support.small_model import CONTRACT, write_model

TRIGGERS = """
triggers: {on_drift: false, on_quality: false, every: 1d, cool_down: 28d, run_limit: %s}
"""
LATER = "2024-04-08T00:00:00+00:00"
ALIVE, OVER = "6h", "1s"
DIE_AFTER_FIRING = """
import os, signal, sys
from seatrial.steps.watching import decide_retraining

assert decide_retraining(*sys.argv[1:])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that serves and is due, whose retraining was fired by run-1, which was then killed."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    contract = write_model(tmp_path, contract=CONTRACT + TRIGGERS % ALIVE, rows=60)
    workspace = Workspace.open(tmp_path / "workspace")
    ingest(load_contract(contract), workspace, until=bundles.AS_OF)
    release(workspace, bundle_of(workspace, "run-0"))
    arguments = [
        str(contract.parent),
        workspace.root,
        "local",
        "run-1",
        LATER,
        "",
        str(tmp_path / "decision"),
    ]
    died = subprocess.run(
        [sys.executable, "-c", DIE_AFTER_FIRING, *arguments], check=False, env=environment()
    )
    assert died.returncode == -9
    return contract.parent


@pytest.fixture
def workspace(model: Path) -> Workspace:
    return Workspace.open(model.parent / "workspace")


def bundle_of(workspace: Workspace, run: str) -> str:
    """Write the bundle of a run."""
    figure = {"value": 0.7, "low": 0.6, "high": 0.8}
    files = bundles.bundle_files(
        training_json=b'{"rows": 40}', metrics_json=json.dumps({"test": {"roc_auc": figure}}).encode()
    )
    return bundles.make_bundle(workspace, files, run=run)


def release(workspace: Workspace, digest: str) -> None:
    """Let the environment serve a bundle."""
    bundle = load_bundle(workspace, digest, open_trust_root(workspace))
    expected = read_pointer(workspace, "local", "visits")
    promote(workspace, bundle, environment="local", expected=expected, reason="test", as_of=bundles.AS_OF)


def trains(model: Path, run: str, *, run_limit: str) -> bool:
    """Whether a run that monitors now is to train, by a contract with this limit."""
    (model / "model.yaml").write_text(CONTRACT + TRIGGERS % run_limit)
    root = str(model.parent / "workspace")
    return decide_retraining(str(model), root, "local", run, LATER, "", str(model.parent / "decision"))


def wait_until_taken_up(model: Path, run: str) -> None:
    """Monitor again and again until the run is to train."""
    deadline = time.monotonic() + 120
    while not trains(model, run, run_limit=OVER):
        assert time.monotonic() < deadline, "nobody took the dead run's place"
        time.sleep(0.2)


def registered(model: Path, workspace: Workspace, run: str, champion: str) -> tuple[str, bool]:
    """Register what a run has trained; return its digest and whether it serves."""
    digest = bundle_of(workspace, run)
    found = {
        "run": run,
        "as_of": LATER,
        "training": {"candidates": [{"name": "lr", "parameters": {}, "chosen": True}], "cost": {}},
        "versions": {},
        "evaluation": {"champion": {"digest": champion}},
    }
    path = model.parent / "found.json"
    path.write_text(json.dumps(found))
    return digest, register_model(str(model), workspace.root, "local", digest, "<html>", str(path))


def test_the_next_monitoring_takes_a_killed_run_s_place(model: Path, workspace: Workspace) -> None:
    """While it may live nobody trains; then one run does, on each try of its step; its end closes the cause (T3)."""
    log = trigger_log(workspace, "visits")
    assert not trains(model, "run-2", run_limit=ALIVE)

    wait_until_taken_up(model, "run-2")
    assert json.loads((model.parent / "decision").read_text())["causes"] == ["every"]
    tries = [trains(model, run, run_limit=ALIVE) for run in ("run-1", "run-2", "run-3", "run-2")]
    assert tries == [False, True, False, True]

    before = read_pointer(workspace, "local", "visits").digest
    assert before is not None
    digest, serves = registered(model, workspace, "run-2", before)
    assert serves
    (record,) = log.all()
    assert course(log, record).outcome == {"bundle": digest, "served": True}
    assert not trains(model, "run-4", run_limit=OVER)


def test_a_run_that_was_given_up_does_not_promote(model: Path, workspace: Workspace) -> None:
    """A run that was only slow registers its bundle and lets it not serve: another has its place (T3)."""
    wait_until_taken_up(model, "run-2")
    before = read_pointer(workspace, "local", "visits").digest
    assert before is not None

    _, slow_serves = registered(model, workspace, "run-1", before)
    assert not slow_serves
    assert read_pointer(workspace, "local", "visits").digest == before
    assert unfinished(trigger_log(workspace, "visits")) is not None
    _, serves = registered(model, workspace, "run-2", before)
    assert serves
