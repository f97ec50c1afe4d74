"""A world for served models, the ferry model in it, and each engine that a model may be served by."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.local.serving.conftest import AS_OF, CONTRACT, FEATURES, Ferry, crossings, infer_body

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.promotion import promote, read_pointer
from support.cluster_world import IMAGES, ROOT, SERVER, Command, World, made_world, wait_until

RELEASE = "ferry"
ROWS = crossings(1, seed=5)[:4]
ENGINES = ("plain", "seldon")


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
        made.run("wait", "--for=condition=Ready", "pod/minio", "--timeout=120s", timeout=130)
        made.upload(ferry.root)
        yield made


@dataclass
class Served:
    """A release of charts/model, and what a test does with it."""

    world: World
    helm: Command
    engine: str
    ferry: Ferry

    def install(self, *settings: str) -> None:
        """Install or change the release; what is set stays set."""
        chosen = (
            "model=ferry",
            "environment=local",
            f"engine={self.engine}",
            f"network.objectStore.namespace={self.world.namespace}",
            "feedbackLog.shipEverySeconds=1",
            "resources.requests.cpu=10m",
            *settings,
        )
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
        )
        if self.engine == "seldon" and ready:
            state: str = self.world.get("seldondeployment", RELEASE).get("status", {}).get("state", "")
            return state == "Available"
        return ready

    def wait(self, seconds: float = 180) -> None:
        """Wait until it is available."""
        wait_until(self.available, f"{RELEASE} to be available with engine {self.engine}", seconds)

    def promote(self, digest: str) -> None:
        """Let the environment serve another bundle."""
        with self.world.workspace() as workspace:
            trust = open_trust_root(self.ferry.workspace)
            bundle = load_bundle(workspace, digest, trust)
            expected = read_pointer(workspace, "local", "ferry")
            promote(workspace, bundle, environment="local", expected=expected, reason="test", as_of=AS_OF)

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


class Load:
    """Requests without a pause, from a pod that may ask."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._name = "client"

    @property
    def said(self) -> dict[str, Any]:
        """What came back, once it has been stopped."""
        self._world.run("exec", self._name, "--", "touch", "/tmp/stop")  # noqa: S108 -- in the pod
        wait_until(self._ended, "the client to end", 60)
        found: dict[str, Any] = json.loads(self._world.run("logs", self._name))
        return found

    def _ended(self) -> bool:
        phase: str = self._world.get("pod", self._name)["status"]["phase"]
        assert phase != "Failed", self._world.run("logs", self._name)
        return phase == "Succeeded"


@contextlib.contextmanager
def load(world: World) -> Iterator[Load]:
    """Ask from a pod, from before the block to its end."""
    script = (ROOT / "tests" / "support" / "load_client.py").read_text()
    data = {"client.py": script, "body.json": json.dumps(infer_body(ROWS), default=str)}
    path = "/v2/models/ferry/infer"
    container = {
        "command": ["python", "/client/client.py"],
        "args": [f"{RELEASE}:9000", path, "/tmp/stop", "/client/body.json"],  # noqa: S108 -- in the pod
        "volumeMounts": [{"name": "client", "mountPath": "/client"}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    volumes = [{"name": "client", "configMap": {"name": "client"}}, {"name": "tmp", "emptyDir": {}}]
    labels = {f"access.seatrial.io/{RELEASE}": "true"}
    world.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "client"}, "data": data},
        world.pod("client", labels=labels, container=container, volumes=volumes),
    )
    try:
        world.run("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        yield Load(world)
    finally:
        world.run("delete", "pod", "client", "--wait=true")
