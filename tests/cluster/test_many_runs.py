"""Thousands of runs that are over, and a thousand that wait: the platform goes on, and does them all."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kfp import Client
from kfp_server_api import ApiException
from kubernetes import client, config
from ruamel.yaml import YAML

from support.cluster_world import wait_until
from support.kubeflow import ROOT, Command, Pipelines, chain
from support.parts_away import Part

pytestmark = [pytest.mark.long, pytest.mark.timeout(10_800)]
FINISHED = 20_000
KEPT = 500
"""By default: 200 that succeeded, 200 that failed, 100 with errors."""
WAITING = 1_000
DONE_SECONDS = 7_200
"""What they may take: two cores do 15 of them in a minute."""
START_SECONDS, LOOK_SECONDS = 60, 2
GONE_SECONDS = 1_800
OVER = "2026-01-01T00:00:00Z"
CONTROLLER = "app.kubernetes.io/name=workflow-controller"
ARGO = ("argoproj.io", "v1alpha1")
RUNNING = "workflows.argoproj.io/phase=Running"
NOT_OVER = "workflows.argoproj.io/completed!=true"


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


def _at_once() -> int:
    """How many runs the chart lets work at a time."""
    values = YAML(typ="safe").load(ROOT / "charts/platform/charts/argo-workflows/values.yaml")
    return int(values["controller"]["parallelism"])


def _restarts(kubectl: Command, namespace: str) -> dict[str, int]:
    """How often each container of the platform has been started again, but for one that is when the API was slow."""
    pods = json.loads(kubectl("-n", namespace, "get", "pods", "-l", "!pipeline/runid", "-o", "json"))["items"]
    return {
        f"{pod['metadata']['name']}/{status['name']}": status["restartCount"]
        for pod in pods
        for status in pod["status"].get("containerStatuses", [])
        if status["name"] != "persistence-agent"
    }


def _states(api: Client, experiment: str) -> Counter[str]:
    """How many runs of an experiment are in each state."""
    states: Counter[str] = Counter()
    token = ""
    while True:
        page = api.list_runs(page_token=token, page_size=200, experiment_id=experiment)
        states.update(str(run.state) for run in page.runs or [])
        token = page.next_page_token
        if not token:
            return states


def test_a_thousand_that_wait_are_all_done(
    pipelines: Pipelines, kubectl: Command, workflows: client.CustomObjectsApi, tmp_path: Path
) -> None:
    """Started at once, no more work at a time than the chart says, no part is started again, and all succeed (K9)."""
    package = str(chain(tmp_path / "chain.yaml", steps=1, seconds=0))
    before, most = _restarts(kubectl, pipelines.namespace), 0

    def listed(selector: str, *, limit: int) -> int:
        found = workflows.list_namespaced_custom_object(
            *ARGO, pipelines.namespace, "workflows", label_selector=selector, limit=limit
        )
        return len(found["items"])

    def none_left() -> bool:
        nonlocal most
        time.sleep(LOOK_SECONDS)
        most = max(most, listed(RUNNING, limit=KEPT))
        return not listed(NOT_OVER, limit=1)

    with pipelines.client() as api:
        experiment = api.create_experiment(f"thousand-{secrets.token_hex(3)}").experiment_id

        def started(number: int) -> bool:
            # A machine that is as busy as this answers some of them with an error, and whoever asked asks again.
            with suppress(ApiException):
                api.run_pipeline(experiment, f"waits-{number}", pipeline_package_path=package)
                return True
            return False

        def start(number: int) -> None:
            wait_until(lambda: started(number), f"run {number} to be taken", 300)

        begun = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(start, range(WAITING)))
        print(f"{WAITING:,} runs started in {time.monotonic() - begun:.0f} s")
        wait_until(none_left, "all runs to end", DONE_SECONDS)
    print(f"all over {time.monotonic() - begun:.0f} s after the first; at most {most} at a time")

    def told() -> Counter[str]:
        with pipelines.client() as api:
            return _states(api, experiment)

    wait_until(lambda: set(told()) == {"SUCCEEDED"}, "the API to tell of all", 300)
    assert told()["SUCCEEDED"] >= WAITING
    assert most <= _at_once()
    assert _restarts(kubectl, pipelines.namespace) == before
