"""Runs of Kubeflow Pipelines on the cluster: what they cost, and what they survive."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seatrial.cluster.context import connect
from seatrial.cluster.kubeflow import Kubeflow, Run
from seatrial.images import PIPELINE_IMAGE
from support.kubeflow import IMAGE, Command, Pipelines, chain, failing_before

pytestmark = pytest.mark.timeout(1500)
STEPS = 4
RETRY_SECONDS = 60.0
"""After the start of a run: until then a step of it fails. It must have done so by then."""
BAD_ANNOTATION = "workflows.argoproj.io/pod-gc-strategy"


def _pod(annotation: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "annotated", "annotations": {BAD_ANNOTATION: annotation}},
            "spec": {
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "main",
                        "image": "unused:0",
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }
                ],
            },
        }
    )


def test_annotation_that_crashes_the_controller_is_refused(platform: str, kubectl: Command) -> None:
    """A pod whose clean-up strategy has no slash is refused with a reason; one with a slash is taken (K10)."""
    dry = ("-n", platform, "create", "--dry-run=server", "-f", "-")

    with pytest.raises(AssertionError, match="needs the form STRATEGY/DELAY"):
        kubectl(*dry, stdin=_pod("NoSlash"))
    assert "annotated" in kubectl(*dry, stdin=_pod("OnPodCompletion/5s"))


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(IMAGE, id="handed_the_launcher", marks=pytest.mark.long),
        pytest.param(PIPELINE_IMAGE, id="with_the_launcher"),
    ],
)
def test_steps_follow_each_other(pipelines: Pipelines, tmp_path: Path, image: str) -> None:
    """Every step sees what the one before put out, once each; what lies between two is printed, not judged."""
    run = pipelines.submit(chain(tmp_path / "chain.yaml", steps=STEPS, seconds=0, image=image))

    assert pipelines.finished(run) == "SUCCEEDED"
    assert [mark.text for mark in pipelines.marks(run)] == ["x" * length for length in range(1, STEPS + 1)]
    between = pipelines.between_steps(run)
    print("seconds between steps:", *(f"{gap:.1f}" for gap in between))
    assert len(between) == STEPS - 1


def _wait_for_marks(pipelines: Pipelines, run: str, count: int) -> None:
    end = time.monotonic() + 600
    while len(pipelines.marks(run)) < count:
        assert time.monotonic() < end, f"{run} did not end {count} steps within 600 s"
        time.sleep(1)


COMPONENTS = (
    "workflow-controller",
    "ml-pipeline",
    "ml-pipeline-driver",
    "ml-pipeline-persistenceagent",
    "ml-pipeline-scheduledworkflow",
    "mariadb",
    "minio",
    "mlflow",
)
"""Not the lineage: a run goes on when it is back with what it knew, and some builds of it know that in memory alone."""


def test_run_finishes_though_every_component_dies(
    pipelines: Pipelines, kubectl: Command, tmp_path: Path
) -> None:
    """A run finishes though another part of the platform is killed in each step, each step once (K2, K4, K5)."""
    steps = len(COMPONENTS)
    run = pipelines.submit(chain(tmp_path / "chain.yaml", steps=steps, seconds=5))
    for number, component in enumerate(COMPONENTS):
        _wait_for_marks(pipelines, run, number)
        selector = f"app.kubernetes.io/name={component}"
        _killed(kubectl, pipelines.namespace, selector)

    assert pipelines.finished(run, timeout=900) == "SUCCEEDED"
    assert [mark.text for mark in pipelines.marks(run)] == ["x" * length for length in range(1, steps + 1)]


def _killed(kubectl: Command, namespace: str, selector: str) -> None:
    """Kill the pods of a part as a node that is lost does, and see that there were some."""
    said = kubectl(
        "-n", namespace, "delete", "pod", "-l", selector, "--grace-period=0", "--force", "--wait=false"
    )
    assert "deleted" in said, f"no pod is labelled {selector}"


@contextmanager
def _at_a_time(kubectl: Command, namespace: str, runs: int) -> Iterator[None]:
    """Let only so many runs work at a time, in the block; the controller reads that when it starts."""
    name = "workflow-controller"
    read = ("get", f"configmap/{name}-configmap", "-o", "jsonpath={.data.parallelism}")
    before = kubectl("-n", namespace, *read)

    def let(number: str) -> None:
        patch = json.dumps({"data": {"parallelism": number}})
        kubectl("-n", namespace, "patch", f"configmap/{name}-configmap", "--type=merge", "-p", patch)
        kubectl("-n", namespace, "delete", "pod", "-l", f"app.kubernetes.io/name={name}")
        kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=120s", timeout=130)

    let(str(runs))
    try:
        yield
    finally:
        let(before)


def test_runs_that_wait_for_their_turn_are_done(
    pipelines: Pipelines, kubectl: Command, tmp_path: Path
) -> None:
    """Three are started where one may work at a time: each begins when the one before it has ended (K9)."""
    package = chain(tmp_path / "chain.yaml", steps=1, seconds=0)
    with _at_a_time(kubectl, pipelines.namespace, 1):
        runs = [pipelines.submit(package) for _ in range(3)]
        assert [pipelines.finished(run) for run in runs] == ["SUCCEEDED"] * 3

    worked = sorted(mark.begun for run in runs for mark in pipelines.marks(run))
    ended = sorted(mark.ended for run in runs for mark in pipelines.marks(run))
    assert all(begun > before for begun, before in zip(worked[1:], ended, strict=False))


def test_step_whose_pod_is_deleted_is_tried_again(
    pipelines: Pipelines, kubectl: Command, tmp_path: Path
) -> None:
    """A pod that goes away on its way is no failure of the step: it runs anew, and the run succeeds (K1)."""
    run = pipelines.submit(chain(tmp_path / "chain.yaml", steps=1, seconds=20))
    end = time.monotonic() + 300
    working: list[str] = []
    while not working:
        assert time.monotonic() < end, f"no step of {run} began within 300 s"
        time.sleep(1)
        working = [
            pod["metadata"]["name"]
            for pod in pipelines.pods(run)
            if "-impl-" in pod["metadata"]["name"] and pod["status"]["phase"] == "Running"
        ]

    # As a node that is lost takes its pods: at once, with no time to finish.
    kubectl(
        "-n", pipelines.namespace, "delete", "pod", *working, "--grace-period=0", "--force", "--wait=false"
    )

    assert pipelines.finished(run, timeout=600) == "SUCCEEDED"
    assert [mark.text for mark in pipelines.marks(run)] == ["x"]


@pytest.mark.long
def test_a_failed_run_is_retried_from_where_it_failed(pipelines: Pipelines, tmp_path: Path) -> None:
    """What the page's button asks for: the step that failed runs anew, those before it do not, and the run succeeds."""
    since = time.time() + RETRY_SECONDS
    run = pipelines.submit(failing_before(tmp_path / "pipeline.yaml", since))
    assert pipelines.finished(run) == "FAILED"
    assert [mark.text for mark in pipelines.marks(run)] == ["x", "xx"]
    time.sleep(max(0.0, since - time.time()))

    pipelines.retry(run)

    assert pipelines.finished(run) == "SUCCEEDED"
    first, second = pipelines.marks(run)
    assert first.ended < since < second.begun


@pytest.mark.long
def test_runs_of_a_schedule_that_is_removed_go_on(pipelines: Pipelines, tmp_path: Path) -> None:
    """A recurring run is removed while a run of it is at work: that run ends well, and its pods can be looked at."""
    name = f"chain-{secrets.token_hex(4)}"
    cluster = connect(pipelines.context, pipelines.namespace)
    with Kubeflow(cluster) as kubeflow:
        version = kubeflow.version(chain(tmp_path / "chain.yaml", steps=1, seconds=20))
        schedule = kubeflow.schedule(version, "chain", name, "*/10 * * * * *", {})
        started: list[Run] = []
        try:
            end = time.monotonic() + 300
            while not started:
                assert time.monotonic() < end, "the recurring run has started nothing within 300 s"
                time.sleep(1)
                started = [run for run in kubeflow.runs("chain") if run.schedule_id == schedule]
        finally:
            kubeflow.unschedule(name)

    assert pipelines.finished(started[0].id, timeout=600) == "SUCCEEDED"
    assert [mark.text for mark in pipelines.marks(started[0].id)] == ["x"]
