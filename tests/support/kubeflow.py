"""Kubeflow Pipelines on the cluster, as tests use it: a small pipeline, its runs, and what its steps said.

The pipeline is a chain of steps in one small image, none of which needs anything of ours, so that it
tells what the platform does and what it costs.
"""

# Annotations are read by kfp as they are, so they are not postponed here.

import json
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from kfp import Client, compiler, dsl
from kfp_server_api import ApiClient, ApiException, Configuration, RunServiceApi

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "images" / "pipeline" / "Dockerfile").read_text()
IMAGE = re.findall(r"^ARG BASE_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)[0]
"""The image that ours are built on: small, and there wherever ours were built."""
ENDED = {"SUCCEEDED", "FAILED", "CANCELED"}
RUN_LABEL = "pipeline/runid"
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
STEP = """
import json, pathlib, sys, time
begun, text, seconds, longer = time.time(), *sys.argv[1:]
print("step began", flush=True)
time.sleep(float(seconds))
pathlib.Path(longer).parent.mkdir(parents=True, exist_ok=True)
pathlib.Path(longer).write_text(text + "x")
print("step", json.dumps({"text": text, "begun": begun, "ended": time.time()}), flush=True)
"""
FAIL_BEFORE = """
import json, sys, time
text, since, now = sys.argv[1], float(sys.argv[2]), time.time()
print("step", json.dumps({"text": text, "begun": now, "ended": now}), flush=True)
sys.exit("not yet" if now < since else 0)
"""
KEEP = """
import pathlib, sys, time
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(f"made at {time.time()}")
"""
SHOW = """
import json, pathlib, sys, time
text, now = pathlib.Path(sys.argv[1]).read_text(), time.time()
print("step", json.dumps({"text": text, "begun": now, "ended": now}), flush=True)
"""
ARCHIVE = """
import io, pathlib, sys, tarfile
path = pathlib.Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
with tarfile.open(path, "w:gz") as archive:
    for name in ("../outside", "/tmp/outside", "inside"):
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    for name, kind, target in (("up", tarfile.SYMTYPE, "/"), ("up/tmp/outside", tarfile.LNKTYPE, "/etc/passwd")):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        archive.addfile(member)
    zeros = tarfile.TarInfo("zeros")
    zeros.size = 1 << 28
    archive.addfile(zeros, open("/dev/zero", "rb"))
"""
FILES = """
import json, pathlib, sys, time
path, now = pathlib.Path(sys.argv[1]), time.time()
outside = [str(p) for p in (path.parent.parent / "outside", pathlib.Path("/tmp/outside")) if p.exists()]
beside = sorted(str(p.relative_to(path.parent)) for p in path.parent.rglob("*"))
start = path.read_bytes()[:2].hex() if path.is_file() else ""
text = json.dumps({"beside": beside, "start": start, "outside": outside})
print("step", json.dumps({"text": text, "begun": now, "ended": now}), flush=True)
"""
MARK = re.compile(r"^step (\{.*\})$", re.MULTILINE)

Command = Callable[..., str]


@dataclass(frozen=True)
class Mark:
    """What a step said of its work: its input, and when it began and ended, in seconds."""

    text: str
    begun: float
    ended: float


@dsl.container_component
def lengthen(text: str, seconds: float, longer: dsl.OutputPath(str)):  # type: ignore[no-untyped-def, valid-type] # noqa: ANN201
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", STEP], args=[text, seconds, longer])


@dsl.container_component
def fail_before(text: str, since: float):  # type: ignore[no-untyped-def] # noqa: ANN201
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", FAIL_BEFORE], args=[text, since])


@dsl.container_component
def keep(kept: dsl.Output[dsl.Artifact]):  # type: ignore[no-untyped-def] # noqa: ANN201
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", KEEP], args=[kept.path])


@dsl.container_component
def show(kept: dsl.Input[dsl.Artifact]):  # type: ignore[no-untyped-def] # noqa: ANN201
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", SHOW], args=[kept.path])


@dsl.container_component
def archive(kept: dsl.Output[dsl.Artifact]):  # type: ignore[no-untyped-def] # noqa: ANN201
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", ARCHIVE], args=[kept.path])


@dsl.container_component
def look(kept: dsl.Input[dsl.Artifact]):  # type: ignore[no-untyped-def] # noqa: ANN201
    return dsl.ContainerSpec(image=IMAGE, command=["python3", "-c", FILES], args=[kept.path])


def hostile_archive(path: Path) -> Path:
    """Compile a pipeline whose first step hands a hostile archive to its second one, which says what files it finds.

    Args:
        path: The file to write.
    """
    return _handed(path, "hostile-archive", archive, look)


def kept_and_shown(path: Path, name: str) -> Path:
    """Compile a pipeline whose first step keeps the time in an artifact, and whose second one says what it was given.

    Args:
        path: The file to write.
        name: Name of the pipeline.
    """
    return _handed(path, name, keep, show)


def _handed(path: Path, name: str, first: Any, second: Any) -> Path:
    """Compile a pipeline whose first step hands an artifact to its second; the cache may answer for the first alone."""

    @dsl.pipeline(name=name)
    def pipeline() -> None:
        kept = first().set_caching_options(enable_caching=True)
        second(kept=kept.outputs["kept"]).set_caching_options(enable_caching=False)

    compiler.Compiler().compile(pipeline, str(path))
    return path


def chain(path: Path, *, steps: int, seconds: float, retries: int = 0, image: str = IMAGE) -> Path:
    """Compile a pipeline of steps that each take the text of the one before and add a letter.

    Args:
        path: The file to write.
        steps: How many.
        seconds: How long each works.
        retries: How often each of them asks to be tried again.
        image: What they run in.
    """

    @dsl.pipeline(name="chain")
    def pipeline() -> None:
        text: Any = "x"
        for _ in range(steps):
            task = lengthen(text=text, seconds=float(seconds))
            task.set_caching_options(enable_caching=False)
            task.set_container_image(image)
            if retries:
                task.set_retry(
                    retries, backoff_duration="5s", backoff_factor=2, backoff_max_duration="86400s"
                )
            text = task.outputs["longer"]

    compiler.Compiler().compile(pipeline, str(path))
    return path


def failing_before(path: Path, since: float) -> Path:
    """Compile a pipeline of two steps, the second of which fails before a time, in seconds since 1970.

    Args:
        path: The file to write.
        since: The time.
    """

    @dsl.pipeline(name="failing-before")
    def pipeline() -> None:
        first = lengthen(text="x", seconds=0.0).set_caching_options(enable_caching=False)
        fail_before(text=first.outputs["longer"], since=since).set_caching_options(enable_caching=False)

    compiler.Compiler().compile(pipeline, str(path))
    return path


@dataclass(frozen=True)
class Pipelines:
    """Kubeflow Pipelines in one namespace. Each call opens a way in of its own, so its pods may die between two."""

    context: str
    namespace: str
    kubectl: Command

    def submit(self, package: Path) -> str:
        """Start a run of a compiled pipeline, which says what of it may come from the cache, and return its id."""
        with self.client() as client:
            run = client.create_run_from_pipeline_package(str(package))
        return str(run.run_id)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a client of the API."""
        with Forward(connect(self.context, self.namespace), *SERVICES["pipelines-api"]) as forward:
            with warnings.catch_warnings():
                # It says of itself, each time, which servers it works with.
                warnings.filterwarnings("ignore", "This client only works with", FutureWarning)
                client = Client(host=forward.address)
            yield client

    def state(self, run: str) -> str:
        """The state of a run, as the API tells it."""
        with self.client() as client:
            return str(client.get_run(run).state)

    def stop(self, run: str) -> str:
        """End a run that still goes on, and return how it ended."""
        # It may have ended by itself just now; if it has not, waiting for its end tells so.
        with self.client() as client, suppress(ApiException):
            client.terminate_run(run)
        return self.finished(run)

    def retry(self, run: str) -> None:
        """Let a run that failed go on, as the page's button does."""
        with Forward(connect(self.context, self.namespace), *SERVICES["pipelines-api"]) as forward:
            api = RunServiceApi(ApiClient(Configuration(host=forward.address)))
            api.run_service_retry_run(run)

    def finished(self, run: str, *, timeout: float = 300) -> str:
        """Wait until the API says that a run has ended, and return how."""
        end = time.monotonic() + timeout
        while (state := self._state_if_reachable(run)) not in ENDED:
            assert time.monotonic() < end, f"run {run} is {state} after {timeout:g} s; {self.pods(run)}"
            time.sleep(1)
        return state

    def _state_if_reachable(self, run: str) -> str:
        try:
            return self.state(run)
        except Exception as error:  # noqa: BLE001 -- whatever the client makes of an API that is being replaced
            return f"unknown ({type(error).__name__})"

    def told(self, run: str) -> str:
        """What API and cluster say of a run, for the message of a test that fails."""
        pods = [(pod["metadata"]["name"], pod["status"]["phase"]) for pod in self.pods(run)]
        parts = self.kubectl("-n", self.namespace, "get", "pods", "-l", "!" + RUN_LABEL)
        with self.client() as client:
            told = client.get_run(run)
        return f"{told.state} {told.error} {told.state_history}\n{pods}\n{parts}"

    def pods(self, run: str) -> list[dict[str, Any]]:
        """The pods of a run, oldest first."""
        found = self.kubectl("-n", self.namespace, "get", "pods", "-l", f"{RUN_LABEL}={run}", "-o", "json")
        pods: list[dict[str, Any]] = json.loads(found)["items"]
        return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))

    def marks(self, run: str) -> list[Mark]:
        """What the steps of a run have said so far, in the order in which they began."""
        marks = []
        for pod in self.pods(run):
            if "-impl-" not in pod["metadata"]["name"] or pod["status"]["phase"] == "Pending":
                continue
            said = self.kubectl("-n", self.namespace, "logs", pod["metadata"]["name"], "-c", "main")
            marks += [Mark(**json.loads(text)) for text in MARK.findall(said)]
        return sorted(marks, key=lambda mark: mark.begun)

    def between_steps(self, run: str) -> list[float]:
        """Seconds from the end of each step's work to the start of the next one's."""
        return [after.begun - before.ended for before, after in pairwise(self.marks(run))]
