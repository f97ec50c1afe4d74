"""Processes that tests start, let race, and kill."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUPPORT = Path(__file__).parent


def environment() -> dict[str, str]:
    """Return the environment for a process of ours: one thread each, and no settings from outside."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SEATRIAL_")}
    return {**kept, "POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SUPPORT.parent)}


@contextmanager
def started(script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script of this folder; when the block ends, it has ended too."""
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def say_go(processes: list[subprocess.Popen[str]]) -> None:
    """Let all processes that wait for a line begin."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
