"""Prometheus' own tool takes the rules, and they fire for what they are for and for nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.charts import CHARTS, Case, of_kind, rendered

SERIES = Path(__file__).with_name("prometheus_rules.yaml")


@pytest.fixture
def promtool() -> str:
    """Prometheus' tool; skips where there is none."""
    command = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if command is None:
        pytest.skip("no promtool on PATH (Debian: package prometheus); $PROMTOOL may say where it is")
    return command


@pytest.fixture
def folder(helm: str, tmp_path: Path) -> Path:
    """A folder with the rules, as the chart of the platform makes them with its defaults, and series to try them."""
    maps = of_kind(rendered(Case(CHARTS / "platform", None)), "ConfigMap")
    (rules,) = [made["data"]["rules.yml"] for made in maps if "rules.yml" in made["data"]]
    (tmp_path / "rules.yml").write_text(rules)
    shutil.copy(SERIES, tmp_path)
    return tmp_path


def _run(promtool: str, folder: Path, *arguments: str) -> None:
    done = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_rules(promtool: str, folder: Path) -> None:
    """Prometheus reads the rules as the chart renders them."""
    _run(promtool, folder, "check", "rules", "rules.yml")


def test_rules_fire_for_what_they_are_for(promtool: str, folder: Path) -> None:
    """Series of a served model raise the alerts that say what is wrong, with its labels, and no others."""
    _run(promtool, folder, "test", "rules", SERIES.name)
