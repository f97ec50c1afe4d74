"""A run's steps, read from the workflow of a run that was recorded on a cluster."""

from __future__ import annotations

import base64
import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from seatrial.cluster.workflow import read_workflow

RECORDED = json.loads((Path(__file__).parent / "recorded" / "workflow-of-a-failed-run.json").read_text())


@pytest.fixture
def item() -> dict[str, Any]:
    """The workflow of a training whose first step failed, with Argo's tries at every level."""
    found: dict[str, Any] = copy.deepcopy(RECORDED)
    return found


def node(item: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [n for n in item["status"]["nodes"].values() if n["displayName"] == name]
    return dict(found)


def test_a_step_is_named_as_in_the_pipeline(item: dict[str, Any]) -> None:
    """Neither Argo's graphs nor its numbers of tries are in the name; what never began is no step yet."""
    workflow = read_workflow(item)

    assert [step.name for step in workflow.steps] == ["ingest"]
    assert (workflow.ended, workflow.succeeded) == (True, False)


def test_a_failed_step_has_its_pod_and_reason(item: dict[str, Any]) -> None:
    """The pod's name is what Kubernetes calls it, so its log can be asked for."""
    (step,) = read_workflow(item).steps
    (attempt,) = step.attempts

    assert step.state == "failed"
    assert attempt.failed
    assert attempt.message == "Error (exit code 1)"
    assert attempt.pod.startswith("training-deve-62qtc-retry-system-container-impl-")
    assert step.seconds == 61


def test_a_compressed_workflow_reads_the_same(item: dict[str, Any]) -> None:
    """Argo compresses the nodes of a large workflow."""
    packed = copy.deepcopy(item)
    nodes = json.dumps(packed["status"].pop("nodes")).encode()
    packed["status"]["compressedNodes"] = base64.b64encode(gzip.compress(nodes)).decode()

    assert read_workflow(packed) == read_workflow(item)


def test_a_second_try_belongs_to_the_same_step(item: dict[str, Any]) -> None:
    """A pod that is tried again is another attempt, after the first."""
    first = node(item, "executor(0)")
    again = {**first, "id": "training-deve-62qtc-1", "displayName": "executor(1)", "phase": "Running"}
    again["startedAt"] = "2026-11-24T09:00:00Z"
    del again["finishedAt"]
    graph = node(item, "ingest(0)")
    item["status"]["nodes"] |= {again["id"]: again, graph["id"]: {**graph, "phase": "Running"}}

    (step,) = read_workflow(item).steps

    assert [attempt.phase for attempt in step.attempts] == ["Failed", "Running"]
    assert step.state == "running"


def test_a_step_of_an_inner_pipeline_has_a_path(item: dict[str, Any]) -> None:
    """The training within the monitoring is told apart from the monitoring's own steps."""
    root = node(item, "root(0)")
    inner = {**root, "id": "inner", "displayName": "training(0)", "boundaryID": root["id"]}
    step = {**node(item, "ingest(0)"), "id": "inner-ingest", "boundaryID": "inner"}
    item["status"]["nodes"] |= {"inner": inner, "inner-ingest": step}

    assert {found.name for found in read_workflow(item).steps} == {"ingest", "training/ingest"}


def test_a_driver_that_failed_is_known_by_its_step(item: dict[str, Any]) -> None:
    """Where a step could not begin, its driver's pod says why."""
    driver = node(item, "ingest-driver(0)")
    item["status"]["nodes"][driver["id"]] = {**driver, "phase": "Error", "message": "no metadata"}

    assert read_workflow(item).drivers["ingest"].message == "no metadata"


def test_why_a_pod_does_not_begin_is_told(item: dict[str, Any]) -> None:
    """A pod that no node has room for says so; one that is just starting says nothing."""
    pod = node(item, "executor(0)")
    waiting = {
        **pod,
        "phase": "Pending",
        "message": "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.",
    }
    item["status"]["nodes"][pod["id"]] = waiting
    (unschedulable,) = read_workflow(item).steps
    waiting["message"] = "PodInitializing"
    (starting,) = read_workflow(item).steps

    assert "Insufficient cpu" in unschedulable.waits_for
    assert starting.waits_for == ""
