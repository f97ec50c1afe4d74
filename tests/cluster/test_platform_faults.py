"""Faults of the platform while runs go on: parts that are away or lose their data, and what is told of it later."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import secrets
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kfp_server_api import ApiException
from minio import Minio
from tests.cluster.conftest import AS_OF, ENVIRONMENT

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.cluster.kubeflow import Kubeflow
from seatrial.cluster_runs import compile_for_cluster
from support.cluster_world import wait_until
from support.kubeflow import Command, Pipelines, chain, hostile_archive, kept_and_shown
from support.parts_away import Part

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]
BUCKET = "mlpipeline"
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "kubernetes.md"
AWAY_SECONDS = 60
CATCH_UP_SECONDS = 300
DONE_BEFORE = 4
"""Steps of the training that are over before the store goes away: these are short, and take data in and split them."""
PARTS = {
    "API server": Part("deployment/ml-pipeline"),
    "driver service": Part("deployment/ml-pipeline-driver"),
    "persistence agent": Part("deployment/ml-pipeline-persistenceagent"),
    "database": Part("statefulset/mariadb"),
    "lineage": Part(service="metadata-grpc-service"),
}


def _steps(pipelines: Pipelines, run: str, phase: str) -> list[str]:
    """The pods of steps of the run that are in a phase just now."""
    return [
        pod["metadata"]["name"]
        for pod in pipelines.pods(run)
        if "-impl-" in pod["metadata"]["name"] and pod["status"]["phase"] == phase
    ]


def _workflow_ended(pipelines: Pipelines, run: str) -> float:
    """When the run's workflow ended, in seconds since 1970; 0 while it goes on."""
    selector = f"pipeline/runid={run}"
    found = pipelines.kubectl("-n", pipelines.namespace, "get", "workflows", "-l", selector, "-o", "json")
    (workflow,) = json.loads(found)["items"]
    ended = workflow.get("status", {}).get("finishedAt")
    return datetime.fromisoformat(ended).timestamp() if ended else 0.0


@pytest.mark.parametrize("name", PARTS)
def test_run_finishes_though_a_part_is_away(
    pipelines: Pipelines, kubectl: Command, tmp_path: Path, name: str
) -> None:
    """Away from the middle of a step on, and back: each step ran once, and the run is told to have succeeded (K4)."""
    run = pipelines.submit(chain(tmp_path / "chain.yaml", steps=3, seconds=5))
    wait_until(lambda: _steps(pipelines, run, "Running"), f"a step of {run}", 300)
    with PARTS[name].away(kubectl, pipelines.namespace):
        time.sleep(AWAY_SECONDS)
    back = time.time()

    assert pipelines.finished(run, timeout=CATCH_UP_SECONDS) == "SUCCEEDED", pipelines.told(run)
    told, ended = time.time(), _workflow_ended(pipelines, run)
    print(
        f"{name} away for {AWAY_SECONDS} s: the run ended {ended - back:+.0f} s from its return, "
        f"and was told to have {told - max(back, ended):.0f} s later"
    )
    assert [mark.text for mark in pipelines.marks(run)] == ["x", "xx", "xxx"]


def test_training_goes_on_when_the_store_was_away(
    context: str, pipelines: Pipelines, kubectl: Command, tmp_path: Path
) -> None:
    """Away from a step of ours on: what wants it fails and is tried again, longer than it was away (K1)."""
    package = tmp_path / "training.yaml"
    compile_for_cluster("training", package, ENVIRONMENT)
    with Kubeflow(connect(context, pipelines.namespace)) as kubeflow:
        arguments = {"model": "flights", "as_of": AS_OF}
        run = kubeflow.start(kubeflow.version(package), ENVIRONMENT, "The store goes away", arguments)
        # Not within a long step, which would wait for the store by itself.
        wait_until(lambda: len(_steps(pipelines, run, "Succeeded")) >= DONE_BEFORE, f"steps of {run}", 600)
        with Part("statefulset/minio").away(kubectl, pipelines.namespace):
            time.sleep(AWAY_SECONDS)
        assert pipelines.finished(run, timeout=900) == "SUCCEEDED", pipelines.told(run)
        workflow = kubeflow.workflow(run)
    assert workflow is not None
    again = {step.name: len(step.attempts) for step in workflow.steps if len(step.attempts) > 1}
    print(f"tried again: {again}")
    assert again


def test_step_is_tried_again_when_what_watches_it_dies(
    pipelines: Pipelines, kubectl: Command, tmp_path: Path
) -> None:
    """Argo's container beside a step crashes: the step is tried again, and the run does not hang (K3)."""
    run = pipelines.submit(chain(tmp_path / "chain.yaml", steps=1, seconds=20))
    (working,) = wait_until(lambda: _steps(pipelines, run, "Running"), f"a step of {run}", 300)
    kubectl("-n", pipelines.namespace, "wait", "--for=condition=Ready", f"pod/{working}", "--timeout=60s")

    # No process of a pod can kill the first one of a container, but what makes a Go program print where it is ends it.
    kubectl("-n", pipelines.namespace, "exec", working, "-c", "wait", "--", "argoexec", "kill", "3", "1")

    assert pipelines.finished(run, timeout=600) == "SUCCEEDED", pipelines.told(run)
    assert {mark.text for mark in pipelines.marks(run)} == {"x"}


