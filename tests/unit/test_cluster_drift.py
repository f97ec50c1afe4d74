"""Which differences between a cluster's objects and those of the manifests are named, and which are the API's own."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seatrial.delivery.drift import Difference, _messages, differences
from seatrial.promotion.environment import EnvironmentFile, EnvironmentFolder

RECORDED = Path(__file__).parent / "recorded"
KUBECTL = """\
#!/bin/sh
# What kubectl made of a kustomization, and what a cluster had when it was applied, were recorded.
case "$*" in
    kustomize\\ *) cat "{recorded}/objects-by-git.yaml" ;;
    "--context harbour get -k "*" --ignore-not-found --output json") cat "{answer}" ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""

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


Cluster = Callable[[dict[str, Any] | None], list[Difference]]


@pytest.fixture
def there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Let a cluster answer something, and compare it with what git says."""
    command, answer, folder = tmp_path / "bin" / "kubectl", tmp_path / "answer", tmp_path / "staging"
    command.parent.mkdir()
    command.write_text(KUBECTL.format(recorded=RECORDED, answer=answer))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    folder.mkdir()
    (folder / "kustomization.yaml").write_text("resources: []\n")
    rules = EnvironmentFile(name="staging", workspace=str(tmp_path / "workspace"))

    def compare(said: dict[str, Any] | None) -> list[Difference]:
        answer.write_text("" if said is None else json.dumps(said))
        return differences(EnvironmentFolder(rules, folder), "harbour")

    return compare


@pytest.fixture
def recorded() -> dict[str, Any]:
    """What the API server of a cluster said of objects that had just been applied."""
    found: dict[str, Any] = json.loads((RECORDED / "objects-in-a-cluster.json").read_text())
    return found


def one(recorded: dict[str, Any], kind: str, name: str = "ferry") -> dict[str, Any]:
    """Return an object of a list."""
    (found,) = (x for x in recorded["items"] if (x["kind"], x["metadata"]["name"]) == (kind, name))
    return found


def test_what_was_just_applied_has_no_difference(there_are: Cluster, recorded: dict[str, Any]) -> None:
    """Whatever an API server adds by itself to objects of nine kinds is none."""
    assert len(recorded["items"]) == 9

    assert there_are(recorded) == []


def _another_image(recorded: dict[str, Any]) -> str:
    pod = one(recorded, "Deployment")["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = "evil/server:0.1.0"
    return 'containers.server.image is "evil/server:0.1.0"; by git it is "server:0.1.0".'


def _a_container_more(recorded: dict[str, Any]) -> str:
    one(recorded, "Deployment")["spec"]["template"]["spec"]["containers"].append({"name": "miner"})
    return 'spec.template.spec.containers.miner is {"name":"miner"'


def _a_readable_key(recorded: dict[str, Any]) -> str:
    pod = one(recorded, "Deployment")["spec"]["template"]["spec"]
    (volume,) = (found for found in pod["volumes"] if found["name"] == "privacy-key")
    volume["secret"]["defaultMode"] = 0o444
    return "volumes.privacy-key.secret.defaultMode is 292; by git it is 288."


def _a_maker_more(recorded: dict[str, Any]) -> str:
    one(recorded, "ConfigMap", "trusted-makers")["data"]["mallory.pem"] = "a key"
    return 'data.mallory.pem is "a key"; by git it is not there.'


def _an_open_network(recorded: dict[str, Any]) -> str:
    one(recorded, "NetworkPolicy")["spec"]["ingress"].append({})
    return "spec.ingress is ["


def _no_budget(recorded: dict[str, Any]) -> str:
    one(recorded, "PodDisruptionBudget")["spec"]["maxUnavailable"] = "100%"
    return 'spec.maxUnavailable is "100%"; by git it is 1.'


def _another_time(recorded: dict[str, Any]) -> str:
    one(recorded, "CronJob", "ferry-compact")["spec"]["schedule"] = "0 0 1 1 *"
    return 'spec.schedule is "0 0 1 1 *"; by git it is "17 3 * * *".'


def _a_job_that_sleeps(recorded: dict[str, Any]) -> str:
    one(recorded, "CronJob", "ferry-compact")["spec"]["suspend"] = True
    return "spec.suspend is true; by git it is"


def _the_nodes_network(recorded: dict[str, Any]) -> str:
    one(recorded, "Deployment")["spec"]["template"]["spec"]["hostNetwork"] = True
    return "spec.template.spec.hostNetwork is true; by git it is not there."


def _no_service(recorded: dict[str, Any]) -> str:
    recorded["items"].remove(one(recorded, "Service"))
    return "Service ferry in staging-abc of harbour is missing."


@pytest.mark.parametrize(
    "planted",
    [
        _another_image,
        _a_container_more,
        _a_readable_key,
        _a_maker_more,
        _an_open_network,
        _no_budget,
        _another_time,
        _a_job_that_sleeps,
        _the_nodes_network,
        _no_service,
    ],
)
def test_what_somebody_changed_is_the_one_difference(
    there_are: Cluster, recorded: dict[str, Any], planted: Callable[[dict[str, Any]], str]
) -> None:
    """One place in one object of a cluster is named, and nothing else."""
    expected = planted(recorded)

    (found,) = there_are(recorded)

    assert expected in found.message
    assert found.model == ("" if planted in (_a_maker_more, _another_time, _a_job_that_sleeps) else "ferry")


def test_an_empty_cluster_misses_each(there_are: Cluster, recorded: dict[str, Any]) -> None:
    """Where nothing was applied, kubectl prints nothing; where there is one object alone, no list."""
    assert [found.message.endswith(" is missing.") for found in there_are(None)] == [True] * 9

    assert len(there_are(one(recorded, "Service"))) == 8
