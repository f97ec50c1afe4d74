"""Thousands of runs that are over: the platform goes on, and keeps no more of them than it says."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from support.cluster_world import wait_until
from support.kubeflow import Command, Pipelines, chain
from support.parts_away import Part

pytestmark = pytest.mark.timeout(3600)
FINISHED = 20_000
KEPT = 500
"""By default: 200 that succeeded, 200 that failed, 100 with errors."""
START_SECONDS = 60
GONE_SECONDS = 1_800
OVER = "2026-01-01T00:00:00Z"
CONTROLLER = "app.kubernetes.io/name=workflow-controller"
ARGO = ("argoproj.io", "v1alpha1")


@pytest.fixture
def workflows(context: str) -> client.CustomObjectsApi:
    """The Kubernetes API, for workflows."""
    return client.CustomObjectsApi(config.new_client_from_config(context=context))


def _are_few(workflows: client.CustomObjectsApi, namespace: str, selector: str) -> bool:
    """Whether no more workflows than shall be kept are found by a selector."""
    found = workflows.list_namespaced_custom_object(
        *ARGO, namespace, "workflows", label_selector=selector, limit=KEPT
    )
    return not found["metadata"].get("continue")


def _seconds_to_work_again(pipelines: Pipelines, kubectl: Command, package: Path) -> float:
    """Kill the controller and start a run; return how long it takes until the run's first pod is made."""
    kubectl("-n", pipelines.namespace, "delete", "pod", "-l", CONTROLLER, "--grace-period=0", "--force")
    begun = time.monotonic()
    run = pipelines.submit(package)
    wait_until(lambda: pipelines.pods(run), f"a pod of {run}", 600)
    return time.monotonic() - begun


def test_finished_runs_do_not_pile_up(
    pipelines: Pipelines, kubectl: Command, workflows: client.CustomObjectsApi, tmp_path: Path
) -> None:
    """Twenty thousand are there: a new controller is at work soon, and all but the newest go (K9)."""
    name = f"over-{secrets.token_hex(3)}"
    selector = f"trial={name}"

    def make(number: int) -> None:
        labels = {
            "trial": name,
            "workflows.argoproj.io/completed": "true",
            "workflows.argoproj.io/phase": "Succeeded",
        }
        step: dict[str, Any] = {"name": "main", "container": {"image": "none"}}
        body = {
            "apiVersion": "/".join(ARGO),
            "kind": "Workflow",
            "metadata": {"name": f"{name}-{number}", "labels": labels},
            "spec": {"entrypoint": "main", "templates": [step]},
            "status": {"phase": "Succeeded", "startedAt": OVER, "finishedAt": OVER},
        }
        workflows.create_namespaced_custom_object(*ARGO, pipelines.namespace, "workflows", body)

    with Part("deployment/workflow-controller").away(kubectl, pipelines.namespace):
        begun = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(make, range(FINISHED)))
        print(f"{FINISHED:,} finished workflows made in {time.monotonic() - begun:.0f} s")
    took = _seconds_to_work_again(pipelines, kubectl, chain(tmp_path / "chain.yaml", steps=1, seconds=0))
    begun = time.monotonic()
    wait_until(
        lambda: _are_few(workflows, pipelines.namespace, selector), "old workflows to go", GONE_SECONDS
    )
    print(f"the first pod after {took:.0f} s; fewer than {KEPT} after {time.monotonic() - begun:.0f} s more")
    assert took < START_SECONDS
