"""Who reaches whom in the platform: every port of every pod is tried from pods of each kind.

The edges below are the declared ones. They are tried on the cluster and not read from the charts, so
that a policy that is there and does nothing is found too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from support.cluster_world import Command, World, wait_until

pytestmark = pytest.mark.timeout(900)
Edge = tuple[str, int]
MORE_PORTS = {22, 80, 443, 6060, 8080, 9001}
"""Tried besides the ports that the pods declare: what listens undeclared is open as well."""
CLIENTS: dict[str, set[Edge]] = {
    "": set(),
    "minio": {("minio", 9000)},
    "mariadb": {("mariadb", 3306)},
    "mlflow": {("mlflow", 5000)},
    "pipelines": {("ml-pipeline", 8887), ("ml-pipeline", 8888)},
    "metadata": {("metadata-grpc", 8080)},
}
"""What a pod of the platform's namespace reaches, by its label ``access.seatrial.io/NAME``."""
TRY = """\
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def opens(place):
    with socket.socket() as tried:
        tried.settimeout(4)
        return tried.connect_ex(tuple(place)) == 0
places = json.loads(sys.argv[1])
with ThreadPoolExecutor(48) as threads:
    print(json.dumps([place for place, found in zip(places, threads.map(opens, places)) if found]))
"""


@dataclass
class Network:
    """The platform's pods and ports, and what a pod of some kind reaches of them."""

    kubectl: Command
    platform: str
    names: dict[str, str]
    ports: set[int]

    def reached_from(self, namespace: str, labels: dict[str, str]) -> set[Edge]:
        """Try every port of every pod from a new pod; return those that open."""
        world = World(self.kubectl, namespace)
        name = f"tries-{secrets.token_hex(4)}"
        places = [[address, port] for address in self.names for port in sorted(self.ports)]
        container = {"command": ["python", "-c", TRY, json.dumps(places)]}
        world.apply(world.pod(name, labels=labels, container=container))
        try:
            wait_until(
                lambda: world.get("pod", name)["status"]["phase"] in ("Succeeded", "Failed"), name, 240
            )
            found = json.loads(world.run("logs", name))
        finally:
            world.run("delete", "pod", name, "--wait=false")
        return {(self.names[address], port) for address, port in found}


@pytest.fixture(scope="module")
def network(kubectl: Command, platform: str) -> Network:
    """The running pods of the platform, by address, and the ports that they declare."""
    found = json.loads(kubectl("--namespace", platform, "get", "pods", "--output", "json"))["items"]
    running = [pod for pod in found if pod["status"]["phase"] == "Running" and pod["status"].get("podIP")]
    names = {
        pod["status"]["podIP"]: pod["metadata"]["labels"]["app.kubernetes.io/name"]
        for pod in running
        if "app.kubernetes.io/name" in pod["metadata"].get("labels", {})
    }
    ports = {
        port["containerPort"]
        for pod in running
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
    }
    assert {name for edges in CLIENTS.values() for name, _ in edges} <= set(names.values())
    return Network(kubectl, platform, names, ports | MORE_PORTS)


@pytest.fixture(scope="module")
def reached(network: Network) -> Iterator[dict[str, Future[set[Edge]]]]:
    """What a pod with each label reaches: some pods try at a time, as nearly all that they do is to wait."""
    with ThreadPoolExecutor(3) as threads:
        yield {
            name: threads.submit(network.reached_from, network.platform, _labels(name)) for name in CLIENTS
        }


def _labels(name: str) -> dict[str, str]:
    return {f"access.seatrial.io/{name}": "true"} if name else {}


@pytest.fixture(scope="module")
def elsewhere(kubectl: Command) -> Iterator[str]:
    """A namespace of strangers."""
    name = f"strangers-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def test_policies_are_enforced_here(kubectl: Command, elsewhere: str) -> None:
    """On this cluster a port is open without a policy and closed with one; else the other tests would say nothing."""
    world = World(kubectl, elsewhere)
    serve = {"command": ["python", "-m", "http.server", "9000", "--directory", "/tmp"]}  # noqa: S108 -- in the pod
    world.apply(world.pod("listens", labels={"app": "listens"}, container=serve))
    try:
        address = wait_until(lambda: world.get("pod", "listens")["status"].get("podIP"), "its address", 60)
        network = Network(kubectl, elsewhere, {address: "listens"}, {9000})
        wait_until(lambda: network.reached_from(elsewhere, {}) == {("listens", 9000)}, "it to listen", 90)
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "closed"},
            "spec": {"podSelector": {"matchLabels": {"app": "listens"}}, "policyTypes": ["Ingress"]},
        }
        world.apply(policy)
        wait_until(lambda: network.reached_from(elsewhere, {}) == set(), "the policy to count", 60)
    finally:
        world.run("delete", "networkpolicy/closed", "pod/listens", "--ignore-not-found", "--wait=false")


def test_strangers_reach_nothing(network: Network, elsewhere: str) -> None:
    """From another namespace no port of the platform is open, whatever labels a pod gives itself (K7)."""
    labels = {f"access.seatrial.io/{name}": "true" for name in CLIENTS if name}

    assert network.reached_from(elsewhere, {}) == set()
    assert network.reached_from(elsewhere, labels) == set()


@pytest.mark.parametrize("name", CLIENTS, ids=lambda name: name or "no label")
def test_clients_reach_what_their_label_says(reached: dict[str, Future[set[Edge]]], name: str) -> None:
    """A pod beside the platform's reaches the service that its label names, and no other port of any pod."""
    assert reached[name].result() == CLIENTS[name]


def test_environments_reach_store_and_registry(network: Network) -> None:
    """A pod of an environment's namespace reaches the object store and MLflow, and nothing else."""
    reached = network.reached_from("test", {"app": "tries"})

    assert reached == {("minio", 9000), ("mlflow", 5000)}
