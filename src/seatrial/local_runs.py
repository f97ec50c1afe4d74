"""Run a pipeline on this machine with ``kfp.local``: the very pipeline that a cluster runs.

Each step is a process of its own, as it is a pod of its own on a cluster
(:mod:`seatrial.step_processes`). Their logs go to a file;
what the steps tell a person (lines that begin with ``seatrial:``) is handed on as it comes. An
error of ours that ends a step is raised again here with its class, message and remedy.
"""

from __future__ import annotations

import io
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import orjson

from seatrial.contract.load import models_folder
from seatrial.errors import SeatrialError, UsageError
from seatrial.step_processes import StepProcesses
from seatrial.steps.files import FAILURE, PROGRESS, rebuild_failure
from seatrial.workspace import DEFAULT_ROOT, Workspace

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STARTED = re.compile(r"Executing task '([a-z0-9-]+)'")
_ENDED = re.compile(r"Task '([a-z0-9-]+)' finished with status ([A-Z]+)")


@dataclass(frozen=True)
class StepEvent:
    """Something that happened in a run.

    Attributes:
        step: Name of the step.
        kind: ``started``, ``said`` (a line for a person), or ``ended``.
        text: The line, or the status that it ended with.
        seconds: Wall-clock time of the step so far.
    """

    step: str
    kind: Literal["started", "said", "ended"]
    text: str
    seconds: float


@dataclass(frozen=True)
class LocalRun:
    """A finished run.

    Attributes:
        pipeline: Name of the pipeline.
        name: Name of the run.
        folder: What its steps put out.
        log: The steps' logs.
        output: What the pipeline returned; None if it returns nothing.
        seconds: Wall-clock time of each step, in the order in which they ran.
    """

    pipeline: str
    name: str
    folder: Path
    log: Path
    output: Any
    seconds: dict[str, float]


@dataclass
class _Listener(io.TextIOBase):
    """A standard output that reads what ``kfp.local`` writes, line by line."""

    log: TextIO
    real: TextIO
    on_event: Callable[[StepEvent], None]
    step: str = ""
    began: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    failure: dict[str, str] = field(default_factory=dict)
    partial: str = ""

    def write(self, text: str) -> int:
        self.log.write(_ANSI.sub("", text))
        self.log.flush()
        *lines, self.partial = (self.partial + _ANSI.sub("", text)).split("\n")
        for line in lines:
            self._read(line.strip())
        return len(text)

    def _read(self, line: str) -> None:
        now = time.perf_counter()
        if found := _STARTED.search(line):
            self.step, self.began = found[1], now
            self._tell("started", "")
        elif found := _ENDED.search(line):
            self.seconds[found[1]] = now - self.began
            self._tell("ended", found[2])
        elif line.startswith(FAILURE):
            self.failure = orjson.loads(line.removeprefix(FAILURE))
        elif line.startswith(PROGRESS):
            self._tell("said", line.removeprefix(PROGRESS))

    def _tell(self, kind: Literal["started", "said", "ended"], text: str) -> None:
        with redirect_stdout(self.real):
            self.on_event(StepEvent(self.step, kind, text, time.perf_counter() - self.began))


def project_folder() -> Path:
    """Return the folder that holds ``pipelines/`` and ``components/``: here, above, or beside the models.

    Raises:
        UsageError: if there is none.
    """
    here = Path.cwd()
    places = [here, *here.parents, models_folder().resolve().parent, Path(__file__).resolve().parents[2]]
    for place in places:
        if (place / "pipelines" / "training.py").is_file() and (place / "components").is_dir():
            return place
    raise UsageError(
        f"There are no pipelines/ and components/ in {here} or above it.",
        remedy="Run the command in a clone of the Seatrial repository.",
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def load_pipeline(name: str) -> Any:
    """Return a pipeline of the project, as the KFP SDK knows it.

    Raises:
        UsageError: if there is no such pipeline.
    """
    folder = project_folder()
    if not (folder / "pipelines" / f"{name}.py").is_file():
        there = sorted(p.stem for p in (folder / "pipelines").glob("[a-z]*.py"))
        raise UsageError(f"There is no pipeline {name!r}. There are: {', '.join(there)}.")
    with _importable(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = __import__(f"pipelines.{name}", fromlist=[name])
    return getattr(module, name)


def compile_pipeline(name: str, path: Path) -> None:
    """Write a pipeline as YAML that a Kubeflow Pipelines backend runs.

    Raises:
        UsageError: if there is no such pipeline.
    """
    from kfp import compiler

    compiler.Compiler().compile(load_pipeline(name), str(path))


@contextmanager
def _forking(processes: StepProcesses | None) -> Iterator[None]:
    """Let ``kfp.local`` start its steps by these processes, or by some that end with this context."""
    from kfp.local import subprocess_task_handler as handler

    with ExitStack() as stack:
        started = processes or stack.enter_context(StepProcesses())
        original = handler.run_local_subprocess
        handler.run_local_subprocess = lambda *args, **kwargs: started.run(
            *args, **kwargs, otherwise=original
        )
        try:
            yield
        finally:
            handler.run_local_subprocess = original


def run_locally(
    name: str,
    arguments: dict[str, Any],
    workspace: Workspace,
    *,
    tell: Callable[[StepEvent], None],
    processes: StepProcesses | None = None,
) -> LocalRun:
    """Run a pipeline on this machine.

    Args:
        name: Name of the pipeline.
        arguments: Its parameters, but for the workspace.
        workspace: The workspace; what the steps put out lies under its ``pipeline-runs``, or, if it is
            on S3, under those of the folder ``.seatrial`` here.
        tell: Called with each event, as it happens.
        processes: What starts the steps, if several runs share it.

    Returns:
        The finished run.

    Raises:
        SeatrialError: what ended a step, with its class.
        UsageError: if there is no such pipeline.
    """
    from kfp import local

    pipeline = load_pipeline(name)
    # Steps on this machine pass files to each other; only on a cluster do those travel by way of S3.
    root = (workspace.folder if workspace.is_local else Path(DEFAULT_ROOT).resolve()) / "pipeline-runs"
    root.mkdir(parents=True, exist_ok=True)
    log_path = root / f"{name}.log"
    before = set(root.iterdir())
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    with log_path.open("w", encoding="utf-8") as log, warnings.catch_warnings():
        # kfp.local warns that our image's name does not have "python" in it; the steps run without an image here.
        warnings.simplefilter("ignore")
        listener = _Listener(log, sys.stdout, tell)
        try:
            with _forking(processes), redirect_stdout(listener):
                outputs = pipeline(**arguments, workspace=workspace.root).outputs
        except RuntimeError as error:
            raise _failure(listener, log_path) from error
    made = sorted(path for path in set(root.iterdir()) - before if path.is_dir())
    folder = made[-1] if made else root
    log_path = log_path.replace(folder / "run.log")
    return LocalRun(name, folder.name, folder, log_path, outputs.get("Output"), listener.seconds)


def _failure(listener: _Listener, log: Path) -> SeatrialError:
    """The error that ended the step."""
    said = listener.failure
    if not said:
        return SeatrialError(
            f"The step {listener.step!r} failed unexpectedly.", remedy=f"Its log is in {log}."
        )
    return rebuild_failure(said)
