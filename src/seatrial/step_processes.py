"""Processes for the steps of pipelines on this machine, forked from one that has imported what they use.

A step is a process of its own, as it is a pod of its own on a cluster. Most of a short step's time goes
into imports: a second for the tables and the contract, several for scikit-learn, skl2onnx or MLflow. So one
process imports them once, each step is a fork of it, and what later steps use is imported while earlier
ones run. It does nothing else: no table, bundle or session is opened in it, so a fork inherits no work
that is under way, only modules.

Where processes cannot be forked safely (anywhere but on Linux) a step is started as ``kfp.local`` does it.
"""

from __future__ import annotations

import atexit
import importlib
import io
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from seatrial.registry import NO_TELEMETRY

FIRST = ("kfp.dsl.executor_main", "seatrial.steps.data")
"""Modules without which no step begins."""
LATER = (
    "pandera.polars",
    "seatrial.steps.training",
    "codecarbon",
    "optuna",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.compose",
    "sklearn.impute",
    "threadpoolctl",
    "skl2onnx",
    "skops.io",
    "onnxruntime",
    "seatrial.steps.judging",
    "seatrial.steps.release",
    "matplotlib.figure",
    "matplotlib.backends.backend_svg",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "seatrial.steps.watching",
)
"""Modules that steps use, in the order in which a training and a monitoring run use them."""
ASKED = {"codecarbon": ("codecarbon.core.util", "detect_cpu_model")}
"""What a step would ask the machine once it has imported a module, and whose answer its library keeps: the name of the
processor takes a process of its own a second to find."""
SETTINGS = {"_KFP_RUNTIME": "true"}
"""What ``kfp.local`` adds to a step's environment, so that kfp imports its executor alone."""

COMPONENT = "ephemeral_component.py"
HEARD_SECONDS = 1.0
END_SECONDS = 1.0
_DIED = 1
_SHELLS = (["sh", "-ec"], ["sh", "-c"])
_ASKED = b"a"
_DESCRIPTORS = 3
_CHUNK_BYTES = 65536


