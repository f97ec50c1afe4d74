"""Parts of serving go away under traffic: the object store, its key, a pod, all pods of a drained node."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import pytest
from tests.cluster.serving.conftest import RELEASE, Served, load
from tests.cluster.serving.test_serving_models import assert_nothing_was_dropped

from support.cluster_world import World, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
AWAY_SECONDS = 120
"""How long the store stays away: a dozen times as long as the log is usually held."""
plain = pytest.mark.parametrize("served", ["plain"], indirect=True)


def kill(world: World, pod: str) -> None:
    """End a pod as the loss of its node does: nothing in it is told."""
    world.run("delete", "pod", pod, "--grace-period=0", "--force")


@plain
def test_store_is_away_for_minutes(served: Served) -> None:
    """O4, F8: every request is answered without the store; all arrives when it is back, also a killed pod's, once."""
    world = served.world
    with load(world) as clients:
        world.store_goes()
        gone = time.monotonic()
        try:
            clients.goes_on()
            assert all(_is_ready(pod) for pod in served.pods())
            victim = served.pods()[0]["metadata"]["name"]
            assert clients.progress["failures"] == 0
            kill(world, victim)
            wait_until(lambda: len(served.pods()) == 2, "a pod in the place of the killed one", 60)
            while time.monotonic() - gone < AWAY_SECONDS:
                clients.goes_on()
        finally:
            world.store_comes()
        served.wait()
        clients.goes_on()
        said = clients.said
    # Those that were at the killed pod were cut off; whatever was answered is an answer.
    print(f"{said['statuses']} answers, {len(said['failures'])} failures: {said['failures'][:5]}")
    assert set(said["statuses"]) == {"200"}
    served.arrived(said["predictions"], 300)


def _is_ready(pod: dict[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])


def evict(world: World, pod: str) -> str:
    """Ask Kubernetes to move a pod elsewhere, as a node's drain does; return its refusal, if it refuses."""
    path = f"/api/v1/namespaces/{world.namespace}/pods/{pod}/eviction"
    metadata = {"name": pod, "namespace": world.namespace}
    body = json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata})
    try:
        world.kubectl("create", "--raw", path, "--filename", "-", stdin=body)
    except AssertionError as error:
        return str(error)
    return ""


@plain
def test_evicted_pods_drop_nothing(served: Served) -> None:
    """F8: pods go one after the other as a drained node's do; the budget keeps one, and no request is dropped."""
    first, second = (pod["metadata"]["name"] for pod in served.pods())
    with load(served.world) as clients:
        wait_until(lambda: evict(served.world, first) == "", "the first pod to be let go", 120)
        assert "disruption budget" in evict(served.world, second)
        wait_until(lambda: evict(served.world, second) == "", "the other pod to be let go", 180)
        wait_until(lambda: not {first, second} & _names(served), "both to be gone", 180)
        served.wait()
        clients.goes_on()
        said = clients.said
    assert_nothing_was_dropped(said)
    served.arrived(said["predictions"])


def _names(served: Served) -> set[str]:
    return {pod["metadata"]["name"] for pod in served.pods()}


@plain
def test_store_gets_another_key(served: Served) -> None:
    """O10: with a key that counts no more, pods go on answering; started anew with the new one, they ship all of it."""
    world = served.world
    with load(world) as clients:
        world.change_key(secrets.token_hex(20))
        clients.goes_on()
        world.run("rollout", "restart", f"deployment/{RELEASE}")
        served.wait()
        clients.goes_on()
        said = clients.said
    assert_nothing_was_dropped(said)
    served.arrived(said["predictions"])
