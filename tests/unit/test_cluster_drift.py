"""Which differences between a cluster's object and that of the manifests are named, and which are the API's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from seatrial.delivery.drift import _messages

MADE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "ferry", "namespace": "staging", "annotations": {"seatrial.io/bundle": "a"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "ferry"}},
        "template": {
            "spec": {"containers": [{"name": "server", "image": "server:1", "env": []}], "volumes": []}
        },
    },
}


def there(place: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return the object as a cluster has it, with defaults, and with ``value`` at a place."""
    found = copy.deepcopy(MADE)
    found["status"] = {"replicas": 1}
    found["spec"]["progressDeadlineSeconds"] = 600
    del found["spec"]["template"]["spec"]["volumes"]
    inner: Any = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return found


CONTAINERS = ("spec", "template", "spec", "containers")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("spec", "replicas"), 1, []),
        (("metadata", "annotations"), {"seatrial.io/bundle": "b"}, []),
        (("spec", "replicas"), 3, ["spec.replicas is 3; by git it is 1."]),
        ((*CONTAINERS, 0, "image"), "server:2", ['server.image is "server:2"; by git it is "server:1".']),
        ((*CONTAINERS, 0, "env"), [{"name": "X", "value": "1"}], ["env.X is {", "by git it is not there."]),
        (("spec", "selector", "matchLabels"), {"app": "ferry", "x": "y"}, ["matchLabels.x is"]),
    ],
)
def test_places_that_differ_are_named(place: tuple[Any, ...], value: object, named: list[str]) -> None:
    """Defaults, status and the bundle are no difference; what was changed or added is one, by its place."""
    found = list(_messages(MADE, there(place, value), "kind-x"))

    assert len(found) == bool(named), found
    assert all(part in found[0] for part in named)


def test_a_missing_object_is_named() -> None:
    """An object of the manifests that the cluster does not have is one difference."""
    assert list(_messages(MADE, None, "kind-x")) == ["Deployment ferry in staging of kind-x is missing."]
