"""The page of faults and the tests that show them say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "design" / "faults.md"
NAME = re.compile(r"\b[KO][0-9]{1,2}\b")
NAMES = [*(f"K{number}" for number in range(1, 14)), *(f"O{number}" for number in range(1, 14))]


def _shown() -> dict[str, set[str]]:
    """For each fault the tests whose docstrings name it."""
    shown: dict[str, set[str]] = {name: set() for name in NAMES}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if not NAME.search(text):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for name in NAME.findall(ast.get_docstring(node) or ""):
                    shown[name].add(f"{path.relative_to(ROOT)}::{node.name}")
    return shown


def _rows() -> dict[str, list[str]]:
    """The page's rows by the fault's name: what happens, what shows it, what is missing."""
    rows = [line.split("|")[1:-1] for line in PAGE.read_text().splitlines() if NAME.match(line[2:])]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_every_fault_has_its_row() -> None:
    """All are there, in order."""
    assert list(_rows()) == NAMES


def test_rows_name_the_tests_that_name_the_fault() -> None:
    """No more and no fewer; a fault that no test shows says so, and why."""
    shown = _shown()
    for name, (_, tests, missing) in _rows().items():
        assert set(re.findall(r"`([^`]+::[^`]+)`", tests)) == shown[name], name
        assert (tests == "none") == (not shown[name]), name
        assert tests != "none" or missing, f"{name} does not say why no test shows it"
