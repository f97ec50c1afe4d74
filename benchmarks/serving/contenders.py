"""The servers that are compared: how each is started, asked and read."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import orjson
import psutil

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PEERS = ROOT / "build" / "peers"
START_SECONDS = 120
_LOADING = (404, 503)
"""What servers answer before they have loaded the model."""
OURS = "ours"
ECHO = "echo"


@dataclass(frozen=True)
class Task:
    """What a contender serves from.

    Attributes:
        home: The workspace's folder.
        onnx: The model's file.
        columns: Names of the features.
        scratch: Folder of the contender's own.
    """

    home: Path
    onnx: Path
    columns: list[str]
    scratch: Path


@dataclass(frozen=True)
class Contender:
    """A server.

    Attributes:
        key: Its key in the results.
        name: How tables and pictures call it.
        environment: ``ours``, or the name of a peer's requirements.
        target: The path that is asked.
        command: Makes its command for a task, a port, and the folder of the environment's commands.
        ask: Makes a body from a matrix of features, and their names; None: it is asked as ours is.
        read: Takes the probabilities from an answer; None: they are the request's.
        settings: Variables of its environment.
        prepare: Makes its scratch folder ready.
        ready: File that it writes its port or address to, if it chooses that itself.
    """

    key: str
    name: str
    environment: str
    target: str
    command: Callable[[Task, int, Path], list[Any]]
    ask: Callable[[list[list[float | None]], list[str]], Any] | None = None
    read: Callable[[Any], list[float]] | None = None
    settings: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[Task, int, Path], None] | None = None
    ready: str | None = None


def python_of(environment: str) -> Path:
    """Return the Python of an environment, making a peer's from its hashed requirements where it is not there."""
    if environment == OURS:
        return Path(sys.executable)
    requirements = HERE / "requirements" / f"{environment}.txt"
    folder = PEERS / environment
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        print(f"making the environment of {environment} from {requirements.relative_to(ROOT)}", flush=True)
        uv = Path(sys.executable).with_name("uv")
        _call([uv, "venv", "--quiet", "--clear", "--python", "3.11", folder])
        _call([uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python, requirements])
        stamp.write_bytes(requirements.read_bytes())
    return python


def _call(command: list[Any], **environment: str) -> None:
    subprocess.run(  # noqa: S603 -- our own commands
        [str(part) for part in command], check=True, env={**os.environ, **environment}
    )


