"""Why something is not healthy, in words, judged from what a cluster was recorded to say."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from seatrial.cluster.health import Finding, Observation, judge, judge_claim, judge_pod, judge_workload

RECORDED = json.loads((Path(__file__).parent / "recorded" / "broken-parts.json").read_text())
Object = dict[str, Any]


@pytest.fixture
def seen() -> Observation:
    """Deployments that were broken each in its own way on a kind cluster, as its API server had them."""
    return Observation(**copy.deepcopy(RECORDED))


def said(pod: str, container: str, previous: bool) -> str:
    """The log of every container."""
    return "first\n\x1b[31mlast words\x1b[0m\n\n"


@pytest.mark.parametrize(
    ("name", "why", "remedy"),
    [
        ("a-not-pulled", "the image localhost/no/such-image:1.0 can't be pulled: ", "seatrial images check"),
        ("b-too-large", "no node has room for it: it asks for 900Gi of memory", "Give the cluster more"),
        (
            "d-hungry",
            r"killed for want of memory \(its limit is 64Mi\).*it said last: last words$",
            "memory limit",
        ),
        (
            "e-no-volume",
            "no-class wants the storage class 'no-such-class', which is not there",
            "has: standard",
        ),
        (
            "f-no-secret",
            'container main can\'t start: secret "no-such-secret" not found',
            "kubectl describe pod",
        ),
    ],
)
def test_what_is_broken_is_said_with_its_cause(seen: Observation, name: str, why: str, remedy: str) -> None:
    """The sentence names the cause, the remedy says what to do."""
    (found,) = [finding for finding in judge(seen, said) if finding.name == name]

    assert found.state == "broken"
    assert re.search(why, found.why)
    assert remedy in found.remedy
    assert (found.ready, found.wanted) == (0, 1)


def test_a_log_that_is_gone_is_not_quoted(seen: Observation) -> None:
    """What the kubelet says instead of a log is not the container's last word."""
    gone = "unable to retrieve container logs for containerd://92fc"

    (found,) = [finding for finding in judge(seen, lambda *_: gone) if finding.name == "d-hungry"]

    assert "containerd" not in found.why


def test_a_part_is_healthy_when_all_its_pods_are(seen: Observation) -> None:
    """Ready and updated replicas count, of the generation that is wanted."""
    part = seen.workloads[0]
    part["status"] |= {"readyReplicas": 1, "updatedReplicas": 1}

    healthy = judge_workload(part, seen)
    part["metadata"]["generation"] += 1
    newer = judge_workload(part, seen)

    assert healthy == Finding("a-not-pulled", "healthy", ready=1, wanted=1)
    assert newer.state == "broken"


def test_pods_that_are_refused_are_said_to_be(seen: Observation) -> None:
    """Where no pod was made, the reason is on the workload: Pod Security, a quota, an admission rule."""
    part = seen.workloads[0]
    message = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    part["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": message}]

    found = judge_workload(part, Observation([part]))

    assert found.state == "broken"
    assert "its pods are refused" in found.why
    assert "PodSecurity" in found.why


def test_a_claim_without_any_default_class_is_broken(seen: Observation) -> None:
    """It names no class and the cluster has no default one."""
    (claim,) = seen.claims
    del claim["spec"]["storageClassName"]
    plain = Observation([], storage_classes=seen.storage_classes)

    with_default = judge_claim(claim, plain)
    plain.storage_classes[0]["metadata"]["annotations"] = {}
    without = judge_claim(claim, plain)

    assert with_default.state == "waiting"
    assert without.state == "broken"
    assert "no default one" in without.why


def test_an_init_container_says_what_it_waits_for() -> None:
    """The last line of an init container that runs is what the part waits for."""
    pod: Object = {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "main"}]},
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [{"name": "wait", "image": "i", "state": {"running": {}}}],
            "containerStatuses": [
                {"name": "main", "image": "i", "state": {"waiting": {"reason": "PodInitializing"}}}
            ],
        },
    }

    found = judge_pod(pod, Observation([]), lambda *_: "waiting for mariadb:3306\n")

    assert found == Finding("p", "waiting", "waiting for mariadb:3306")
