"""The resolved requirements: in step with pyproject.toml, pinned, and hashed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))


def asked_for() -> list[Requirement]:
    """Return every requirement of the project and of its groups."""
    groups = [PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"].values()]
    return [Requirement(text) for group in groups for text in group]


def pins(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return each pinned distribution of a file with its version and its hashes."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if pin := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line):
            found[canonicalize_name(pin[1])] = (pin[2], re.findall(r"--hash=(\S+)", line))
    return found


@pytest.mark.parametrize("requirement", asked_for(), ids=str)
def test_what_is_asked_for_is_locked(requirement: Requirement) -> None:
    """Each requirement of pyproject.toml is pinned to a version that it allows."""
    version, _ = pins("dev.txt").get(canonicalize_name(requirement.name), ("", []))

    assert version, f"{requirement.name} is not locked. Run: make lock"
    assert requirement.specifier.contains(version, prereleases=True), f"{requirement} is locked at {version}"


@pytest.mark.parametrize("name", LOCKED)
def test_every_pin_has_hashes(name: str) -> None:
    """Nothing is installed whose bytes were not known when it was resolved."""
    found = pins(name)

    assert found
    for distribution, (_, hashes) in found.items():
        assert hashes, f"{distribution} in {name} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes)


@pytest.mark.parametrize("name", LOCKED)
def test_a_locked_file_holds_pins_alone(name: str) -> None:
    """No index, no link, no path: where packages come from is the installer's own setting."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    other = [
        line for line in text.splitlines() if line.strip() and not re.match(r"\s*#|[A-Za-z0-9._-]+==", line)
    ]

    assert other == []
    assert "make lock" in text.splitlines()[1]


@pytest.mark.parametrize("name", sorted(set(LOCKED) - {"dev.txt", "uv.txt", "build.txt"}))
def test_a_part_has_the_versions_of_the_whole(name: str) -> None:
    """What an image has is what was tested: the same versions, and not one of them more."""
    whole = pins("dev.txt")
    differing = {found: pin for found, pin in pins(name).items() if whole.get(found) != pin}

    assert differing == {}, f"{name} is not in step with dev.txt. Run: make lock"


@pytest.mark.parametrize("name", ["server", "mlflow", "pipeline", "demo"])
def test_an_image_has_what_its_group_asks_for(name: str) -> None:
    """Each group of an image is locked in the file that the image is built from, at an allowed version."""
    own = PROJECT["project"]["dependencies"] if name == "pipeline" else []
    locked = pins(f"{name}.txt")

    for text in [*own, *PROJECT["dependency-groups"][name]]:
        asked = Requirement(text)
        version, _ = locked.get(canonicalize_name(asked.name), ("", []))
        assert version, f"{asked.name} is not in {name}.txt. Run: make lock"
        assert asked.specifier.contains(version, prereleases=True), f"{asked} is locked at {version}"


def test_the_server_imports_what_its_image_has() -> None:
    """Nothing that the server or the jobs that prepare a cluster import is missing in the server's image."""
    program = ROOT / "tests" / "support" / "server_environment.py"
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_uv_itself_is_locked() -> None:
    """What installs the rest is known by its hash too."""
    assert list(pins("uv.txt")) == ["uv"]