class Running:
    """A contender's processes, on one core, from start to end.

    Args:
        contender: Which one.
        task: What it serves from.
        core: The core that it is pinned to.
    """

    def __init__(self, contender: Contender, task: Task, core: int) -> None:
        self.contender = contender
        shutil.rmtree(task.scratch, ignore_errors=True)
        task.scratch.mkdir(parents=True)
        python = python_of(contender.environment)
        self.port = free_port()
        if contender.prepare is not None:
            contender.prepare(task, self.port, python)
        command = [str(part) for part in contender.command(task, self.port, python.parent)]
        environment = {**os.environ, **contender.settings, "FLIGHTS_ONNX": str(task.onnx)}
        environment |= {"PYTHONPATH": f"{HERE}:{HERE / 'peers'}", "OMP_NUM_THREADS": "1"}
        environment["PATH"] = f"{python.parent}:{os.environ['PATH']}"
        self._said = task.scratch / "said"
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})
        try:
            with self._said.open("wb") as said:
                self.process = subprocess.Popen(  # noqa: S603 -- as above
                    command,
                    cwd=task.scratch,
                    env=environment,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, cores)
        self._ready = task.scratch / contender.ready if contender.ready else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait(self, body: bytes) -> None:
        """Wait until it answers.

        Raises:
            SystemExit: if it does not, or has ended; the end of what it said is shown.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if self._ready is not None:
                    self.port = int(self._ready.read_text().rsplit(":", 1)[-1])
                try:
                    self.answer(body)
                except urllib.error.HTTPError as error:
                    if error.code in _LOADING:
                        time.sleep(0.1)
                        continue
                    sys.exit(f"{self.contender.name} refuses what it is asked: {error.read()[:2000]!r}")
                return
            time.sleep(0.1)
        sys.exit(f"{self.contender.name} does not answer:\n{self._said.read_text()[-3000:]}")

    def answer(self, body: bytes, target: str | None = None) -> Any:
        """Ask once and return the answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{target or self.contender.target}",
            body,
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- as above
            return orjson.loads(answer.read())

    def sleep(self) -> None:
        """Take no time from others until :meth:`wake`."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def memory_mib(self) -> float:
        """Return the memory of its processes; a page that n of them share counts 1/n in each."""
        return self._sum(lambda process: process.memory_full_info().pss) / 2**20

    def processor_seconds(self) -> float:
        """Return the processor time that its processes have taken, in the kernel too."""
        return self._sum(lambda process: sum(process.cpu_times()[:2]))

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        own, found = psutil.Process(self.process.pid), 0.0
        for process in (own, *own.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                found += figure(process)
        return found


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def _serve(log: str) -> Callable[[Task, int, Path], list[Any]]:
    return lambda task, _, commands: [commands / "python", HERE / "ours" / "serve.py", "port", task.home, log]


def _prepare_mlserver(task: Task, port: int, python: Path) -> None:  # noqa: ARG001 -- like the others
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    # No process beside the server's own: on one core that would be a hand-over more.
    settings = {**ports, "host": "127.0.0.1", "parallel_workers": 0, "debug": False}
    (task.scratch / "settings.json").write_bytes(orjson.dumps(settings))
    model = {"name": "flights", "implementation": "mlserver_model.Flights"}
    (task.scratch / "model-settings.json").write_bytes(orjson.dumps(model))


def _prepare_mlflow(task: Task, port: int, python: Path) -> None:  # noqa: ARG001 -- like the others
    _call([python, HERE / "peers" / "mlflow_save.py", task.scratch / "model"], FLIGHTS_ONNX=str(task.onnx))


def _seldon(threads: int) -> Callable[[Task, int, Path], list[Any]]:
    return lambda _, port, commands: [
        *(commands / "seldon-core-microservice", "seldon_model.Flights", "--service-type", "MODEL"),
        *(
            "--http-port",
            port,
            "--grpc-port",
            free_port(),
            "--metrics-port",
            free_port(),
            "--threads",
            threads,
        ),
    ]


_SELDON = {
    "environment": "seldon",
    "target": "/api/v1.0/predictions",
    "ask": lambda matrix, _: {"data": {"ndarray": matrix}},
    "read": lambda answer: answer["data"]["ndarray"],
    "settings": {"GRPC_WORKERS": "0", "SELDON_LOG_LEVEL": "WARNING"},
}
_INFER = "/v2/models/flights/infer"


def _probability(answer: Any) -> list[float]:
    return next(output["data"] for output in answer["outputs"] if output["name"] == "probability")


CONTENDERS: tuple[Contender, ...] = (
    Contender(
        ECHO,
        "echo (the HTTP core alone)",
        OURS,
        "/",
        lambda _, __, commands: [
            commands / "python",
            HERE / "ours" / "echo.py",
            "port",
        ],
        ready="port",
    ),
    Contender(
        "ours",
        "Seatrial, log on",
        OURS,
        _INFER,
        lambda task, port, commands: [
            commands / "seatrial",
            "serve",
            "flights",
            "--workspace",
            task.home,
            "--port",
            port,
            "--log-folder",
            task.scratch / "log",
        ],
        read=_probability,
    ),
    Contender(
        "ours_interval",
        "Seatrial, log synced at intervals",
        OURS,
        _INFER,
        _serve("interval"),
        read=_probability,
        ready="port",
    ),
    Contender("ours_off", "Seatrial, log off", OURS, _INFER, _serve("off"), read=_probability, ready="port"),
    Contender("seldon", "seldon-core-microservice", command=_seldon(1), **_SELDON),  # type: ignore[arg-type]
    Contender("seldon_threads", "seldon-core-microservice, 8 threads", command=_seldon(8), **_SELDON),  # type: ignore[arg-type]
    Contender(
        "mlserver",
        "MLServer",
        "mlserver",
        _INFER,
        lambda task, _, commands: [commands / "mlserver", "start", task.scratch],
        lambda matrix, _: {
            "inputs": [
                {
                    "name": "features",
                    "shape": [len(matrix), len(matrix[0])],
                    "datatype": "FP32",
                    "data": [value for row in matrix for value in row],
                }
            ]
        },
        _probability,
        prepare=_prepare_mlserver,
    ),
    Contender(
        "mlflow",
        "MLflow's server",
        "mlflow",
        "/invocations",
        lambda task, port, commands: [
            *(commands / "mlflow", "models", "serve", "--model-uri", task.scratch / "model"),
            *("--env-manager", "local", "--host", "127.0.0.1", "--port", port, "--workers", 1),
        ],
        lambda matrix, columns: {"dataframe_split": {"columns": columns, "data": matrix}},
        lambda answer: answer["predictions"],
        {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        prepare=_prepare_mlflow,
    ),
    Contender(
        "bentoml",
        "BentoML",
        "bentoml",
        "/predict",
        lambda _, port, commands: [
            *(commands / "bentoml", "serve", "bentoml_service:Flights", "--host", "127.0.0.1"),
            *("--port", port, "--working-dir", HERE / "peers"),
        ],
        lambda matrix, _: {"features": matrix},
        lambda answer: answer,
        {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(PEERS / "bentoml-home")},
    ),
)
