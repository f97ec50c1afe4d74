"""Runs the driver of Kubeflow Pipelines, as its pod would, and reads what it put out."""

from __future__ import annotations

import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from seatrial.kubeflow_driver.workflows import Outcome, OutputPath, Waiting

LAST_WORDS = 2000
"""Bytes of what a driver printed that become the message of a failed step, as Kubernetes takes the end of a log."""


def drive(driver: Path, waiting: Waiting, *, seconds: float) -> Outcome:
    """Run the driver for a step.

    Args:
        driver: The program.
        waiting: The step.
        seconds: How long it may take.

    Returns:
        What it put out, or what it said when it failed, in words by which Argo's settings know whose fault it was.
    """
    with tempfile.TemporaryDirectory(prefix="driver-") as folder:
        paths = {
            one.output: Path(folder) / one.output for one in waiting.arguments if isinstance(one, OutputPath)
        }
        filled = [str(paths[one.output]) if isinstance(one, OutputPath) else one for one in waiting.arguments]
        try:
            ended = subprocess.run(  # noqa: S603 -- the program is the chart's, no shell reads the arguments
                [str(driver), *filled],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            said = f"code = DeadlineExceeded: the driver worked for {seconds:g} seconds"
            return _outcome({}, f"{said}: {_last_words(error.output or b'')}")
        except OSError as error:
            return _outcome({}, f"The driver {driver} cannot be started: {error.strerror}")
        if ended.returncode:
            return _outcome({}, f"Error (exit code {ended.returncode}): {_last_words(ended.stdout)}")
        return _outcome({name: path.read_text() for name, path in paths.items() if path.is_file()}, None)


def _last_words(output: bytes) -> str:
    return output[-LAST_WORDS:].decode(errors="replace").strip()


def _outcome(values: dict[str, str], failure: str | None) -> Outcome:
    return Outcome(values, failure, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
