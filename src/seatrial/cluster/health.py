"""What is healthy, what is not, and why, in words: judged from the objects that Kubernetes keeps.

Kubernetes says why a pod does not run, in a dozen places: conditions of the pod, states of its containers,
conditions of what should have made it, the claim it waits for, events. Here one place reads them all and says one
sentence and what to do. Everything is plain JSON in, plain data out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

State = Literal["healthy", "waiting", "broken"]
Object = dict[str, Any]

ReadLog = Callable[[str, str, bool], str]
"""Returns what a container printed: pod, container, whether of its run before this one."""

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
"""Annotation of the storage class that claims get which name none."""
PULL_REASONS = {
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "RegistryUnavailable",
}
_CONFIGURATION_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_LOG_CHARACTERS = 240
_NO_LOG = "unable to retrieve container logs"
"""What the kubelet answers instead of a log that it has thrown away."""
_KILLED = 137


@dataclass(frozen=True)
class Finding:
    """How one part is.

    Attributes:
        name: Name of the part.
        state: ``healthy``, ``waiting`` (it needs time, or another part), or ``broken`` (it needs a person).
        why: A sentence; empty for what is healthy.
        remedy: What to do; empty where waiting is all.
        ready: How many of its pods are ready.
        wanted: How many there should be.
    """

    name: str
    state: State
    why: str = ""
    remedy: str = ""
    ready: int = 0
    wanted: int = 0


@dataclass(frozen=True)
class Observation:
    """The objects of a namespace that tell how it is.

    Attributes:
        workloads: Deployments, StatefulSets, DaemonSets and Jobs.
        pods: Pods; those of pipeline steps too.
        claims: PersistentVolumeClaims.
        events: Events of type Warning.
        storage_classes: The cluster's storage classes.
    """

    workloads: list[Object]
    pods: list[Object] = field(default_factory=list)
    claims: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    storage_classes: list[Object] = field(default_factory=list)


def no_log(pod: str, container: str, previous: bool) -> str:
    """Read no log: for a judgement without a cluster."""
    del pod, container, previous
    return ""


def judge(seen: Observation, read_log: ReadLog = no_log) -> list[Finding]:
    """Judge every part of a namespace, in the order of their names.

    Args:
        seen: Its objects.
        read_log: Reads the log of a container that crashed or waits.

    Returns:
        A finding a workload.
    """
    found = [judge_workload(workload, seen, read_log) for workload in seen.workloads]
    return sorted(found, key=lambda finding: finding.name)


def judge_workload(workload: Object, seen: Observation, read_log: ReadLog = no_log) -> Finding:
    """Judge a Deployment, StatefulSet, DaemonSet or Job."""
    name = workload["metadata"]["name"]
    if workload["kind"] == "Job":
        return _judge_job(workload, seen, read_log)
    status, spec = workload.get("status") or {}, workload["spec"]
    wanted = (
        status.get("desiredNumberScheduled", 0)
        if workload["kind"] == "DaemonSet"
        else spec.get("replicas", 1)
    )
    ready = status.get("readyReplicas", status.get("numberReady", 0)) or 0
    current = status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 0)
    updated = status.get("updatedReplicas", status.get("updatedNumberScheduled", 0)) or 0
    if ready >= wanted and updated >= wanted and current:
        return Finding(name, "healthy", ready=ready, wanted=wanted)
    worst = _worst_pod(workload, seen, read_log)
    if worst is None:
        worst = _refused_pods(workload, seen) or Finding(name, "waiting", "its pods are not made yet")
    return replace(worst, name=name, ready=ready, wanted=wanted)


def _judge_job(job: Object, seen: Observation, read_log: ReadLog) -> Finding:
    name, status = job["metadata"]["name"], job.get("status") or {}
    if status.get("succeeded"):
        return Finding(name, "healthy", ready=1, wanted=1)
    failed = [c for c in status.get("conditions") or [] if c["type"] == "Failed" and c["status"] == "True"]
    worst = _worst_pod(job, seen, read_log) or _refused_pods(job, seen)
    if failed:
        why = worst.why if worst and worst.state == "broken" else failed[0].get("message", "it failed")
        remedy = f"kubectl logs job/{name} -n {job['metadata']['namespace']}"
        return Finding(name, "broken", f"the job failed: {why}", remedy, wanted=1)
    if worst is None or worst.state == "healthy":
        return Finding(name, "waiting", "the job works", wanted=1)
    return replace(worst, name=name, wanted=1)


def pods_of(workload: Object, pods: list[Object]) -> list[Object]:
    """Return the pods that a workload's selector takes."""
    wanted = (workload["spec"].get("selector") or {}).get("matchLabels") or {}
    return [pod for pod in pods if wanted and wanted.items() <= (pod["metadata"].get("labels") or {}).items()]


