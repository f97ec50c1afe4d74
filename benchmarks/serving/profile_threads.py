"""Which of a server's threads takes the processor time of a request: the real server, 16 connections, log on and off.

:mod:`profile_request` takes a request apart without network and log. This looks at the server as it runs, from outside:
the kernel keeps each thread's time, in user mode and in its own.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import psutil
from bench import Bench, Plan
from contenders import CONTENDERS, Running
from rich.console import Console
from rich.table import Table

SHOWN = ("ours", "ours_interval", "ours_off")
CONNECTIONS, ROWS = 16, 1


@dataclass
class Taken:
    """Seconds that a thread, or several, took so far.

    Attributes:
        user: In user mode.
        kernel: In the kernel.
    """

    user: float = 0.0
    kernel: float = 0.0


def by_thread(process: psutil.Process) -> dict[str, Taken]:
    """Return what the event loop has taken, and what all threads beside it have together."""
    found = {"event loop": Taken(), "log, shipping and others": Taken()}
    for thread in process.threads():
        taken = found["event loop" if thread.id == process.pid else "log, shipping and others"]
        taken.user += thread.user_time
        taken.kernel += thread.system_time
    return found


def measure(bench: Bench, running: Running) -> dict[str, Taken]:
    """Put the load on a server, and return the microseconds a request of its threads."""
    process = psutil.Process(running.process.pid)
    before = by_thread(process)
    seen = bench.measure(running, CONNECTIONS, ROWS)
    after = by_thread(process)
    scale = 1e6 / seen["answers_with_warm_up"]
    return {
        name: Taken((taken.user - before[name].user) * scale, (taken.kernel - before[name].kernel) * scale)
        for name, taken in after.items()
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each server")
    seconds = parser.parse_args().seconds
    chosen = [contender for contender in CONTENDERS if contender.key in SHOWN]
    bench = Bench(Plan(chosen, [CONNECTIONS], [ROWS], 1, seconds))
    table = Table(
        title=f"Microseconds of processor time a request, {CONNECTIONS} connections", title_justify="left"
    )
    for name in ("server", "thread"):
        table.add_column(name)
    for name in ("user", "kernel"):
        table.add_column(name, justify="right")
    for contender in chosen:
        with bench.start(contender) as running:
            bench.check(running)
            for name, taken in measure(bench, running).items():
                table.add_row(contender.name, name, f"{taken.user:.0f}", f"{taken.kernel:.0f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
