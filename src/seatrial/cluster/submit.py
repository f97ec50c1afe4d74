"""Start a pipeline on the cluster: compile, upload or reuse, run; and say at its end what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seatrial.cluster.context import Cluster
from seatrial.cluster.follow import Followed, Follower, Said, failure_of, read_log
from seatrial.cluster.kubeflow import Kubeflow, Version, cron_of, parameters
from seatrial.cluster_runs import compile_for_cluster
from seatrial.errors import UsageError
from seatrial.local_runs import StepEvent

REPORT = "report: "
"""What the line of a step begins with that says where the run's report lies."""


@dataclass(frozen=True)
class Submitted:
    """A run that was started.

    Attributes:
        run_id: Its id.
        name: Its name.
        version: What it runs.
    """

    run_id: str
    name: str
    version: Version


@dataclass(frozen=True)
class Ended:
    """A run that has ended well.

    Attributes:
        run_id: Its id.
        verdicts: The verdicts that its steps told of.
        failed: Names of the gates that failed.
        seconds: Time that each step worked.
        look_at: Where to look, by what is there.
    """

    run_id: str
    verdicts: list[Said]
    failed: list[str]
    seconds: dict[str, float]
    look_at: dict[str, str] = field(default_factory=dict)


def submit(cluster: Cluster, pipeline: str, environment: str, given: list[str]) -> Submitted:
    """Start a run of a pipeline; its version is uploaded if it is not there.

    Args:
        cluster: Where to run.
        pipeline: Name of the pipeline in ``pipelines/``.
        environment: Name of the environment.
        given: Parameters, each as ``key=value``.

    Raises:
        UsageError: if there is no such pipeline, or a parameter is wrong.
        ClusterError: if Kubeflow Pipelines is away or refuses.
        ToolError: if kubectl is missing.
    """
    with tempfile.TemporaryDirectory(prefix="seatrial-") as folder:
        package = compiled(pipeline, environment, Path(folder))
        values = parameters(package, given)
        with Kubeflow(cluster) as kubeflow:
            version = kubeflow.version(package)
            name = f"{version.pipeline} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
            return Submitted(kubeflow.start(version, environment, name, values), name, version)


def schedule(
    cluster: Cluster, pipeline: str, environment: str, given: list[str], *, cron: str, name: str
) -> tuple[str, str]:
    """Make a recurring run of a pipeline, and return its id and when it starts.

    Args:
        cluster: Where to run.
        pipeline: Name of the pipeline in ``pipelines/``.
        environment: Name of the environment.
        given: Parameters, each as ``key=value``.
        cron: When to start, UTC.
        name: Its name; one of that name is replaced.

    Raises:
        UsageError: if there is no such pipeline, or a parameter or the time is wrong.
        ClusterError: if Kubeflow Pipelines is away or refuses.
        ToolError: if kubectl is missing.
    """
    when = cron_of(cron)
    with tempfile.TemporaryDirectory(prefix="seatrial-") as folder:
        package = compiled(pipeline, environment, Path(folder))
        values = parameters(package, given)
        with Kubeflow(cluster) as kubeflow:
            return kubeflow.schedule(kubeflow.version(package), environment, name, when, values), when


def compiled(pipeline: str, environment: str, folder: Path) -> Path:
    """Return a pipeline, compiled for an environment of the cluster.

    Raises:
        UsageError: if there is no such pipeline.
    """
    path = folder / f"{pipeline}.yaml"
    compile_for_cluster(pipeline, path, environment)
    return path


def follow(cluster: Cluster, run_id: str, tell: Callable[[StepEvent], None]) -> Ended:
    """Follow a run to its end.

    Args:
        cluster: Where it runs.
        run_id: Its id.
        tell: Is told each event as it happens.

    Raises:
        SeatrialError: what ended a step, with its class.
        RunError: if it ended without all of its outputs, and no error of a step's own says why.
        ClusterError: if the cluster is away or refuses.
    """

    def read_archive(node: str) -> str:
        with Kubeflow(cluster) as kubeflow:
            return kubeflow.archived_log(run_id, node)

    seen = Follower(cluster, run_id, tell, read_archive).follow()
    if seen.workflow is None or not seen.workflow.succeeded:
        raise failure_of(seen, cluster, run_id)
    return _ended(cluster, run_id, seen)


def _ended(cluster: Cluster, run_id: str, seen: Followed) -> Ended:
    steps = seen.workflow.steps if seen.workflow else []
    failed = [said.check for said in seen.verdicts if said.outcome == "fail"]
    return Ended(
        run_id,
        seen.verdicts,
        failed,
        {step.name: step.seconds for step in steps},
        look_at(cluster, run_id, seen),
    )


def look_at(cluster: Cluster, run_id: str, seen: Followed) -> dict[str, str]:
    """Where a person looks after a run, by what is there."""
    place = f" --context {cluster.context} --namespace {cluster.namespace}"
    lines = [line for said in seen.lines.values() for line in said]
    reports = [line.removeprefix(REPORT) for line in lines if line.startswith(REPORT)]
    return {
        **({"report": reports[-1]} if reports else {}),
        "Kubeflow": f"seatrial open kubeflow --at '/#/runs/details/{run_id}'{place}",
        "MLflow": f"seatrial open mlflow{place}",
        "logs": f"seatrial logs {run_id[:8]}{place}",
    }


def as_facts(ended: Ended, submitted: Submitted) -> dict[str, Any]:
    """The end of a run as JSON."""
    return {
        "run": ended.run_id,
        "name": submitted.name,
        "pipeline": submitted.version.pipeline,
        "version": submitted.version.name,
        "failed_gates": ended.failed,
        "verdicts": ended.verdicts,
        "seconds": ended.seconds,
        "look_at": ended.look_at,
    }


@dataclass(frozen=True)
class StepLog:
    """The log of one try of a step.

    Attributes:
        step: The step.
        attempt: Which try, from 1.
        state: How it ended, in Argo's word.
        text: What it printed; empty if nothing is left.
    """

    step: str
    attempt: int
    state: str
    text: str


def read_logs(cluster: Cluster, run: str, step: str | None) -> list[StepLog]:
    """Return the logs of a run's steps, in the order in which they ran.

    Args:
        cluster: Where it ran.
        run: The run's id, its beginning, or its name.
        step: Only of this step, `train` or with the pipeline that it is in, `learning/train`; of all if None.

    Raises:
        UsageError: if there is no such run, or it has no such step.
        ClusterError: if the cluster is away or refuses.
        ToolError: if kubectl is missing.
    """
    with Kubeflow(cluster) as kubeflow:
        found = kubeflow.find_run(run)
        workflow = kubeflow.workflow(found.id)
        steps = workflow.steps if workflow else []
        wanted = [item for item in steps if step in {None, item.name, item.name.rpartition("/")[2]}]
        if step is not None and not wanted:
            names = ", ".join(item.name for item in steps)
            raise UsageError(f"The run {found.id[:8]} has no step {step!r}. It has: {names or 'none yet'}.")
        return [
            StepLog(
                item.name,
                number,
                attempt.phase.lower(),
                read_log(cluster, attempt, lambda node: kubeflow.archived_log(found.id, node)),
            )
            for item in wanted
            for number, attempt in enumerate(item.attempts, 1)
        ]
