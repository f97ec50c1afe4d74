"""The cluster that these tests work on: a kind cluster of their own, never one that only happens to be current.

Without it every test here skips and says how to get it. What a test makes lies in namespaces that it
made itself, so a cluster that failed can be looked at afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from seatrial.cluster.context import connect
from seatrial.cluster.kubeflow import Kubeflow
from seatrial.cluster.workflow import Workflow
from seatrial.cluster_runs import compile_for_cluster
from support.kubeflow import Pipelines

ROOT = Path(__file__).parents[2]
PLATFORM = "seatrial"
"""The namespace of the platform, which all tests share: it takes minutes to come up."""
CONTEXT = os.environ.get("SEATRIAL_TEST_CONTEXT", "kind-seatrial")
"""The kubeconfig context of the cluster; it must be one of kind's."""
VALUES = os.environ.get("SEATRIAL_TEST_VALUES", "")
"""A values file that the platform is installed with, such as one that asks for another version; none where empty."""
ENVIRONMENT = "test"
"""The environment that the tests train in."""
AS_OF = "2013-04-01T00:00:00+00:00"
"""When every run of it takes place: a workspace that has later data than a run may see stops the run."""
RUN_SECONDS = 1800

Command = Callable[..., str]


def _missing() -> str:
    """Why there is no cluster to test on; empty where there is one."""
    if not CONTEXT.startswith("kind-"):
        return f"the context {CONTEXT!r} is no kind cluster's"
    if absent := [name for name in ("kubectl", "helm") if shutil.which(name) is None]:
        return f"{' and '.join(absent)} not on PATH"
    ready = subprocess.run(
        ["kubectl", "--context", CONTEXT, "get", "--raw", "/readyz"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if ready.returncode == 0 else f"no cluster answers at the context {CONTEXT!r}"


@pytest.fixture(scope="session")
def context() -> str:
    """The kubeconfig context of the kind cluster; skips where there is none."""
    if why := _missing():
        pytest.skip(f"{why}; make one: kind create cluster --config kind-config.yaml")
    return CONTEXT


@pytest.fixture(scope="session")
def kubectl(context: str) -> Command:
    """Run kubectl on the cluster and return what it printed; what fails raises with its words."""

    def run(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        done = subprocess.run(
            ["kubectl", "--context", context, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def helm(context: str) -> Command:
    """Run helm on the cluster and return what it printed; what fails raises with its words."""

    def run(*arguments: str, timeout: float = 900) -> str:
        done = subprocess.run(
            ["helm", "--kube-context", context, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr.strip()}"
        return done.stdout

    return run


@pytest.fixture(scope="session")
def platform(kubectl: Command, helm: Command) -> str:
    """The namespace of the platform, installed as a user would by helm alone, and ready.

    With `SEATRIAL_TEST_VALUES`, it has the values of that file.
    """
    manifest = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": PLATFORM,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
    )
    kubectl("apply", "-f", "-", stdin=manifest)
    chart = str(ROOT / "charts" / "platform")
    helm(
        "upgrade",
        "--install",
        "seatrial",
        chart,
        "-n",
        PLATFORM,
        "--wait",
        "--wait-for-jobs",
        "--timeout",
        "10m",
        *(("--values", VALUES) if VALUES else ()),
    )
    return PLATFORM


@pytest.fixture(scope="session")
def pipelines(context: str, platform: str, kubectl: Command) -> Pipelines:
    """Kubeflow Pipelines of the platform."""
    return Pipelines(context, platform, kubectl)


@dataclass(frozen=True)
class TrainingRun:
    """A run of the training pipeline on the cluster that has ended.

    Attributes:
        id: Kubeflow's name of it.
        workflow: What the cluster says of its steps.
    """

    id: str
    workflow: Workflow


@pytest.fixture(scope="session")
def training_run(context: str, platform: str, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """The flights model, trained on the cluster on the first three months of 2013, once for all tests."""
    package = tmp_path_factory.mktemp("training") / "pipeline.yaml"
    compile_for_cluster("training", package, ENVIRONMENT)
    with Kubeflow(connect(context, platform)) as kubeflow:
        version = kubeflow.version(package)
        arguments = {"model": "flights", "as_of": AS_OF}
        run = kubeflow.start(version, ENVIRONMENT, "Training for the tests", arguments)
        deadline = time.monotonic() + RUN_SECONDS
        while (workflow := kubeflow.workflow(run)) is None or not workflow.ended:
            assert time.monotonic() < deadline, f"the run goes on after {RUN_SECONDS} s: {workflow}"
            time.sleep(3)
    return TrainingRun(run, workflow)
