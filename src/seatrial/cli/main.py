"""The entry point: it knows every command group."""

from __future__ import annotations

import sys

from seatrial.cli import check, data, models, pipelines, serve
from seatrial.cli.app import run

__all__ = ["check", "data", "main", "models", "pipelines", "serve"]


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())
