"""A world for served models, the ferry model in it, and each engine that a model may be served by."""

from __future__ import annotations

import base64
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
from tests.local.serving.conftest import AS_OF, CONTRACT, FEATURES, Ferry, crossings, infer_body
from tests.local.serving.protocols import Message, Said, is_grpc, read_grpc, read_rest

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.feedback.joining import read_recorded
from seatrial.promotion import promote, read_pointer
from support.cluster_world import IMAGES, ROOT, SERVER, Command, World, made_world, wait_until

RELEASE = "ferry"
REST_PORT, GRPC_PORT = 9000, 9500
JSON = {"content-type": "application/json"}
ROWS = crossings(1, seed=5)[:4]
ENGINES = ("plain", "seldon")
STOP = "/tmp/stop"  # noqa: S108 -- in the client's pod
"""The file that ends the requests of a :class:`Load`."""


@pytest.fixture(scope="session")
def ferry(tmp_path_factory: pytest.TempPathFactory) -> Ferry:
    """The model, trained here, with two signed bundles, of which the first is served."""
    base = tmp_path_factory.mktemp("ferry")
    folder = base / "ferry"
    folder.mkdir()
    (folder / "model.yaml").write_text(CONTRACT)
    (folder / "features.py").write_text(FEATURES)
    made = Ferry(folder, base / "workspace")
    made.ingest(crossings(31))
    for seed in range(2):
        made.make_bundle(seed=seed)
    made.promote(made.digests[0])
    return made


@pytest.fixture(scope="session")
def world(kubectl: Command, ferry: Ferry) -> Iterator[World]:
    """The namespace with the object store, in which the model's workspace is."""
    trusted = {path.name: path.read_text() for path in (ferry.root / "keys" / "trusted").glob("*.pem")}
    with made_world(kubectl, trusted) as made:
        for image in (SERVER, IMAGES["minio"]):
            if why := made.missing_image(image):
                pytest.skip(why)
        made.store_comes()
        made.upload(ferry.root)
        yield made


