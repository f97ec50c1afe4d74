import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGE = (ROOT / "docs" / "dependencies.md").read_text()
PEERS = sorted(
    [*(ROOT / "benchmarks").glob("*/requirements/*.in"), *(ROOT / "tests/support/clients").glob("*.in")]
)

WORDS = {
    "Apache": r"Apache",
    "MIT": r"\bMIT\b|Expat",
    "BSD": r"BSD",
    "MPL": r"MPL|Mozilla",
    "CC0": r"CC0",
    "PSF": r"Python Software Foundation|PSF",
}


def name_of(requirement: str) -> str:
    """The name in a requirement such as ``pandera[polars]>=0.26``."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement.strip())
    assert found, requirement
    return found[0]


def asked_for() -> list[str]:
    """Every dependency of pyproject.toml."""
    groups = PROJECT.get("dependency-groups", {}).values()
    return sorted({name_of(r) for part in (PROJECT["project"]["dependencies"], *groups) for r in part})


def rows() -> dict[str, list[str]]:
    """The cells of each library's last row, by its name."""
    lines = [
        line for line in PAGE.split("## Chosen not to be used")[0].splitlines() if line.startswith("| `")
    ]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("` "): row for row in cells}


def families(text: str) -> set[str]:
    """The families of licences that a text names."""
    return {family for family, word in WORDS.items() if re.search(word, text)}


def stated_licence(name: str) -> str:
    """What an installed package says of its licence: its expression, else its text's start and classifiers."""
    facts = importlib.metadata.metadata(name)
    classifiers = [c for c in facts.get_all("Classifier", []) if c.startswith("License")]
    return facts.get("License-Expression") or " ".join([(facts.get("License") or "")[:60], *classifiers])


@pytest.mark.parametrize("name", asked_for())
def test_dependency_is_explained(name: str) -> None:
    """Each dependency is on the page with what it is for and a licence that the package itself states."""
    row = rows().get(name)

    assert row, f"docs/dependencies.md does not name {name}"
    assert row[1], f"{name}: what is it for?"
    stated = families(stated_licence(name))
    assert families(row[-1]), f"{name}: {row[-1]!r} names no licence that is known here"
    assert families(row[-1]) == stated or not stated, f"{name} states {stated}, the page says {row[-1]}"


def test_peers_are_explained() -> None:
    """Each peer of the benchmarks, and each client that tests ask with, is on the page too."""
    lines = [line for path in PEERS for line in path.read_text().splitlines()]
    asked = {name_of(line) for line in lines if line.strip() and not line.startswith("#")}

    assert asked, "no requirements of peers were found"
    assert asked - set(rows()) == set()


def test_page_names_nothing_that_is_gone() -> None:
    """A library that is asked for no more is on the page no more."""
    lines = [line for path in PEERS for line in path.read_text().splitlines()]
    asked = {name_of(line) for line in lines if line.strip() and not line.startswith("#")}

    assert set(rows()) - asked - set(asked_for()) == set()
