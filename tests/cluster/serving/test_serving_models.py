"""A model is served from the object store by either engine, and nothing that it answers is lost."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest
from tests.cluster.serving.conftest import RELEASE, ROWS, SELECTOR, Load, Served, load
from tests.local.serving.conftest import infer_body, outputs

from seatrial.feedback import join_outcomes, read_predictions
from support.cluster_world import World, wait_until

pytestmark = pytest.mark.timeout(900)
AVAILABLE_SECONDS = 10
BARE_SECONDS = 4.0
"""What a pod that does nothing takes on two cores that have nothing else to do, deleting it included."""
ASK = (
    "import sys, urllib.request as u; "
    "r = u.Request(sys.argv[1], sys.stdin.buffer.read() or None, {'content-type': 'application/json'}); "
    "sys.stdout.write(u.urlopen(r, timeout=10).read().decode())"
)


def ask(world: World, what: str, body: Any) -> dict[str, Any]:
    """Send one request from the client's pod."""
    url = f"http://{RELEASE}:9000/v2/models/ferry/{what}"
    text = world.run(
        "exec", "--stdin", "client", "--", "python", "-c", ASK, url, stdin=json.dumps(body, default=str)
    )
    found: dict[str, Any] = json.loads(text)
    return found


def ready_after(pod: dict[str, Any]) -> float:
    """Return the seconds from a pod's place on a node to its first answer."""
    times = {c["type"]: datetime.fromisoformat(c["lastTransitionTime"]) for c in pod["status"]["conditions"]}
    return (times["Ready"] - times["PodScheduled"]).total_seconds()


def bare_seconds(world: World) -> float:
    """Return the seconds that a pod takes that does nothing: how fast the machine is at this moment."""
    begun = time.monotonic()
    world.apply(world.pod("bare", container={"command": ["true"]}))
    wait_until(lambda: world.get("pod", "bare")["status"]["phase"] == "Succeeded", "a pod that ends", 120)
    world.run("delete", "pod", "bare")
    return time.monotonic() - begun


def test_available_soon(served: Served) -> None:
    """A pod answers within ten seconds of having its image; on a machine that is busy, as much later as any pod."""
    served.scale(3)
    wait_until(lambda: served.available() and len(served.pods()) == 3, "three pods", 180)
    seconds = sorted(ready_after(pod) for pod in served.pods())
    busy = max(1.0, bare_seconds(served.world) / BARE_SECONDS)

    print(f"engine {served.engine}: seconds from scheduled to ready: {seconds}, busy {busy:.1f}")
    assert seconds[0] <= AVAILABLE_SECONDS * busy


def test_answers_as_on_the_laptop(served: Served) -> None:
    """The answers are those of the same bundle served on this machine, and outcomes join them in the tables."""
    with served.ferry.serve() as here:
        expected = outputs(here.infer(ROWS))["probability"]
    with load(served.world):
        answer = ask(served.world, "infer", infer_body(ROWS))
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        told = {name: bool(number % 2) for number, name in enumerate(found["prediction_id"])}
        items = [{"prediction_id": name, "value": value} for name, value in told.items()]
        counts = ask(served.world, "feedback", {"outcomes": items})["counts"]
    assert found["probability"] == pytest.approx(expected, abs=1e-6)
    assert sum(counts.values()) == len(told)
    wait_until(lambda: joined(served, told) == told, "the outcomes to be in the tables", 60)


def joined(served: Served, names: dict[str, bool]) -> dict[str, bool]:
    """The outcomes that the tables join to predictions."""
    with served.world.workspace() as workspace:
        rows = join_outcomes(workspace, "ferry").select("prediction_id", "outcome").drop_nulls()
    return {name: bool(value) for name, value in rows.iter_rows() if name in names}


def stored(served: Served) -> list[str]:
    """The ids of the predictions that are in the tables."""
    with served.world.workspace() as workspace:
        return read_predictions(workspace, "ferry")["prediction_id"].to_list()


def assert_nothing_was_dropped(said: dict[str, Any]) -> None:
    """Every request was answered with 200."""
    print(f"{said['statuses']} answers, {len(said['failures'])} failures: {said['failures'][:5]}")
    assert said["failures"] == []
    assert set(said["statuses"]) == {"200"}
    assert said["statuses"]["200"] > 50