def _shown(pipelines: Pipelines, package: Path) -> str:
    """What the second step of a run of :func:`kept_and_shown` was given."""
    run = pipelines.submit(package)
    assert pipelines.finished(run) == "SUCCEEDED", pipelines.told(run)
    (mark,) = pipelines.marks(run)
    return mark.text


@contextmanager
def _stored(pipelines: Pipelines, name: str) -> Iterator[tuple[Minio, list[str]]]:
    """The object store, and the keys of the artifacts of a pipeline's runs."""
    get = ("get", "secret", "minio-root", "-n", pipelines.namespace, "-o", "json")
    secret = json.loads(pipelines.kubectl(*get))["data"]
    user, password = (base64.b64decode(secret[key]).decode() for key in ("user", "password"))
    with Forward(connect(pipelines.context, pipelines.namespace), *SERVICES["minio"]) as forward:
        store = Minio(forward.host, user, password, secure=False)
        found = store.list_objects(BUCKET, prefix=f"v2/artifacts/{name}/", recursive=True)
        keys = [str(one.object_name) for one in found if str(one.object_name).endswith("/kept")]
        assert keys
        yield store, keys


def test_step_is_not_answered_by_what_was_changed(pipelines: Pipelines, tmp_path: Path) -> None:
    """What nobody touched answers the next run; altered, then gone, the very same step makes its own again (K6)."""
    name = f"kept-{secrets.token_hex(4)}"
    package = kept_and_shown(tmp_path / "kept.yaml", name)
    first = _shown(pipelines, package)
    assert first.startswith("made at ")
    assert _shown(pipelines, package) == first, "the cache did not answer"

    with _stored(pipelines, name) as (store, keys):
        for key in keys:
            store.put_object(BUCKET, key, io.BytesIO(b"made by a stranger"), 18)
    second = _shown(pipelines, package)
    assert second.startswith("made at ")
    assert second != first
    assert _shown(pipelines, package) == second, "what was made anew did not answer"

    with _stored(pipelines, name) as (store, keys):
        for key in keys:
            store.remove_object(BUCKET, key)
    third = _shown(pipelines, package)
    assert third.startswith("made at ")
    assert third not in {first, second}


def test_no_archive_is_unpacked(pipelines: Pipelines, tmp_path: Path) -> None:
    """A step that is handed a hostile archive finds it as one file, and nothing beside or above it (K11)."""
    run = pipelines.submit(hostile_archive(tmp_path / "archive.yaml"))

    assert pipelines.finished(run) == "SUCCEEDED", pipelines.told(run)
    (mark,) = pipelines.marks(run)
    assert json.loads(mark.text) == {"beside": ["kept"], "start": "1f8b", "outside": []}


def _documented(namespace: str) -> list[str]:
    """The commands by which the how-to keeps a copy of the database and takes it back, for a namespace."""
    _, _, section = HOW_TO.read_text().partition("\n## Keep a copy of the database\n")
    section = section.partition("\n## ")[0]
    commands = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [command.replace("--namespace seatrial ", f"--namespace {namespace} ") for command in commands]


@pytest.fixture
def shell(kubectl: Command, tmp_path: Path) -> Callable[[str], str]:
    """Run commands as a person does whose kubeconfig names the cluster of the tests."""
    config = tmp_path / "kubeconfig"
    config.write_text(kubectl("config", "view", "--minify", "--flatten"))

    def run(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=tmp_path,
            env={**os.environ, "KUBECONFIG": str(config)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


@contextmanager
def _mlflow(pipelines: Pipelines) -> Iterator[Callable[..., dict[str, Any]]]:
    """Ask MLflow about experiments: the call's name, and what it takes."""
    with Forward(connect(pipelines.context, pipelines.namespace), *SERVICES["mlflow"]) as forward:

        def ask(call: str, **values: Any) -> dict[str, Any]:
            request = urllib.request.Request(  # noqa: S310 -- ours
                f"{forward.address}/api/2.0/mlflow/experiments/{call}",
                data=json.dumps(values).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- ours
                found: dict[str, Any] = json.load(answer)
                return found

        yield ask


def test_database_comes_back_from_its_copy(
    pipelines: Pipelines, shell: Callable[[str], str], tmp_path: Path
) -> None:
    """The volume is lost, and the how-to's own commands bring back all that was told before; runs go on (K5)."""
    package = chain(tmp_path / "chain.yaml", steps=1, seconds=0)
    before = pipelines.submit(package)
    assert pipelines.finished(before) == "SUCCEEDED"
    name = f"kept-{secrets.token_hex(4)}"
    with _mlflow(pipelines) as ask:
        made = ask("create", name=name)["experiment_id"]
    keep, restore = _documented(pipelines.namespace)
    lose, take_back = restore.split("\n\n")

    shell(keep)
    shell(lose)
    with pytest.raises(ApiException):
        pipelines.state(before)
    shell(take_back)

    assert pipelines.state(before) == "SUCCEEDED"
    with _mlflow(pipelines) as ask:
        found = ask("search", max_results=1000)["experiments"]
    assert (made, name) in {(one["experiment_id"], one["name"]) for one in found}
    assert pipelines.finished(pipelines.submit(package)) == "SUCCEEDED"
