"""What every contender shares: repeat, take the time, write down what was seen.

A contender is a script of its own, in a process of its own, so that its memory is its own and its
imports are not counted. It is called with a folder of inputs and a file to write to, runs its work
once to warm up and then the asked number of times, and writes seconds, peak memory and versions.
Only the standard library is imported here, because the peers live in environments of their own.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Task:
    """What a contender is to do.

    Attributes:
        inputs: Folder of the inputs.
        scratch: Folder that it may write to.
        answers: Parquet file for its answers.
    """

    inputs: Path
    scratch: Path
    answers: Path


def peak_mib() -> float:
    """Return the most memory that this process has held.

    Linux says it in ``VmHWM``; the figure of ``getrusage`` would include the parent's memory at the fork.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / _KIB_PER_MIB


def contend(
    prepare: Callable[[Task], Callable[[], Any]],
    *,
    libraries: tuple[str, ...],
    write: Callable[[Any, Task], dict[str, Any] | None] | None = None,
    seconds_of: Callable[[Any], float] | None = None,
    parts: int = 1,
) -> None:
    """Run a contender as its command line says.

    Args:
        prepare: Reads the inputs, which is not timed, and returns the work.
        libraries: Distributions whose versions are written down.
        write: Takes the last result to the task's answers, and returns facts to write down; not timed.
        seconds_of: Takes the seconds from the work's result, where it starts a command whose own start is
            not to be counted; the clock around the work without it.
        parts: By how many the seconds are divided, such as the steps of a pipeline.
    """
    parser = argparse.ArgumentParser()
    for name in ("inputs", "scratch", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm-ups", type=int, default=1)
    given = parser.parse_args()
    inputs, scratch, out = given.inputs.resolve(), given.scratch.resolve(), given.out.resolve()
    task = Task(inputs, scratch, out.with_suffix(".parquet"))
    task.scratch.mkdir(parents=True, exist_ok=True)
    work = prepare(task)
    result, seconds = None, []
    for place in range(given.warm_ups + given.repeats):
        result = None  # the memory of one result, not of two
        gc.collect()
        started = time.perf_counter()
        result = work()
        took = time.perf_counter() - started
        if place >= given.warm_ups:
            seconds.append((seconds_of(result) if seconds_of else took) / parts)
    peak = peak_mib()
    facts = write(result, task) if write else None
    seen = {
        "seconds": seconds,
        "peak_mib": peak,
        "versions": {name: importlib.metadata.version(name) for name in libraries},
        **(facts or {}),
    }
    out.write_text(json.dumps(seen))
