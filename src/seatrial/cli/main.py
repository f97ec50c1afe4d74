"""The entry point: it knows every command group."""

from __future__ import annotations

import os
import signal
import sys

from seatrial.cli import (
    check,
    ci,
    cluster_runs,
    data,
    demo,
    feedback,
    images,
    init,
    models,
    pipelines,
    platform,
    promotion,
    record,
    report,
    serve,
)
from seatrial.cli.app import run
from seatrial.unpickling import forbid_unpickling

__all__ = [
    "check",
    "ci",
    "cluster_runs",
    "data",
    "demo",
    "feedback",
    "images",
    "init",
    "main",
    "models",
    "pipelines",
    "platform",
    "promotion",
    "record",
    "report",
    "serve",
]


def main() -> None:
    """Run the command line and exit with its code."""
    forbid_unpickling()
    if os.getpid() == 1:
        # The first process of a container hears no signal that it has no handler for.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(run())
