"""``seatrial ci`` on a project of its own: a change is checked, run on a sample, and not run twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local.test_init_trains import write_orders

from seatrial.init_model import init_model
from support.repository import git

pytestmark = pytest.mark.usefixtures("measured_processes")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with our code; a branch of it brings a model that ``init`` made."""
    for name in ("components", "pipelines", "src"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / ".gitignore").write_text("build/\n__pycache__/\n.ruff_cache/\n")
    git(tmp_path, "init", "--initial-branch=main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a project")
    git(tmp_path, "switch", "-c", "orders")
    monkeypatch.chdir(tmp_path)
    write_orders(tmp_path / "orders.csv", timed=False)
    contract = init_model("orders", Path("orders.csv")).folder / "model.yaml"
    contract.write_text(contract.read_text().replace("trials: 8", "trials: 1"))
    return tmp_path


def ci(project: Path, *arguments: str) -> tuple[int, str, str]:
    """Run the command and return exit code, output and errors."""
    command = [sys.executable, "-m", "seatrial", "ci", "--since", "main", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.long
def test_a_change_is_tried_once(project: Path) -> None:
    """A new model is linted, checked and run; a comment runs nothing anew; what breaks it is told with its code."""
    code, out, err = ci(project, "--json")
    assert code == 0, err
    found = json.loads(out)
    (model,) = found["models"]
    assert (model["model"], model["reused"]) == ("orders", False)
    assert {verdict["outcome"] for verdict in model["sample"]["verdicts"]} <= {"pass", "warn"}
    assert "<html" in Path(project / model["sample"]["report"]).read_text()[:200]
    assert "## ✅" in (project / "build/ci/summary.md").read_text()
    assert (project / "build/ci/pipelines/training-test.yaml").is_file()

    features = project / "models/orders/features.py"
    features.write_text("# It says the same.\n" + features.read_text())
    code, out, err = ci(project, "--json")
    (again,) = json.loads(out)["models"]
    assert (code, again["reused"]) == (0, True)
    assert again["sample"] == model["sample"]

    features.write_text("import os\n" + features.read_text())
    contract = project / "models/orders/model.yaml"
    contract.write_text(contract.read_text().replace("owner:", "ownr:"))
    code, out, err = ci(project)
    assert code == 1
    assert "✗ lint" in out
    assert "F401" in out
    assert "✗ orders: contract" in out
    assert "ownr" in (project / "build/ci/summary.md").read_text()


def test_a_change_of_no_model_runs_nothing(project: Path) -> None:
    """Only what a change touches is looked at, and the command says that nothing is."""
    git(project, "add", ".")
    git(project, "commit", "-m", "orders")
    git(project, "switch", "main")
    (project / "README.md").write_text("# A project\n")
    code, out, _ = ci(project)
    assert code == 0
    assert "No model is touched" in out