@dataclass
class Served:
    """A release of charts/model, and what a test does with it."""

    world: World
    helm: Command
    engine: str
    ferry: Ferry
    _digest: str | None = None

    def install(self, *settings: str) -> None:
        """Install the release, or change it to these settings beside those that all tests have."""
        chosen = (
            "model=ferry",
            "environment=local",
            f"engine={self.engine}",
            f"network.objectStore.namespace={self.world.namespace}",
            "feedbackLog.shipEverySeconds=1",
            "resources.requests.cpu=10m",
            "grpc=true",
            *settings,
        )
        values = dict(setting.split("=", 1) for setting in chosen)
        self._digest = values.get("digest")
        arguments = ["upgrade", "--install", RELEASE, str(ROOT / "charts" / "model")]
        self.helm(*arguments, "--namespace", self.world.namespace, "--set", ",".join(chosen))

    def uninstall(self) -> None:
        """Remove the release with its claim, and wait until its pods are gone."""
        self.helm("uninstall", RELEASE, "--namespace", self.world.namespace, "--ignore-not-found")
        self.world.run("wait", "--for=delete", "pod", "--selector", SELECTOR, "--timeout=120s", timeout=130)
        self.world.run("delete", "pvc", f"{RELEASE}-feedback-log", "--ignore-not-found")

    def deployment(self) -> dict[str, Any]:
        """Return the Deployment of the model's pods, whoever made it."""
        found: list[dict[str, Any]] = self.world.get("deployments", "", "--selector", SELECTOR)["items"]
        return found[0] if found else {}

    def pods(self) -> list[dict[str, Any]]:
        """Return the model's pods that are not being stopped."""
        found = self.world.get("pods", "", "--selector", SELECTOR)["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    def available(self) -> bool:
        """Whether all that was asked for is there, and nothing else; for Seldon, by its own status too."""
        made = self.deployment()
        status, wanted = made.get("status") or {}, (made.get("spec") or {}).get("replicas")
        ready = (
            bool(made)
            and status.get("observedGeneration") == made["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("availableReplicas") == wanted
            and status.get("replicas") == wanted
            and _bundle_of(made) == self._digest
        )
        if self.engine == "seldon" and ready:
            state: str = self.world.get("seldondeployment", RELEASE).get("status", {}).get("state", "")
            return state == "Available"
        return ready

    def wait(self, seconds: float = 420) -> None:
        """Wait until it is available."""
        wait_until(self.available, f"{RELEASE} to be available with engine {self.engine}", seconds)

    def promote(self, digest: str) -> None:
        """Let the environment serve another bundle."""
        with self.world.workspace() as workspace:
            trust = open_trust_root(self.ferry.workspace)
            bundle = load_bundle(workspace, digest, trust)
            expected = read_pointer(workspace, "local", "ferry")
            promote(workspace, bundle, environment="local", expected=expected, reason="test", as_of=AS_OF)

    def recorded(self) -> pl.DataFrame:
        """Return the predictions as they are in the tables; one that was shipped twice would be there twice."""
        with self.world.workspace() as workspace:
            return read_recorded(workspace, "ferry").collect()

    def arrived(self, names: list[str], seconds: float = 240) -> pl.DataFrame:
        """Wait until answered predictions are in the tables, check that each is there once, and return their rows."""
        answered = set(names)
        wait_until(
            lambda: answered <= set(self.recorded()["prediction_id"]),
            "the predictions in the tables",
            seconds,
        )
        rows = self.recorded().filter(pl.col("prediction_id").is_in(sorted(answered)))
        print(f"{len(answered)} answered, {rows.height} rows in the tables")
        assert rows.height == len(answered) == len(names)
        return rows

    def scale(self, replicas: int) -> None:
        """Ask for another number of pods, as people do."""
        kind = "deployment" if self.engine == "plain" else "seldondeployment"
        self.world.run("scale", f"{kind}/{RELEASE}", f"--replicas={replicas}")


SELECTOR = f"app.kubernetes.io/name=model,app.kubernetes.io/instance={RELEASE}"


@pytest.fixture(scope="session")
def operator(world: World, helm: Command) -> None:
    """Seldon's operator for the namespace; skips where its image cannot be had."""
    if why := world.missing_image(IMAGES["seldon-operator"]):
        pytest.skip(why)
    chart = str(ROOT / "charts" / "serving")
    helm("install", "serving", chart, "--namespace", world.namespace, "--wait", "--timeout", "3m")


@pytest.fixture(params=ENGINES)
def served(request: pytest.FixtureRequest, world: World, helm: Command, ferry: Ferry) -> Iterator[Served]:
    """The model, served by each engine in two pods, and removed again."""
    if request.param == "seldon":
        request.getfixturevalue("operator")
    made = Served(world, helm, request.param, ferry)
    made.promote(ferry.digests[0])
    made.install()
    try:
        made.wait()
        yield made
    finally:
        made.uninstall()


def _bundle_of(deployment: dict[str, Any]) -> str | None:
    """The digest that a Deployment gives its pods, if any: an operator takes a while to hand on what changed."""
    (server,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value") for one in server["env"]}.get("BUNDLE")


class Load:
    """Requests without a pause, from a pod that may ask."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._name = "client"

    @property
    def progress(self) -> Counter[str]:
        """How many requests have got ``answers`` so far, and how many were ``failures``."""
        shown = f"cat {STOP}.progress || echo '{{}}'"
        return Counter(json.loads(self._world.run("exec", self._name, "--", "sh", "-c", shown)))

    def goes_on(self, requests: int = 50) -> None:
        """Return once that many further requests have been answered."""
        wanted = self.progress["answers"] + requests
        wait_until(lambda: self.progress["answers"] >= wanted, f"{requests} further answers", 120)

    @property
    def said(self) -> dict[str, Any]:
        """What came back, once it has been stopped."""
        self._world.run("exec", self._name, "--", "touch", STOP)
        wait_until(self._ended, "the client to end", 120)
        found: dict[str, Any] = json.loads(self._world.run("logs", self._name))
        return found

    def _ended(self) -> bool:
        phase: str = self._world.get("pod", self._name)["status"]["phase"]
        assert phase != "Failed", self._world.run("logs", self._name)
        return phase == "Succeeded"


def address_of(world: World) -> str:
    """Return the Service's own address: a name is resolved by others, who on a busy machine may be late."""
    address: str = world.get("service", RELEASE)["spec"]["clusterIP"]
    return address


@contextlib.contextmanager
def load(world: World, *, pause: float = 0.02, gateway: str = "") -> Iterator[Load]:
    """Ask from a pod, from before the block to its end.

    Args:
        world: The namespace.
        pause: Seconds between two requests of each thread.
        gateway: Address of a mesh's gateway, by which it asks; empty: it asks the model's Service.
    """
    script = (ROOT / "tests" / "support" / "load_client.py").read_text()
    data = {"client.py": script, "body.json": json.dumps(infer_body(ROWS), default=str)}
    path = "/v2/models/ferry/infer"
    host = gateway or f"{address_of(world)}:{REST_PORT}"
    if gateway:
        path = f"/seldon/{world.namespace}/{RELEASE}{path}"
    container = {
        "command": ["python", "/client/client.py"],
        "args": [host, path, STOP, "/client/body.json", f"{pause:g}"],
        "volumeMounts": [{"name": "client", "mountPath": "/client"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    volumes = [{"name": "client", "configMap": {"name": "client"}}, {"name": "tmp", "emptyDir": {}}]
    labels = {f"access.seatrial.io/{RELEASE}": "true"}
    world.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "client"}, "data": data},
        world.pod("client", labels=labels, container=container, volumes=volumes),
    )
    try:
        world.run("wait", "--for=condition=Ready", "pod/client", "--timeout=120s", timeout=130)
        clients = Load(world)
        clients.goes_on(10)
        yield clients
    finally:
        world.run("delete", "pod", "client", "--wait=true")


def send_all(world: World, messages: dict[str, Message], **headers: str) -> dict[str, Said]:
    """Send requests of any protocols through the Service from the client's pod, and read what is said to each."""
    host = address_of(world)
    requests = {
        name: {
            "address": f"{host}:{GRPC_PORT if is_grpc(name) else REST_PORT}",
            "path": message.path,
            "body": base64.b64encode(message.body).decode(),
            "headers": {**({} if is_grpc(name) else JSON), **message.headers, **headers},
        }
        for name, message in messages.items()
    }
    script = (ROOT / "tests" / "support" / "protocol_client.py").read_text()
    said = json.loads(
        world.run("exec", "--stdin", "client", "--", "python", "-c", script, stdin=json.dumps(requests))
    )
    answers = {}
    for name, message in messages.items():
        content = base64.b64decode(said[name]["body"])
        size = said[name]["headers"].get("inference-header-content-length")
        answers[name] = (
            read_grpc(message.path, content)
            if is_grpc(name)
            else read_rest(said[name]["status"], content, size)
        )
    return answers
