"""Run the commands that the cluster part rests on: helm, kind, kubectl, docker or podman.

They are programs of their own with releases of their own; a missing one is named together with the
version that the tests ran with, and one that hangs is ended.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from seatrial.errors import ToolError
from seatrial.local_runs import project_folder

QUICK = 60.0
"""Seconds that a command may take which only asks something."""
TICK_SECONDS = 1.0
"""How often it is looked what a command beside us has printed."""
_END_SECONDS = 30.0
_SHOWN_LINES = 8
_INHERITED: Mapping[str, str] = {}


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


def run(
    command: str,
    *arguments: str,
    seconds: float = QUICK,
    text: str | None = None,
    variables: Mapping[str, str] = _INHERITED,
) -> str:
    """Run a command to its end and return what it printed to standard output.

    Args:
        command: Its name.
        arguments: Its arguments.
        seconds: After how many seconds it is ended.
        text: What it reads from standard input.
        variables: Variables of its environment, beside ours.

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
            env={**os.environ, **variables},
        )
    except subprocess.TimeoutExpired as error:
        raise _too_slow(command, arguments, seconds) from error
    if done.returncode != 0:
        raise failure(command, arguments, done.returncode, done.stderr or done.stdout)
    return done.stdout


def run_beside(
    command: str,
    *arguments: str,
    seconds: float = math.inf,
    meanwhile: Callable[[str], None],
    variables: Mapping[str, str] = _INHERITED,
) -> None:
    """Run a command to its end, and do something about once a second meanwhile.

    What interrupts us ends the command too, in good order.

    Args:
        command: Its name.
        arguments: Its arguments.
        seconds: After how many seconds it is ended; never if infinite.
        meanwhile: Is given all that the command has printed so far; once more when it has ended well.
        variables: Variables of its environment, beside ours.

    Raises:
        ToolError: if it is missing, failed, or did not end in time.
    """
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="seatrial-command-") as folder:
        output = Path(folder) / "output"
        process = start(command, *arguments, output=output, variables=variables)
        try:
            while _runs(process):
                meanwhile(output.read_text(errors="replace"))
                if time.monotonic() > end:
                    raise _too_slow(command, arguments, seconds)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=_END_SECONDS)
        said = output.read_text(errors="replace")
        if process.returncode != 0:
            raise failure(command, arguments, process.returncode, said)
        meanwhile(said)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    """Whether it still runs, after a while."""
    try:
        process.wait(timeout=TICK_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def start(
    command: str, *arguments: str, output: Path, variables: Mapping[str, str] = _INHERITED
) -> subprocess.Popen[bytes]:
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
            env={**os.environ, **variables},
        )


def _too_slow(command: str, arguments: tuple[str, ...], seconds: float) -> ToolError:
    """The error of a command that did not end."""
    return ToolError(
        f"`{shown(command, arguments)}` did not end within {seconds:.0f} s.",
        remedy="Look whether the cluster answers: kubectl get nodes",
    )


def failure(command: str, arguments: tuple[str, ...], code: int, said: str) -> ToolError:
    """The error of a command that failed, with the last lines of what it said."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return ToolError(
        f"`{shown(command, arguments)}` failed ({code}): " + "\n".join(lines[-_SHOWN_LINES:]),
        remedy="It is a command like any other: run it by hand to see more.",
        said=said,
    )


def shown(command: str, arguments: tuple[str, ...]) -> str:
    """A command line as a person reads it, short."""
    line = " ".join([command, *arguments])
    return line if len(line) <= 100 else f"{line[:97]}..."  # noqa: PLR2004 -- a line of a terminal
