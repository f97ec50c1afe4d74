"""Runs the driver of Kubeflow Pipelines, as its pod would, and reads what it put out."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from seatrial.kubeflow_driver.workflows import Outcome, OutputPath, Waiting

LAST_WORDS = 2000
"""Bytes of what a driver printed that become the message of a failed step, as Kubernetes takes the end of a log."""
PATCH = "pod-spec-patch"
"""The output of a driver that says how a step's pod is started."""
_FLAGS = ("--ml_pipeline_server_address", "--ml_pipeline_server_port")
"""By which 2.17.0 is told where the API is, and tells it to the step; 2.14.3 has variables, which no step gets."""


@dataclass(frozen=True)
class Door:
    """Where drivers reach the API of Kubeflow Pipelines: an address of this machine, which no step can reach.

    Attributes:
        host: The host.
        port: The port.
    """

    host: str
    port: int


def drive(driver: Path, waiting: Waiting, *, seconds: float, door: Door | None = None) -> Outcome:
    """Run the driver for a step.

    Args:
        driver: The program.
        waiting: The step.
        seconds: How long it may take.
        door: Where it shall reach the API; None: where it is told to.

    Returns:
        What it put out, or what it said when it failed, in words by which Argo's settings know whose fault it was.
    """
    with tempfile.TemporaryDirectory(prefix="driver-") as folder:
        paths = {
            one.output: Path(folder) / one.output for one in waiting.arguments if isinstance(one, OutputPath)
        }
        filled = [str(paths[one.output]) if isinstance(one, OutputPath) else one for one in waiting.arguments]
        arguments, environment = _through(door, filled) if door else (filled, None)
        try:
            ended = subprocess.run(  # noqa: S603 -- the program is the chart's, no shell reads the arguments
                [str(driver), *arguments],
                env=environment,
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
        values = {name: path.read_text() for name, path in paths.items() if path.is_file()}
        if values.get(PATCH) and arguments != filled:
            values[PATCH] = _past(arguments, filled, values[PATCH])
        return _outcome(values, None)


def _through(door: Door, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What a driver is started with that shall reach the API by a door: arguments and environment.

    The store's keys are for who answers at the door: a driver has no use for them.
    """
    at = (door.host, str(door.port))
    variables = dict(zip(("ML_PIPELINE_SERVICE_HOST", "ML_PIPELINE_SERVICE_PORT_GRPC"), at, strict=True))
    told = dict(zip(_FLAGS, at, strict=True))
    changed = [told.get(before, one) for before, one in zip(["", *arguments], [*arguments], strict=False)]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return changed, inherited | variables


def _past(changed: Sequence[str], given: Sequence[str], patch: str) -> str:
    """The patch of a step's pod, with what the driver was given in the place of what it was started with."""
    back = {
        (before, ours): theirs
        for before, ours, theirs in zip(["", *given], changed, given, strict=False)
        if before in _FLAGS
    }
    pod: dict[str, Any] = orjson.loads(patch)
    for container in pod.get("containers") or []:
        for key in {"command", "args"} & container.keys():
            words: list[str] = container[key]
            container[key] = [
                back.get((before, one), one) for before, one in zip(["", *words], words, strict=False)
            ]
    return orjson.dumps(pod).decode()


def _last_words(output: bytes) -> str:
    return output[-LAST_WORDS:].decode(errors="replace").strip()


def _outcome(values: dict[str, str], failure: str | None) -> Outcome:
    return Outcome(values, failure, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
