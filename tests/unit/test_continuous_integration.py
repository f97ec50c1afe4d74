"""What a change touches, what a model and an image are made of, and how it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.continuous_integration import (
    Integration,
    ModelChecks,
    Stage,
    affected_models,
    changes_since,
    image_inputs,
    recipe_digest,
    write_summary,
)
from seatrial.continuous_integration.sample import Sample
from seatrial.errors import GateError, ToolError, UsageError
from support.repository import git

CONTRACT = """\
version: 1
name: {name}
description: Says it.
owner: me@example.com
tables:
  rows:
    source: {{kind: file, path: rows.csv}}
    key: [id]
    columns:
      id: {{type: string, required: true}}
      size: {{type: number}}
      late: {{type: boolean}}
prediction: {{table: rows, inputs: [id, size]}}
label: {{column: late}}
split: {{validation: 0.2, test: 0.2}}
candidates:
  - {{name: tree, estimator: sklearn.tree.DecisionTreeClassifier, complexity: 1, encoding: ordinal}}
costs: {{missed: 5, false_alarm: 1}}
gates:
  minimum_quality: {{metric: roc_auc, minimum: 0.5}}
  champion: {{metric: roc_auc, tolerance: 0.01}}
  calibration: {{maximum: 0.1}}
  business_cost: {{maximum_ratio: 1.0}}
  latency: {{maximum_milliseconds: 10}}
  bundle_size: {{maximum_megabytes: 20}}
  parity: {{maximum_difference: 0.0001, rows: 100}}
  training_time: {{maximum_minutes: 10}}
  training_energy: {{maximum_watt_hours: 100}}
