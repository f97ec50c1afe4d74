"""Ten small steps in a row by Metaflow, each in a process of its own as it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from measure import Task, contend
from metaflow import Flow, Run, namespace

STEPS = 10
FLOW = Path(__file__).with_name("metaflow_flow.py")


def prepare(task: Task) -> Callable[[], Run]:
    """Return a run of the flow by its command."""
    os.chdir(task.scratch)
    namespace(None)

    def work() -> Run:
        command = [sys.executable, str(FLOW), "--quiet", "--no-pylint", "run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 -- a file of ours
        return Flow("TenSteps").latest_successful_run

    return work


def seconds_of(run: Run) -> float:
    """Return the run's own time, from its first entry to its end, without the command's imports."""
    return (run.finished_at - run.created_at).total_seconds()


def write(run: Run, _: Task) -> dict[str, int]:
    """Say what the last step gave."""
    return {"last": run["end"].task["value"].data}


if __name__ == "__main__":
    contend(prepare, libraries=("metaflow",), write=write, seconds_of=seconds_of, parts=STEPS)
