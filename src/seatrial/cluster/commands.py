"""Run the commands that the cluster part rests on: helm, kind, kubectl, docker or podman.

They are programs of their own with releases of their own; a missing one is named together with the
version that the tests ran with, and one that hangs is ended.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from seatrial.errors import ToolError
from seatrial.local_runs import project_folder

QUICK = 60.0
"""Seconds that a command may take which only asks something."""
_SHOWN_LINES = 8


def tested_version(command: str) -> str:
    """Return the version of a command that the tests ran with, from ``tool-versions.env``; empty if it is not there.

    Raises:
        UsageError: if this is no clone of the repository.
    """
    path = project_folder() / "tool-versions.env"
    lines = path.read_text().splitlines() if path.is_file() else []
    pairs = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return pairs.get(command.upper(), "")


def find(command: str) -> str:
    """Return the path of a command.

    Raises:
        ToolError: if it is not on PATH.
        UsageError: if this is no clone of the repository.
    """
    found = shutil.which(command)
    if found is None:
        version = tested_version(command)
        tested = (
            f" {version}, which the tests ran with (tool-versions.env), or a newer one" if version else ""
        )
        raise ToolError(
            f"The command {command!r} is not on PATH.",
            remedy=f"Install {command}{tested}, and run the same command again.",
        )
    return found


def run(command: str, *arguments: str, seconds: float = QUICK, text: str | None = None) -> str:
    """Run a command to its end and return what it printed to standard output.

    Args:
        command: Its name.
        arguments: Its arguments.
        seconds: After how many seconds it is ended.
        text: What it reads from standard input.

    Raises:
        ToolError: if it is missing, failed, or did not end in time.
    """
    try:
        done = subprocess.run(  # noqa: S603 -- names and arguments are ours
            [find(command), *arguments],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            input=text,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"`{shown(command, arguments)}` did not end within {seconds:.0f} s.",
            remedy="Look whether the cluster answers: kubectl get nodes",
        ) from error
    if done.returncode != 0:
        raise failure(command, arguments, done.returncode, done.stderr or done.stdout)
    return done.stdout


def start(command: str, *arguments: str, output: Path) -> subprocess.Popen[bytes]:
    """Start a command that runs beside us; all that it prints goes to a file.

    It is in a group of its own, so that a Ctrl-C reaches us alone and we end it in good order.

    Raises:
        ToolError: if it is missing.
    """
    with output.open("wb") as target:
        return subprocess.Popen(  # noqa: S603 -- names and arguments are ours
            [find(command), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def failure(command: str, arguments: tuple[str, ...], code: int, said: str) -> ToolError:
    """The error of a command that failed, with the last lines of what it said."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return ToolError(
        f"`{shown(command, arguments)}` failed ({code}): " + "\n".join(lines[-_SHOWN_LINES:]),
        remedy="It is a command like any other: run it by hand to see more.",
    )


def shown(command: str, arguments: tuple[str, ...]) -> str:
    """A command line as a person reads it, short."""
    line = " ".join([command, *arguments])
    return line if len(line) <= 100 else f"{line[:97]}..."  # noqa: PLR2004 -- a line of a terminal
