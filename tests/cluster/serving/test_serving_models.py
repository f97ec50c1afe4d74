"""A model is served from the object store by either engine, and nothing that it answers is lost."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import pytest
from tests.cluster.serving.conftest import ROWS, SELECTOR, Served, address_of, load, send_all
from tests.local.serving.conftest import infer_body, outputs
from tests.local.serving.protocols import COLUMNS, PROTOCOLS, prediction_ids, served_by
from tests.local.serving.test_grpc import ROWS as ASKED

from seatrial.feedback import join_outcomes
from support.cluster_world import World, wait_until

pytestmark = pytest.mark.timeout(900)
AVAILABLE_SECONDS = 10
BARE_SECONDS = 4.0
"""What a pod that does nothing takes on two cores that have nothing else to do, deleting it included."""
ASK = (
    "import sys, urllib.request as u; "
    "r = u.Request(sys.argv[1], sys.stdin.buffer.read() or None, {'content-type': 'application/json'}); "
    "sys.stdout.write(u.urlopen(r, timeout=60).read().decode())"
)


def ask(world: World, what: str, body: Any, host: str = "") -> dict[str, Any]:
    """Send one request from the client's pod, to the Service or a pod; without a body, to be told something."""
    url = f"http://{host or address_of(world)}:9000/v2/models/ferry{what}"
    content = "" if body is None else json.dumps(body, default=str)
    found: dict[str, Any] = json.loads(
        world.run("exec", "--stdin", "client", "--", "python", "-c", ASK, url, stdin=content)
    )
    return found


def bundles_of_pods(served: Served) -> list[str]:
    """Return which bundle each pod says that it serves."""
    told = [ask(served.world, "", None, pod["status"]["podIP"]) for pod in served.pods()]
    return [str(version) for one in told for version in one["versions"]]


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


@pytest.mark.long
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
        answer = ask(served.world, "/infer", infer_body(ROWS))
        found = {output["name"]: output["data"] for output in answer["outputs"]}
        told = {name: bool(number % 2) for number, name in enumerate(found["prediction_id"])}
        items = [{"prediction_id": name, "value": value} for name, value in told.items()]
        counts = ask(served.world, "/feedback", {"outcomes": items})["counts"]
    assert found["probability"] == pytest.approx(expected, abs=1e-6)
    assert sum(counts.values()) == len(told)
    wait_until(lambda: joined(served, told) == told, "the outcomes to be in the tables", 60)


@pytest.mark.long
def test_answers_over_each_protocol(served: Served) -> None:
    """REST and gRPC of both protocols are answered through the Service, and each answer is in the tables as such."""
    with served.ferry.serve() as here:
        (expected,) = outputs(here.infer(ASKED[:1]))["probability"]
    with load(served.world):
        answers = send_all(served.world, {name: write(COLUMNS) for name, write in PROTOCOLS.items()})
    names = {protocol: prediction_ids(protocol, said) for protocol, said in answers.items()}
    assert {protocol: served_by(protocol, said) for protocol, said in answers.items()} == dict.fromkeys(
        PROTOCOLS, served.ferry.digests[0]
    )
    assert {len(one) for one in names.values()} == {1}
    rows = served.arrived([name for one in names.values() for name in one])
    assert rows["probability"].to_list() == pytest.approx([expected] * len(PROTOCOLS), abs=1e-6)


def joined(served: Served, names: dict[str, bool]) -> dict[str, bool]:
    """The outcomes that the tables join to predictions."""
    with served.world.workspace() as workspace:
        rows = join_outcomes(workspace, "ferry").select("prediction_id", "outcome").drop_nulls()
    return {name: bool(value) for name, value in rows.iter_rows() if name in names}


def assert_nothing_was_dropped(said: dict[str, Any]) -> None:
    """Every request was answered with 200."""
    print(f"{said['statuses']} answers, {len(said['failures'])} failures: {said['failures'][:5]}")
    assert said["failures"] == []
    assert set(said["statuses"]) == {"200"}
    assert said["statuses"]["200"] > 50


@pytest.mark.long
def test_another_bundle_by_the_pointer(served: Served) -> None:
    """A promotion reaches every pod under load; no request is dropped and no pod is started."""
    before = {pod["metadata"]["name"] for pod in served.pods()}
    with load(served.world) as clients:
        served.promote(served.ferry.digests[1])
        wait_until(
            lambda: set(bundles_of_pods(served)) == {served.ferry.digests[1]}, "each pod to take it", 60
        )
        clients.goes_on()
        said = clients.said
    assert_nothing_was_dropped(said)
    assert said["bundles"] == served.ferry.digests
    assert {pod["metadata"]["name"] for pod in served.pods()} == before


@pytest.mark.long
def test_another_bundle_by_its_digest(served: Served) -> None:
    """A roll-out to another digest under load drops no request, and all that was answered is in the tables once."""
    served.install(f"digest={served.ferry.digests[0]}")
    served.wait()
    with load(served.world) as clients:
        served.install(f"digest={served.ferry.digests[1]}")
        served.wait()
        clients.goes_on()
        said = clients.said
    assert_nothing_was_dropped(said)
    assert said["bundles"] == served.ferry.digests
    served.arrived(said["predictions"])


@pytest.mark.long
def test_scales(served: Served) -> None:
    """More and fewer pods under load drop no request."""
    with load(served.world) as clients:
        served.scale(3)
        wait_until(lambda: served.available() and len(served.pods()) == 3, "three pods", 120)
        served.scale(1)
        wait_until(lambda: served.available() and len(served.pods()) == 1, "one pod", 120)
        clients.goes_on()
        said = clients.said
    assert_nothing_was_dropped(said)


@pytest.mark.long
def test_killed_pod_loses_nothing(served: Served) -> None:
    """What a pod had answered when it was killed for good is shipped by another one."""
    with load(served.world) as clients:
        victim = served.pods()[0]["metadata"]["name"]
        served.world.run("delete", "pod", victim, "--grace-period=0", "--force")
        served.wait()
        clients.goes_on()
        said = clients.said
    served.arrived(said["predictions"])


@pytest.mark.long
def test_bundle_that_is_not_there_is_not_rolled_out(served: Served) -> None:
    """With a digest that no bundle has, the old pods go on answering, and the next roll-out is a good one."""
    with load(served.world) as clients:
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


@pytest.mark.long
def test_strangers_are_shut_out(served: Served) -> None:
    """A pod without the label reaches no port of the model's pods; one with it does."""
    world = served.world
    with load(world):
        ask(world, "/infer", infer_body(ROWS))
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
