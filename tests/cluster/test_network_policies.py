"""Who reaches whom in the platform: every port of every pod is tried from pods of each kind.

The edges below are the declared ones. They are tried on the cluster and not read from the charts, so
that a policy that is there and does nothing is found too.
"""

from __future__ import annotations

import base64
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward
from support.cluster_world import Command, World, wait_until
from support.kubeflow import Pipelines, chain

pytestmark = pytest.mark.timeout(900)
Edge = tuple[str, int]
MORE_PORTS = {22, 80, 443, 6060, 8080, 9001}
"""Tried besides the ports that the pods declare: what listens undeclared is open as well."""
READ_SECONDS = 20
"""How long the API gets to read a pipeline; what no policy allows it would wait for minutes for."""
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


@pytest.fixture
def listener(kubectl: Command, elsewhere: str) -> Iterator[tuple[World, str]]:
    """A stranger's web server, which says who asked it: its world, and its address."""
    world = World(kubectl, elsewhere)
    serve = {"command": ["python", "-m", "http.server", "9000", "--directory", "/tmp"]}  # noqa: S108 -- in the pod
    world.apply(world.pod("web", container=serve))
    try:
        world.run("wait", "--for=condition=Ready", "pod/web", "--timeout=120s", timeout=130)
        yield world, f"http://{world.get('pod', 'web')['status']['podIP']}:9000"
    finally:
        world.run("delete", "pod", "web", "--wait=false")


def _said_of_reading(api: str, url: str) -> str:
    """What the API of Kubeflow Pipelines says when it shall make a pipeline of what lies at an address."""
    made = {
        "pipeline": {"display_name": f"read-{secrets.token_hex(4)}"},
        "pipeline_version": {"display_name": "1", "package_url": {"pipeline_url": url}},
    }
    request = urllib.request.Request(  # noqa: S310 -- ours
        f"{api}/apis/v2beta1/pipelines/create",
        data=json.dumps(made).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=READ_SECONDS) as answer:  # noqa: S310 -- ours
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except TimeoutError:
        return "it waits"


def test_pipelines_are_read_from_no_stranger(
    pipelines: Pipelines, kubectl: Command, listener: tuple[World, str], tmp_path: Path
) -> None:
    """Whoever may ask the API cannot let it read files or ask others; the object store alone it reaches (K8)."""
    world, address = listener
    found = kubectl("get", "secret", "minio-root", "-n", pipelines.namespace, "-o", "json")
    user, password = (
        base64.b64decode(json.loads(found)["data"][key]).decode() for key in ("user", "password")
    )
    key = f"read/{secrets.token_hex(4)}.yaml"
    within = Minio("minio:9000", user, password, secure=False, region="us-east-1")
    cluster = connect(pipelines.context, pipelines.namespace)
    with Forward(cluster, *SERVICES["minio"]) as forward:
        store = Minio(forward.host, user, password, secure=False)
        store.fput_object("mlpipeline", key, str(chain(tmp_path / "chain.yaml", steps=1, seconds=0)))
    ask = f"import urllib.request as r; r.urlopen('{address}/from-itself').close()"

    with Forward(cluster, *SERVICES["pipelines-api"]) as forward:
        read = _said_of_reading(forward.address, within.presigned_get_object("mlpipeline", key))
        assert "Unexpected pipeline file format" in read  # It was read: the address ends like no file.
        assert _said_of_reading(forward.address, f"{address}/pipeline.yaml") == "it waits"
        assert "unsupported protocol scheme" in _said_of_reading(forward.address, "file:///etc/passwd")

    with pytest.raises(AssertionError, match="404"):
        world.run("exec", "web", "--", "python", "-c", ask)
    said = world.run("logs", "web")
    assert "/from-itself" in said
    assert "/pipeline.yaml" not in said
