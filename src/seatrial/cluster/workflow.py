"""A run's steps, read from the workflow that Argo keeps for it.

Kubeflow Pipelines makes a workflow of each run: a step is a small graph of a driver, which decides, in a pod of its
own or in the driver service, and an executor's pod, which works, perhaps several times. What a person wants to follow
is the step. Everything here is plain JSON in, plain data out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from seatrial.kubeflow_driver.workflows import Object, is_held, nodes_of, waiting_in

StepState = Literal["waiting", "running", "succeeded", "cached", "failed"]

_EXECUTOR_POD = "container-impl"
_STEP = "container-executor"
_TOO_MANY = "too many workflows are already running"
"""What Argo says of a run that waits for its turn."""
_DRIVER = "driver"
_BAD = {"Failed", "Error"}
ENDED = {"Succeeded", "Failed", "Error"}
_TRY = re.compile(r"\(\d+\)$")
_STARTING = {"", "PodInitializing", "ContainerCreating"}


@dataclass(frozen=True)
class Attempt:
    """One pod of a step.

    Attributes:
        node: Argo's id of it, by which its log is archived.
        pod: Name of the pod; empty for a driver that the driver service is asked.
        phase: Argo's word for how it is.
        message: What Argo says of it.
        started: When it began.
        finished: When it ended; None while it works.
    """

    node: str
    pod: str
    phase: str
    message: str = ""
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def failed(self) -> bool:
        """Whether it ended without its outputs."""
        return self.phase in _BAD


@dataclass(frozen=True)
class Step:
    """A step of a run.

    Attributes:
        name: Its name, with the names of the pipelines that contain it where it is not of the outermost.
        state: How it is.
        attempts: Its pods, in the order in which they were tried.
    """

    name: str
    state: StepState
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time from the beginning of its first pod to the end of its last; 0 until then."""
        starts = [attempt.started for attempt in self.attempts if attempt.started]
        ends = [attempt.finished for attempt in self.attempts if attempt.finished]
        return (max(ends) - min(starts)).total_seconds() if starts and ends else 0.0

    @property
    def waits_for(self) -> str:
        """Why its pod does not work yet, in Kubernetes' words; empty if it is just starting."""
        last = self.attempts[-1] if self.attempts else None
        if last is None or last.phase != "Pending":
            return ""
        return "" if last.message.split(":")[0] in _STARTING else last.message


@dataclass(frozen=True)
class Workflow:
    """What Argo knows of a run.

    Attributes:
        name: Name of the workflow, which the steps know as the run's name.
        phase: Argo's word for how it is; empty before it began.
        message: What Argo says of it.
        steps: Its steps, in the order in which they began.
        drivers: Failed decisions what a step needs, by the step's name.
        undecided: What the driver service has to answer before the run goes on; empty where it owes nothing.
    """

    name: str
    phase: str
    message: str
    steps: list[Step]
    drivers: dict[str, Attempt]
    undecided: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.phase in ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it is over, and well."""
        return self.phase == "Succeeded"

    @property
    def waits_for_its_turn(self) -> bool:
        """Whether it has not begun because of others that are at work."""
        return self.phase == "Pending" and _TOO_MANY in self.message and not self.undecided


def read_workflow(item: Object) -> Workflow:
    """Read a workflow object as the API server, or Kubeflow Pipelines' own record, has it."""
    status, nodes = item.get("status") or {}, nodes_of(item)
    name = item["metadata"]["name"]
    tries: dict[str, list[Object]] = {}
    for node in nodes.values():
        if _is_step(node):
            tries.setdefault(_path(node, nodes, name), []).append(node)
    steps = [_read_step(path, sorted(found, key=_started), nodes, name) for path, found in tries.items()]
    drivers = {
        _task_of_driver(node): _attempt(node, name)
        for node in nodes.values()
        if node["type"] in {"Pod", "Suspend"}
        and node.get("templateName", "").endswith(_DRIVER)
        and node.get("phase") in _BAD
    }
    begun = {step.name: min(_started(node) for node in tries[step.name]) for step in steps}
    in_order = sorted(steps, key=lambda step: (begun[step.name], step.name))
    undecided = name if is_held(item) else ",".join(waiting.node for waiting in waiting_in(item))
    return Workflow(name, status.get("phase", ""), status.get("message", ""), in_order, drivers, undecided)


def _started(node: Object) -> str:
    return str(node.get("startedAt") or "9999")


def _is_step(node: Object) -> bool:
    return node["type"] == "DAG" and _STEP in node.get("templateName", "")


def _read_step(path: str, tries: list[Object], nodes: dict[str, Object], workflow: str) -> Step:
    """Read a step from its graphs: one, or several where Argo tried the whole of it again."""
    inner = [other for node in tries for other in nodes.values() if other.get("boundaryID") == node["id"]]
    pods = [
        other for other in inner if other["type"] == "Pod" and _EXECUTOR_POD in other.get("templateName", "")
    ]
    attempts = [_attempt(pod, workflow) for pod in sorted(pods, key=_started)]
    skipped = any(other["type"] == "Skipped" or other.get("phase") == "Skipped" for other in inner)
    return Step(path, _state(tries[-1], attempts, skipped=skipped), attempts)


def _state(node: Object, attempts: list[Attempt], *, skipped: bool) -> StepState:
    phase = node.get("phase", "")
    if phase == "Succeeded":
        return "cached" if skipped and not attempts else "succeeded"
    if phase in _BAD:
        return "failed"
    return "running" if any(attempt.phase == "Running" for attempt in attempts) else "waiting"


def _path(node: Object, nodes: dict[str, Object], workflow: str) -> str:
    """A step's name below those of the pipelines that contain it; tries are not told apart by name."""
    names = []
    outer: Object | None = node
    while outer is not None:
        names.append(_TRY.sub("", outer["displayName"]))
        outer = nodes.get(outer.get("boundaryID", ""))
    # The outermost are the workflow itself and KFP's "root"; conditions are named by number.
    return "/".join(
        name
        for name in reversed(names)
        if name not in {workflow, "root"} and not name.startswith("condition-")
    )


def _attempt(node: Object, workflow: str) -> Attempt:
    return Attempt(
        node["id"],
        _pod_name(node, workflow) if node["type"] == "Pod" else "",
        node.get("phase", ""),
        node.get("message", ""),
        _time(node.get("startedAt")),
        _time(node.get("finishedAt")),
    )


def _pod_name(node: Object, workflow: str) -> str:
    """Argo's rule: workflow, template, and the hash that the node's id ends with."""
    template = node.get("templateName", "")
    return f"{workflow}-{template}-{node['id'].rsplit('-', 1)[-1]}" if node["id"] != workflow else workflow


def _task_of_driver(node: Object) -> str:
    return _TRY.sub("", node["displayName"]).removesuffix(f"-{_DRIVER}")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