def _worst_pod(workload: Object, seen: Observation, read_log: ReadLog) -> Finding | None:
    """The finding of the newest pod that is not healthy; of a broken one before one that waits."""
    mine = sorted(
        pods_of(workload, seen.pods), key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True
    )
    found = [judge_pod(pod, seen, read_log) for pod in mine]
    order = {"broken": 0, "waiting": 1, "healthy": 2}
    return min(found, key=lambda finding: order[finding.state], default=None)


def _refused_pods(workload: Object, seen: Observation) -> Finding | None:
    """Why no pod was made at all: Pod Security, a quota, an admission rule."""
    name = workload["metadata"]["name"]
    conditions = (workload.get("status") or {}).get("conditions") or []
    said = [
        c.get("message", "") for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"
    ]
    said += [
        event.get("message", "")
        for event in seen.events
        if event.get("reason") == "FailedCreate" and event["involvedObject"].get("name", "").startswith(name)
    ]
    if not said:
        return None
    remedy = "Change the namespace's rule or quota, or the chart's values; `kubectl describe` shows the whole message."
    return Finding(name, "broken", f"its pods are refused: {_short(said[-1])}", remedy)


def judge_pod(pod: Object, seen: Observation, read_log: ReadLog = no_log) -> Finding:
    """Judge one pod, from the first thing that holds it up to the last."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("phase") == "Succeeded":
        return Finding(name, "healthy")
    if pod["metadata"].get("deletionTimestamp"):
        return Finding(name, "waiting", "it is being stopped")
    if status.get("reason") in {"Evicted", "NodeLost", "NodeAffinity", "Shutdown", "Terminated"}:
        return Finding(name, "waiting", f"it was evicted from its node: {_short(status.get('message', ''))}")
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unscheduled(pod, condition, seen)
    return _judge_containers(pod, seen, read_log)


def _judge_containers(pod: Object, seen: Observation, read_log: ReadLog) -> Finding:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for container in status.get("initContainerStatuses") or []:
        if container["state"].get("terminated", {}).get("exitCode") == 0 or container.get("started"):
            continue
        trouble = _trouble(pod, container, read_log)
        if trouble is not None:
            return trouble
        if "running" in container["state"]:
            line = _last_line(read_log(name, container["name"], False))
            return Finding(name, "waiting", line or f"its init container {container['name']} works")
        return Finding(name, "waiting", f"its init container {container['name']} starts")
    containers = status.get("containerStatuses") or []
    for container in containers:
        trouble = _trouble(pod, container, read_log)
        if trouble is not None:
            return trouble
    if all(container.get("ready") for container in containers) and containers:
        return Finding(name, "healthy")
    return _not_ready(pod, containers, seen)


def _trouble(pod: Object, container: Object, read_log: ReadLog) -> Finding | None:
    """What is wrong with one container; None if nothing is."""
    name, state = pod["metadata"]["name"], container["state"]
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    reason, said = waiting.get("reason", ""), _short(waiting.get("message", ""))
    if reason in PULL_REASONS:
        return Finding(
            name,
            "broken",
            f"the image {container['image']} can't be pulled: {said or reason}",
            "If it is one of ours or the node has no way to the registry, load it: `seatrial up --kind` builds and "
            "loads ours, `seatrial images check` says which are missing. Else look at name, registry and credentials.",
        )
    if reason in _CONFIGURATION_REASONS:
        remedy = f"kubectl describe pod {name} -n {pod['metadata']['namespace']}"
        return Finding(
            name, "broken", f"its container {container['name']} can't start: {said or reason}", remedy
        )
    crashed = reason == "CrashLoopBackOff" or (terminated and terminated.get("exitCode") != 0)
    return _crash(pod, container, read_log) if crashed else None


def _crash(pod: Object, container: Object, read_log: ReadLog) -> Finding:
    name, place = pod["metadata"]["name"], pod["metadata"]["namespace"]
    ended = container["state"].get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    again = "terminated" not in container["state"]
    line = _last_line(read_log(name, container["name"], again)) or _last_line(
        read_log(name, container["name"], False)
    )
    times = container.get("restartCount", 0) + (0 if again else 1)
    last = f"; it said last: {line}" if line else ""
    if ended.get("reason") == "OOMKilled" or ended.get("exitCode") == _KILLED:
        limit = _limit(pod, container["name"])
        return Finding(
            name,
            "broken",
            f"its container {container['name']} was killed for want of memory{limit}, {_times(times)}{last}",
            "Raise its memory limit in the chart's values, and run `seatrial up` again.",
        )
    option = " --previous" if again else ""
    return Finding(
        name,
        "broken",
        f"its container {container['name']} crashed {_times(times)} (exit code {ended.get('exitCode', '?')}){last}",
        f"kubectl logs {name} -c {container['name']} -n {place}{option}",
    )


def _unscheduled(pod: Object, condition: Object, seen: Observation) -> Finding:
    name, said = pod["metadata"]["name"], condition.get("message", "")
    if "PersistentVolumeClaim" in said or "persistentvolumeclaim" in said:
        waiting = [
            claim for claim in _claims_of(pod, seen) if (claim.get("status") or {}).get("phase") != "Bound"
        ]
        return (
            judge_claim(waiting[0], seen)
            if waiting
            else Finding(name, "waiting", f"waits for its volume: {_short(said)}")
        )
    for resource in ("memory", "cpu", "ephemeral-storage"):
        if f"Insufficient {resource}" in said:
            needed = _requested(pod, resource)
            return Finding(
                name,
                "broken",
                f"no node has room for it: it asks for {needed} of {resource} ({_short(said)})",
                "Give the cluster more, stop something else on it, or lower the requests in the chart's values.",
            )
    if not said or condition.get("reason") == "SchedulingGated":
        return Finding(name, "waiting", "waits for a node")
    return Finding(name, "broken", f"no node takes it: {_short(said)}", "kubectl describe nodes")


def judge_claim(claim: Object, seen: Observation) -> Finding:
    """Judge a PersistentVolumeClaim."""
    name, spec = claim["metadata"]["name"], claim["spec"]
    if (claim.get("status") or {}).get("phase") == "Bound":
        return Finding(name, "healthy")
    wanted = spec.get("storageClassName")
    there = [item["metadata"]["name"] for item in seen.storage_classes]
    has = f"The cluster has: {', '.join(there) or 'none'}."
    if not wanted and not any(is_default(item) for item in seen.storage_classes):
        return Finding(
            name,
            "broken",
            f"its volume claim {name} names no storage class and the cluster has no default one",
            f"Mark one as default or name one in the chart's values. {has}",
        )
    if wanted and wanted not in there:
        remedy = f"Name one that is there in the chart's values. {has}"
        return Finding(
            name,
            "broken",
            f"its volume claim {name} wants the storage class {wanted!r}, which is not there",
            remedy,
        )
    said = [
        e.get("message", "")
        for e in seen.events
        if e["involvedObject"].get("name") == name and e.get("reason") == "ProvisioningFailed"
    ]
    if said:
        return Finding(
            name,
            "broken",
            f"its volume {name} can't be made: {_short(said[-1])}",
            f"kubectl describe pvc {name}",
        )
    return Finding(name, "waiting", f"waits for its volume {name}")


def is_default(storage_class: Object) -> bool:
    """Whether claims that name no storage class get this one."""
    annotations = storage_class["metadata"].get("annotations") or {}
    return annotations.get(DEFAULT_CLASS) == "true"


def _not_ready(pod: Object, containers: list[Object], seen: Observation) -> Finding:
    name = pod["metadata"]["name"]
    if not containers or any("waiting" in container["state"] for container in containers):
        return Finding(name, "waiting", "it starts")
    said = [
        event
        for event in seen.events
        if event["involvedObject"].get("name") == name and event.get("reason") == "Unhealthy"
    ]
    probes = f": {_short(said[-1].get('message', ''))}" if said else ""
    return Finding(name, "waiting", f"it runs but is not ready yet{probes}")


def _claims_of(pod: Object, seen: Observation) -> list[Object]:
    names = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes") or []
        if "persistentVolumeClaim" in volume
    }
    return [claim for claim in seen.claims if claim["metadata"]["name"] in names]


def _requested(pod: Object, resource: str) -> str:
    asked = [
        (container.get("resources") or {}).get("requests", {}).get(resource)
        for container in pod["spec"].get("containers") or []
    ]
    return " + ".join(str(amount) for amount in asked if amount) or "some"


def _limit(pod: Object, container: str) -> str:
    for item in [*pod["spec"].get("containers", []), *pod["spec"].get("initContainers", [])]:
        limit = (item.get("resources") or {}).get("limits", {}).get("memory")
        if item["name"] == container and limit:
            return f" (its limit is {limit})"
    return ""


def _times(count: int) -> str:
    return "once" if count <= 1 else f"{count} times"


def _last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip() and not line.startswith(_NO_LOG)]
    return _short(re.sub(r"\x1b\[[0-9;]*m", "", lines[-1])) if lines else ""


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= _LOG_CHARACTERS else f"{plain[: _LOG_CHARACTERS - 3]}..."