class StepProcesses:
    """Starts the steps of pipelines; a context manager, at whose end no process of it is left."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._running: set[int] = set()

    def __enter__(self) -> Self:
        if sys.platform == "linux":
            self._channel, other = socket.socketpair()
            command = [sys.executable, "-m", __name__, str(other.fileno())]
            with other:
                self._process = subprocess.Popen(  # noqa: S603 -- this module
                    command,
                    pass_fds=[other.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **SETTINGS, **NO_TELEMETRY},
                )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is None or self._process is None:
            return
        for step in self._running:  # One whose end nobody waited for, after Ctrl-C.
            with suppress(ProcessLookupError):
                os.kill(step, signal.SIGTERM)
        self._channel.close()  # The process ends by that, unless it is in the middle of a long import.
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()

    def run(
        self,
        full_command: list[str],
        env_vars: dict[str, str] | None = None,
        *,
        otherwise: Callable[[list[str], dict[str, str] | None], int],
    ) -> int:
        """Run a step and print what it says; takes the place of ``kfp.local``'s ``run_local_subprocess``.

        Args:
            full_command: What ``kfp.local`` would run: a shell, a script that writes the component's source
                into a file and runs kfp's executor on it, the source, and the executor's arguments.
            env_vars: Environment variables of the step beside this process's.
            otherwise: What runs a command that cannot be a fork.

        Returns:
            The step's exit code; not 0 if it was killed.
        """
        if self._channel is None or not _is_component(full_command):
            return otherwise(full_command, env_vars)
        with tempfile.TemporaryDirectory(prefix="seatrial-step-") as folder:
            (Path(folder) / COMPONENT).write_text(full_command[3], encoding="utf-8")
            request = {
                "component": str(Path(folder) / COMPONENT),
                "arguments": full_command[4:],
                "environment": {**os.environ, **SETTINGS, **(env_vars or {})},
                "folder": str(Path.cwd()),
            }
            # The environment may hold credentials, so the request is a file in memory alone.
            with os.fdopen(os.memfd_create("request"), "wb", buffering=0) as file:
                file.write(json.dumps(request).encode())
                return self._run_fork(self._channel, file.fileno())

    def _run_fork(self, channel: socket.socket, request: int) -> int:
        output, output_end = os.pipe()
        status, status_end = os.pipe()
        with os.fdopen(output, "rb", buffering=0) as lines, os.fdopen(status) as facts:
            try:
                with suppress(ConnectionError):  # Then nobody writes the facts.
                    socket.send_fds(channel, [_ASKED], [request, output_end, status_end])
            finally:
                os.close(output_end)
                os.close(status_end)
            if not (process := facts.readline()):
                return _DIED
            self._running.add(int(process))
            _print_lines(lines)
            code = facts.read()
            self._running.discard(int(process))
        return int(code) if code else _DIED


def _print_lines(output: io.RawIOBase) -> None:
    """Print what a step says, line by line as it comes.

    Ctrl-C is heard meanwhile: a mere read would not hear it, because polars asks for interrupted reads to be resumed.
    """
    rest = b""
    while True:
        if not select.select([output], [], [], HEARD_SECONDS)[0]:
            continue
        said = output.read(_CHUNK_BYTES) or b""
        *lines, rest = (rest + said).split(b"\n")
        for line in lines:
            print(line.decode(errors="replace"))  # noqa: T201 -- kfp indents what is printed
        if not said:
            print(rest.decode(errors="replace"))  # noqa: T201 -- and sets the end of a step's log apart
            return


def _is_component(full_command: list[str]) -> bool:
    """Whether this is the command of a Python component, whose source is its fourth part."""
    return (
        full_command[:2] in _SHELLS
        and len(full_command) > 4  # noqa: PLR2004 -- a shell, its option, the script, the source, arguments
        and COMPONENT in full_command[2]
        and "pip install" not in full_command[2]
        and FIRST[0] in full_command[2]
    )


@dataclass
class _Parent:
    """The process that imports and forks.

    Attributes:
        channel: Where requests come from; its other end closes when no more come.
        running: Of each step its process and where its exit code goes, by the descriptor of the process.
    """

    channel: socket.socket
    running: dict[int, tuple[int, int]] = field(default_factory=dict)

    def serve(self) -> tuple[int, int] | None:
        """Import and fork until the other end is closed.

        Returns:
            In a fork, the descriptors of its request and its output; None in this process, at its end.
        """
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        later = list(LATER)
        while True:
            ready = [place for place, _ in poll.poll(0 if later else None)]
            if not ready:
                _import(later.pop(0))
            for place in ready:
                if place in self.running:
                    poll.unregister(place)
                    self._tell_end(place)
                    continue
                message, received, _, _ = socket.recv_fds(self.channel, len(_ASKED), _DESCRIPTORS)
                if not message:
                    self._end_all()
                    return None
                request, output, status = received
                process = os.fork()
                if process == 0:
                    return request, output
                os.close(request)
                os.close(output)
                os.write(status, f"{process}\n".encode())
                ended = os.pidfd_open(process)
                self.running[ended] = process, status
                poll.register(ended, select.POLLIN)

    def _tell_end(self, place: int) -> None:
        process, status = self.running.pop(place)
        _, how = os.waitpid(process, 0)
        with suppress(BrokenPipeError):
            os.write(status, str(os.waitstatus_to_exitcode(how)).encode())
        os.close(status)
        os.close(place)

    def _end_all(self) -> None:
        for process, _ in self.running.values():
            os.kill(process, signal.SIGTERM)


def _import(module: str) -> None:
    with suppress(ImportError):  # The step that wants it says so.
        importlib.import_module(module)
        if module in ASKED:
            place, function = ASKED[module]
            with suppress(Exception):  # So does this.
                getattr(importlib.import_module(place), function)()


def _become(request_file: int, output: int) -> None:
    """Turn this fork into the step of a request, and run it."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    with os.fdopen(request_file, "rb") as file:
        file.seek(0)
        request = json.load(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = [FIRST[0], "--component_module_path", request["component"], *request["arguments"]]
    from kfp.dsl.executor_main import executor_main

    executor_main()


def _run_to_end(request: int, output: int) -> None:
    """Run a step as this process's whole work; modules are not taken down one by one at its end."""
    code = 1
    try:
        _become(request, output)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:  # noqa: BLE001 -- as the interpreter does it: its trace, and 1
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()  # noqa: SLF001 -- what the interpreter calls at its end
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Be the parent of steps; the argument is the descriptor of the socket that asks for them."""
    import gc

    # Ctrl-C is for the steps; this process ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Here and in every fork, the end is at once: a handler such as coverage's takes a lock that the code which
    # it interrupts may hold, and then waits for ever.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for module in FIRST:
        _import(module)
    # What was imported stays: a collection that looked at it would copy its memory in every fork.
    gc.disable()
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        step = _Parent(channel).serve()
    if step is not None:
        gc.freeze()
        gc.enable()
        _run_to_end(*step)


if __name__ == "__main__":
    main()