"""
FEATURES = "FEATURES = 1  # size\n"
DOCKERFILE = (
    "FROM base AS one\nCOPY requirements/pipeline.txt /build/\nFROM one\nCOPY --from=one /x /x\nCOPY src /x\n"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with two models, on a branch beside main."""
    files = {
        "components/one.py": "x = 1\n",
        "pipelines/training.py": "y = 1\n",
        "src/seatrial/z.py": "z = 1\n",
        "requirements/pipeline.txt": "a==1\n",
        "images/pipeline/Dockerfile": DOCKERFILE,
        "README.md": "# A\n",
    }
    for model in ("orders", "returns"):
        files |= {
            f"models/{model}/model.yaml": CONTRACT.format(name=model),
            f"models/{model}/features.py": FEATURES,
            f"models/{model}/README.md": "# It\n",
        }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    git(tmp_path, "init", "--initial-branch=main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    git(tmp_path, "switch", "-c", "change")
    return tmp_path


def test_nothing_changed_touches_nothing(project: Path) -> None:
    """A branch that is where main is has no changes and touches no model."""
    changes = changes_since(project, "main")
    assert changes.paths == ()
    assert affected_models(project, changes) == []


@pytest.mark.parametrize(
    ("path", "touched"),
    [
        ("models/orders/features.py", ["orders"]),
        ("models/orders/new.py", ["orders"]),
        ("components/one.py", ["orders", "returns"]),
        ("pipelines/new.py", ["orders", "returns"]),
        ("src/seatrial/z.py", ["orders", "returns"]),
        ("requirements/pipeline.txt", ["orders", "returns"]),
        ("README.md", []),
        ("models/README.md", []),
        ("componentsx/one.py", []),
    ],
)
@pytest.mark.parametrize("committed", [True, False])
def test_a_change_touches_the_models_that_it_makes(
    project: Path, path: str, touched: list[str], committed: bool
) -> None:
    """A model's own files touch it, what all are made with touches all; committed or not."""
    (project / path).parent.mkdir(exist_ok=True)
    (project / path).write_text("changed = True\n")
    if committed:
        git(project, "add", ".")
        git(project, "commit", "-m", "two")
    changes = changes_since(project, "main")
    assert changes.paths == (path,)
    assert affected_models(project, changes) == touched


def test_what_main_did_meanwhile_is_not_this_change(project: Path) -> None:
    """Compared is with where the branch left main, not with where main is now."""
    git(project, "switch", "main")
    (project / "models/returns/features.py").write_text("FEATURES = 2\n")
    git(project, "commit", "-am", "meanwhile")
    git(project, "switch", "change")
    (project / "models/orders/features.py").write_text("FEATURES = 2\n")
    assert affected_models(project, changes_since(project, "main")) == ["orders"]


def test_a_model_that_was_removed_is_not_run(project: Path) -> None:
    """What is not there any more is touched, and there is nothing to look at."""
    git(project, "rm", "-r", "models/orders")
    assert affected_models(project, changes_since(project, "main")) == []


def test_an_unknown_commit_is_named(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A branch that git does not know, or no repository at all, is an error with what to do."""
    with pytest.raises(UsageError, match="origin/main"):
        changes_since(project, "origin/main")
    with pytest.raises(ToolError, match="not a git repository"):
        changes_since(tmp_path_factory.mktemp("empty"), "main")


SAME = {
    "a comment": ("models/orders/features.py", "# New.\nFEATURES = 1\n"),
    "blank lines": ("models/orders/features.py", "\n\nFEATURES  =  (1)\n"),
    "a comment in the contract": ("models/orders/model.yaml", "# New.\n" + CONTRACT.format(name="orders")),
    "its own README": ("models/orders/README.md", "# Other\n"),
    "the README": ("README.md", "# Other\n"),
    "another model": ("models/returns/features.py", "FEATURES = 2\n"),
}
OTHER = {
    "features": ("models/orders/features.py", "FEATURES = 2\n"),
    "no Python": ("models/orders/features.py", "FEATURES = (\n"),
    "the contract": ("models/orders/model.yaml", CONTRACT.format(name="orders").replace("5,", "6,")),
    "a file of data": ("models/orders/rows.csv", "id,size,late\n"),
    "a component": ("components/one.py", "x = 2\n"),
    "the library": ("src/seatrial/z.py", "z = 2\n"),
    "a dependency": ("requirements/pipeline.txt", "a==2\n"),
}


@pytest.mark.parametrize("case", [*SAME, *OTHER])
def test_the_recipe_is_what_makes_the_model(project: Path, case: str) -> None:
    """What says the same is the same recipe; what may make another bundle is another one."""
    before = recipe_digest(project, "orders", as_of="2013-03")
    path, text = (SAME | OTHER)[case]
    (project / path).write_text(text)
    assert (recipe_digest(project, "orders", as_of="2013-03") == before) == (case in SAME)


def test_the_instant_is_part_of_the_recipe(project: Path) -> None:
    """A later sample has other rows."""
    assert recipe_digest(project, "orders", as_of="a") != recipe_digest(project, "orders", as_of="b")


def test_an_image_is_what_its_dockerfile_copies(project: Path) -> None:
    """The Dockerfile and what it copies from the project count, byte by byte, and nothing else."""
    before = image_inputs(project, "pipeline")
    (project / "components/one.py").write_text("x = 2\n")
    assert image_inputs(project, "pipeline") == before
    (project / "src/seatrial/z.py").write_text("z = 1  # new\n")
    assert image_inputs(project, "pipeline") != before
    with pytest.raises(UsageError, match="no image 'other'"):
        image_inputs(project, "other")


def test_a_failed_gate_ends_the_sample(tmp_path: Path) -> None:
    """The error names the gates and where to look."""
    sample = Sample(
        "run", "", [{"check": "calibration", "outcome": "fail", "measured": "0.3"}], "report.html"
    )
    with pytest.raises(GateError, match=r"calibration.*report\.html"):
        sample.require_passes()


def test_the_summary_says_what_failed(tmp_path: Path) -> None:
    """The page begins with the result, has every stage and gate, and no cell breaks the table."""
    sample = Sample(
        "run", "ab" * 32, [{"check": "latency", "outcome": "warn", "measured": "9 | 10"}], "r.html"
    )
    model = ModelChecks("orders", [Stage("orders: contract", "failed", "one\ntwo", 1.0, 3)], sample=sample)
    found = Integration("c" * 40, [Stage("lint", "passed", "clean")], [model])
    page = write_summary(found, tmp_path).read_text()
    assert [stage.name for stage in found.failed] == ["orders: contract"]
    assert page.startswith("## ❌")
    assert "| ❌ | orders: contract | one<br>two | 1 s |" in page
    assert r"| ⚠️ | latency | 9 \| 10 |" in page
    assert "No model" in write_summary(Integration("c" * 40), tmp_path).read_text()