def test_another_bundle_by_the_pointer(served: Served) -> None:
    """A promotion reaches every pod under load; no request is dropped and no pod is started."""
    before = {pod["metadata"]["name"] for pod in served.pods()}
    with load(served.world) as clients:
        wait_for_load(served, clients)
        served.promote(served.ferry.digests[1])
        time.sleep(8)  # Each pod looks every second; the load has to go on for a while behind it.
        said = clients.said
    assert_nothing_was_dropped(said)
    assert said["bundles"] == served.ferry.digests
    assert {pod["metadata"]["name"] for pod in served.pods()} == before


def wait_for_load(served: Served, clients: Load) -> None:
    """Wait until requests have been answered, by looking at the table that they reach."""
    wait_until(lambda: served.pods() and clients, "the clients", 10)
    time.sleep(3)  # The load itself is what is waited with.


def test_another_bundle_by_its_digest(served: Served) -> None:
    """A roll-out to another digest under load drops no request, and all that was answered is in the tables once."""
    served.install(f"digest={served.ferry.digests[0]}")
    served.wait()
    with load(served.world) as clients:
        wait_for_load(served, clients)
        served.install(f"digest={served.ferry.digests[1]}")
        served.wait()
        said = clients.said
    assert_nothing_was_dropped(said)
    assert said["bundles"] == served.ferry.digests
    wait_until(lambda: set(said["predictions"]) <= set(stored(served)), "the predictions in the tables", 120)
    names = stored(served)
    assert len(set(names)) == len(names)


def test_scales(served: Served) -> None:
    """More and fewer pods under load drop no request."""
    with load(served.world) as clients:
        wait_for_load(served, clients)
        served.scale(3)
        wait_until(lambda: served.available() and len(served.pods()) == 3, "three pods", 120)
        served.scale(1)
        wait_until(lambda: served.available() and len(served.pods()) == 1, "one pod", 120)
        said = clients.said
    assert_nothing_was_dropped(said)


def test_killed_pod_loses_nothing(served: Served) -> None:
    """What a pod had answered when it was killed for good is shipped by another one."""
    with load(served.world) as clients:
        wait_for_load(served, clients)
        victim = served.pods()[0]["metadata"]["name"]
        served.world.run("delete", "pod", victim, "--grace-period=0", "--force")
        served.wait()
        said = clients.said
    assert said["statuses"]["200"] > 50
    wait_until(lambda: set(said["predictions"]) <= set(stored(served)), "the predictions in the tables", 240)


def test_bundle_that_is_not_there_is_not_rolled_out(served: Served) -> None:
    """With a digest that no bundle has, the old pods go on answering, and the next roll-out is a good one."""
    with load(served.world) as clients:
        wait_for_load(served, clients)
        served.install(f"digest={'0' * 64}")
        wait_until(lambda: failing(served), "a pod that cannot start", 120)
        served.install(f"digest={served.ferry.digests[1]}")
        served.wait()
        said = clients.said
    assert_nothing_was_dropped(said)


def failing(served: Served) -> bool:
    """Whether a container has ended with an error."""
    return any(
        (status.get("lastState") or {}).get("terminated") or status["state"].get("terminated")
        for pod in served.pods()
        for status in pod["status"].get("containerStatuses") or []
    )


def test_strangers_are_shut_out(served: Served) -> None:
    """A pod without the label reaches no port of the model's pods; one with it does."""
    world = served.world
    with load(world):
        ask(world, "infer", infer_body(ROWS))
    script = (
        "import socket, sys\n"
        "for address in sys.argv[1:]:\n"
        "    s = socket.socket(); s.settimeout(3)\n"
        "    print(address, s.connect_ex((address, 9000)))\n"
    )
    addresses = [pod["status"]["podIP"] for pod in served.pods()]
    world.apply(world.pod("stranger", container={"command": ["python", "-c", script, *addresses]}))
    try:
        wait_until(lambda: world.get("pod", "stranger")["status"]["phase"] == "Succeeded", "the stranger", 60)
        tried = dict(line.split() for line in world.run("logs", "stranger").splitlines())
    finally:
        world.run("delete", "pod", "stranger")
    assert set(tried) == set(addresses)
    assert "0" not in tried.values()
    assert world.get("pods", "", "--selector", SELECTOR)["items"]
