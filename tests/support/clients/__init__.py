"""Real clients of the protocols, each in an environment of its own: they cannot be installed beside the rest.

An environment is made under ``build/clients`` from its hashed requirements when a test first
asks for it. Where it cannot be made, as without a network, the tests that need it are skipped and say why.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
ENVIRONMENTS = ROOT / "build" / "clients"
REQUIREMENTS = {
    "oip": HERE / "oip.txt",
    "seldon": ROOT / "benchmarks" / "serving" / "requirements" / "seldon.txt",
}


def python_of(name: str) -> Path:
    """Return the Python of a client's environment, making it where it is not there; skip the test if it cannot be."""
    folder = ENVIRONMENTS / name
    requirements = REQUIREMENTS[name]
    stamp = folder / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != digest:
            _make(folder, requirements)
            stamp.write_text(digest)
    return folder / "bin" / "python"


def _make(folder: Path, requirements: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    python = str(folder / "bin" / "python")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", "3.11", str(folder)],
        [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, str(requirements)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the environment of {requirements.name} cannot be made: {done.stderr[-300:]}")


def ask(name: str, script: str, question: dict[str, Any]) -> Any:
    """Let a client's script ask a server, and return what it says.

    Args:
        name: The client's environment.
        script: The script beside this file; it reads a JSON object from its standard input and prints one.
        question: That object.
    """
    done = subprocess.run(
        [str(python_of(name)), str(HERE / script)],
        input=orjson.dumps(question),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return orjson.loads(done.stdout.splitlines()[-1])
