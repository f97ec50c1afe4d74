"""Whether a cluster has what git's manifests say: drift of configuration, place by place.

It only reads, so whoever audits needs no right to change anything. What the API server adds by itself, such as
defaults and status, is no difference. What somebody added is one wherever lists and maps are git's alone to fill:
containers, variables, volumes, keys of ConfigMaps, selectors, resources; and a switch that somebody turned on, such as
`suspend`, `paused` or `hostNetwork`. Which bundle is served is not
compared here: that is the record's to say. Where git is ahead of it, for an approval is waited for, or behind, after a
roll-back, what is compared is what would be applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from ruamel.yaml import YAML

from seatrial.cluster.commands import run
from seatrial.delivery.declared import (
    BUNDLE_ANNOTATION,
    BUNDLE_VARIABLE,
    FOLLOWS_ANNOTATION,
    KUSTOMIZATION,
    pods_in,
)
from seatrial.delivery.recorded import YAML_OF_KUBECTL, manifests_with, recorded_files
from seatrial.promotion.environment import EnvironmentFolder

MODEL_LABEL = "seatrial.io/model"
_FILLED_BY_GIT = frozenset({"data", "limits", "matchLabels", "requests", "selector"})
"""Maps that nobody but git adds a key to."""
_TRUE_BY_DEFAULT = frozenset({"allocateLoadBalancerNodePorts", "enableServiceLinks"})
"""Switches that the API turns on by itself; all others are off where nobody says anything."""
_MISSING = object()
_LONGEST = 120

Object = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One place where a cluster does not have what git says.

    Attributes:
        model: The model whose object it is; empty for one of the whole environment.
        message: Which place, and what is there instead.
    """

    model: str
    message: str


def differences(environment: EnvironmentFolder, context: str) -> list[Difference]:
    """Return every place where a cluster does not have what an environment's manifests say, with recorded bundles.

    Args:
        environment: The environment; one without manifests has no differences.
        context: The cluster's context in the kubeconfig.

    Raises:
        ContractError: if a file does not say which bundle it names.
        StoreError: if the environment's store failed.
        ToolError: if kubectl is missing or failed.
    """
    if not (environment.folder / KUSTOMIZATION).is_file():
        return []
    yaml = YAML(typ="safe", pure=True)
    yaml.version = YAML_OF_KUBECTL
    with manifests_with(environment, recorded_files(environment)) as folder:
        made = run("kubectl", "kustomize", str(folder))
        asked = ("--context", context, "get", "-k", str(folder), "--ignore-not-found", "--output", "json")
        said = orjson.loads(run("kubectl", *asked) or "{}")
    wanted: list[Object] = [found for found in yaml.load_all(made) if found]
    found = {_identity(one): one for one in said.get("items", [said] if "kind" in said else [])}
    return [
        Difference((one["metadata"].get("labels") or {}).get(MODEL_LABEL, ""), message)
        for one in wanted
        for message in _messages(one, found.get(_identity(one)), context)
    ]


def _identity(found: Object) -> tuple[str, str, str]:
    return found["kind"], found["metadata"]["name"], found["metadata"].get("namespace", "")


def _messages(wanted: Object, found: Object | None, context: str) -> Iterator[str]:
    kind, name, namespace = _identity(wanted)
    where = f"{kind} {name} in {namespace} of {context}"
    if found is None:
        yield f"{where} is missing."
        return
    for place, by_git, there in _compare(_comparable(wanted), _comparable(found), ()):
        yield f"{where}: {'.'.join(place)} is {_shown(there)}; by git it is {_shown(by_git)}."


def _comparable(made: Object) -> Object:
    """Return an object without its identity and status, and without the bundle that it names."""
    content: Object = orjson.loads(orjson.dumps(made))
    pods = pods_in(content)
    metadata = content.pop("metadata")
    content["metadata"] = {key: metadata.get(key, {}) for key in ("labels", "annotations")}
    for noted in (content["metadata"], *(pod.get("metadata", {}) for pod in pods)):
        for name in (BUNDLE_ANNOTATION, FOLLOWS_ANNOTATION):
            noted.get("annotations", {}).pop(name, None)
    for container in (container for pod in pods for container in pod["spec"]["containers"]):
        variables = container.get("env", [])
        container["env"] = [one for one in variables if one["name"] != BUNDLE_VARIABLE]
    return {key: value for key, value in content.items() if key not in {"apiVersion", "kind", "status"}}


def _compare(
    wanted: object, found: object, place: tuple[str, ...], *, whole: bool = False
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Yield each place where ``found`` is not what is wanted, with both."""
    if isinstance(wanted, list) and isinstance(found, list):
        by_name, there = _by_name(wanted), _by_name(found)
        if by_name is not None and there is not None:
            yield from _compare(by_name, there, place, whole=True)
        elif len(wanted) == len(found):
            for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
                yield from _compare(one, other, (*place, str(number)))
        else:
            yield place, wanted, found
    elif isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            yield from _compare(value, found.get(key, _MISSING), (*place, key))
        filled = whole or (bool(place) and place[-1] in _FILLED_BY_GIT)
        for key in sorted(found.keys() - wanted.keys()):
            if filled or (found[key] is True and key not in _TRUE_BY_DEFAULT):
                yield (*place, key), _MISSING, found[key]
    elif wanted != found and not (found is _MISSING and wanted in ({}, [], None, "")):
        yield place, wanted, found


def _by_name(items: list[Any]) -> dict[str, Any] | None:
    """Return the items of a list by their names; None where they have none, or share one."""
    named = {item["name"]: item for item in items if isinstance(item, dict) and "name" in item}
    return named if len(named) == len(items) else None


def _shown(value: object) -> str:
    if value is _MISSING:
        return "not there"
    text = orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
