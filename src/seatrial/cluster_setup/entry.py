"""How the commands of the set-up end: a failure is one line of words, never a traceback of another library."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from seatrial.errors import SeatrialError, UsageError
from seatrial.unpickling import forbid_unpickling

Plan = TypeVar("Plan", bound=BaseModel)


def say(line: str) -> None:
    """Print a line at once and as a whole: a container's log is read while it runs, and threads write to it."""
    print(f"seatrial: {line}\n", end="", flush=True)  # noqa: T201 -- standard output is a container's log


def run(command: Callable[[], None]) -> NoReturn:
    """Run a command and end the process: with 0, or with an error's words and its exit code."""
    # A container's first process is not ended by a signal that it has no handler for, and its pod would be waited for.
    signal.signal(signal.SIGTERM, _end)
    forbid_unpickling()
    try:
        command()
    except SeatrialError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    sys.exit(0)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End as a process that a signal has ended does."""
    sys.exit(128 + number)


def read_plan(kind: type[Plan], text: str) -> Plan:
    """Read what a chart asks for.

    Args:
        kind: The model of the plan.
        text: The plan as JSON.

    Raises:
        UsageError: if it is no such plan.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"The plan is not one of this version: {error}.",
            remedy="Chart and image must be of the same version: check global.serverImage.tag.",
        ) from error
