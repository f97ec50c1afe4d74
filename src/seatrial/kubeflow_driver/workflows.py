"""What is read from a workflow and what is changed in it: plain JSON in, JSON merge patches (RFC 7396) out.

A patch names the version of the workflow that it was made from, so that Kubernetes refuses it when somebody, mostly
Argo's controller, was faster; it is then made anew.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

Object = dict[str, Any]

DRIVERS = "seatrial.io/drivers"
"""Annotation of a run that was let go: the arguments of its drivers, as JSON, by the names of their templates."""
TOUCHED = "seatrial.io/touched"
"""Annotation of a run that was changed only so that Argo looks at it: how often, since it was last left as it is."""
_TEMPLATES = frozenset({"system-container-driver", "system-dag-driver"})
_TAKEN_OVER = frozenset({"name", "inputs", "outputs", "metadata", "container", "securityContext", "suspend"})
"""What the template of a driver may have; one with volumes, such as for certificates, keeps its pod."""
_VARIABLE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_INPUT = re.compile(r"inputs\.parameters\.(.+)")
_OUTPUT = re.compile(r"outputs\.parameters\.([\w-]+)\.path")
_OF_THE_RUN: dict[str, Callable[[Object], str]] = {
    "workflow.name": lambda metadata: str(metadata["name"]),
    "workflow.uid": lambda metadata: str(metadata["uid"]),
    "workflow.creationTimestamp": lambda metadata: str(metadata["creationTimestamp"]),
}


@dataclass(frozen=True)
class OutputPath:
    """Stands where an argument of a driver is the path of an output.

    Attributes:
        output: The output's name.
    """

    output: str


@dataclass(frozen=True)
class Waiting:
    """A driver that a run waits for.

    Attributes:
        workflow: The workflow's name.
        uid: The workflow's uid.
        node: Argo's id of what waits.
        started: When it began to; another one after the run was tried again.
        arguments: What the driver is started with.
    """

    workflow: str
    uid: str
    node: str
    started: str
    arguments: tuple[str | OutputPath, ...]


@dataclass(frozen=True)
class Outcome:
    """How a driver ended.

    Attributes:
        values: What it put out, by name.
        failure: What it said when it failed; None if it did not.
        finished: When, as Kubernetes writes times.
    """

    values: Mapping[str, str]
    failure: str | None
    finished: str


def nodes_of(workflow: Object) -> dict[str, Object]:
    """Return the nodes of a workflow, which Argo compresses where they are many (its ``packer``)."""
    status = workflow.get("status") or {}
    packed = status.get("compressedNodes")
    if packed:
        unpacked: dict[str, Object] = orjson.loads(gzip.decompress(base64.b64decode(packed)))
        return unpacked
    found: dict[str, Object] = status.get("nodes") or {}
    return found


def is_held(workflow: Object) -> bool:
    """Return whether Argo holds a run that nobody has let go yet.

    Argo has looked at it once then and written its defaults down, so that it does not write at the same time as we do.
    One that had to wait for its turn is called Pending until it is let go. Who suspends a run later means it.
    """
    held = (workflow.get("spec") or {}).get("suspend") is True
    began = (workflow.get("status") or {}).get("phase") in {"Running", "Pending"}
    return held and began and not was_let_go(workflow)


def was_let_go(workflow: Object) -> bool:
    """Return whether a run was let go."""
    return DRIVERS in (workflow["metadata"].get("annotations") or {})


def version_of(workflow: Object) -> str:
    """Return which state of a run this is."""
    return str(workflow["metadata"]["resourceVersion"])


def touching(workflow: Object, times: int) -> Object:
    """Return a patch that changes nothing but that Argo looks at the run."""
    return {
        "metadata": {"resourceVersion": version_of(workflow), "annotations": {TOUCHED: str(times)}},
    }


def letting_go(workflow: Object) -> Object:
    """Return the patch by which a held run begins, and its drivers need no pods.

    A driver that cannot be run here (arguments that we do not know how to fill in, volumes) keeps its pod.
    """
    templates = list(workflow["spec"].get("templates") or [])
    drivers = {}
    for index, template in enumerate(templates):
        if _can_be_taken_over(template):
            drivers[template["name"]] = template["container"]["args"]
            templates[index] = _waiting_for_outputs(template)
    return {
        "metadata": {
            "resourceVersion": version_of(workflow),
            "annotations": {DRIVERS: orjson.dumps(drivers).decode()},
        },
        "spec": {"suspend": False, "templates": templates},
    }


def waiting_in(workflow: Object) -> list[Waiting]:
    """Return the drivers that a run waits for."""
    metadata = workflow["metadata"]
    noted = (metadata.get("annotations") or {}).get(DRIVERS)
    if noted is None:
        return []
    drivers: dict[str, list[str]] = orjson.loads(noted)
    return [
        Waiting(
            metadata["name"],
            metadata["uid"],
            node["id"],
            str(node.get("startedAt")),
            tuple(_filled_in(one, metadata, node) for one in drivers[node["templateName"]]),
        )
        for node in nodes_of(workflow).values()
        if node["type"] == "Suspend"
        and node.get("phase") == "Running"
        and node.get("templateName") in drivers
    ]


def answering(workflow: Object, waiting: Waiting, outcome: Outcome) -> Object | None:
    """Return the patch that tells a run how its driver ended; None if it does not wait for it any more."""
    if waiting not in waiting_in(workflow):
        return None
    node = dict(nodes_of(workflow)[waiting.node])
    failure = outcome.failure
    if failure is None:
        missing = [each["name"] for each in _outputs(node) if _value(each, outcome.values) is None]
        failure = f"The driver did not put out {', '.join(missing)}" if missing else None
    node["finishedAt"] = outcome.finished
    if failure is None:
        told = [_told(each, outcome.values) for each in _outputs(node)]
        node |= {"phase": "Succeeded", "outputs": {**node.get("outputs", {}), "parameters": told}}
    else:
        node |= {"phase": "Failed", "message": failure}
    status = workflow["status"]
    changed: Object = {"nodes": {waiting.node: node}}
    if status.get("compressedNodes"):
        packed = gzip.compress(orjson.dumps({**nodes_of(workflow), waiting.node: node}))
        changed = {"compressedNodes": base64.b64encode(packed).decode()}
    return {"metadata": {"resourceVersion": version_of(workflow)}, "status": changed}


def _can_be_taken_over(template: Object) -> bool:
    container = template.get("container") or {}
    used = {name for one in container.get("args") or [] for name in _VARIABLE.findall(one)}
    given = {each["name"] for each in (template.get("inputs") or {}).get("parameters") or []}
    put_out = {each["name"] for each in (template.get("outputs") or {}).get("parameters") or []}
    known = set(_OF_THE_RUN)
    known |= {f"inputs.parameters.{name}" for name in given}
    known |= {f"outputs.parameters.{name}.path" for name in put_out}
    return (
        template["name"] in _TEMPLATES
        and {key for key, value in template.items() if value} <= _TAKEN_OVER
        and bool(used)
        and used <= known
    )


def _waiting_for_outputs(template: Object) -> Object:
    """The template of a driver, waiting for its outputs instead of making them."""
    kept: Object = {key: template[key] for key in ("name", "inputs", "metadata") if key in template}
    outputs = [
        {key: each[key] for key in ("name", "default", "description") if key in each}
        | {"valueFrom": {"supplied": {}} | _only(each.get("valueFrom") or {}, "default")}
        for each in template["outputs"]["parameters"]
    ]
    return {**kept, "suspend": {}, "outputs": {**template["outputs"], "parameters": outputs}}


def _only(mapping: Object, key: str) -> Object:
    return {key: mapping[key]} if key in mapping else {}


def _filled_in(argument: str, metadata: Object, node: Object) -> str | OutputPath:
    """An argument with the values of its variables.

    Once, from left to right: what a value says is never taken for a variable, as a step's own text may hold braces.
    """
    whole = _VARIABLE.fullmatch(argument)
    path = _OUTPUT.fullmatch(whole[1]) if whole else None
    if path and path[1] in {each["name"] for each in _outputs(node)}:
        return OutputPath(path[1])
    given = {
        each["name"]: str(each.get("value", each.get("default", "")))
        for each in (node.get("inputs") or {}).get("parameters") or []
    }

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name in _OF_THE_RUN:
            return _OF_THE_RUN[name](metadata)
        one = _INPUT.fullmatch(name)
        return given.get(one[1], "") if one else found[0]

    return _VARIABLE.sub(value, argument)


def _outputs(node: Object) -> list[Object]:
    parameters: list[Object] = (node.get("outputs") or {}).get("parameters") or []
    return parameters


def _value(parameter: Object, values: Mapping[str, str]) -> str | None:
    """What a parameter is: as the driver wrote it, else what it is by default."""
    default = (parameter.get("valueFrom") or {}).get("default", parameter.get("default"))
    return values.get(parameter["name"], None if default is None else str(default))


def _told(parameter: Object, values: Mapping[str, str]) -> Object:
    kept = {key: value for key, value in parameter.items() if key != "valueFrom"}
    return {**kept, "value": _value(parameter, values)}
