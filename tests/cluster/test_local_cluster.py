"""``up --kind`` and ``down --kind`` with a real kind: a cluster of its own is made, used, told apart, deleted.

It needs kind, a container engine, the images of the object store and of our server, and an image for the
node: ``SEATRIAL_TEST_NODE_IMAGE``, else the one that ``kind-config.yaml`` names, where the engine has it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from seatrial.cluster import kind
from seatrial.cluster.context import MADE_CLUSTER
from seatrial.images import own_image, read_images

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
NAME = f"seatrial-own-{secrets.token_hex(3)}"
SMALL = ROOT / "charts/platform/ci/object-store-only-values.yaml"
NODE_IMAGE = os.environ.get("SEATRIAL_TEST_NODE_IMAGE", "")
REFUSED = 19


def _images() -> list[str]:
    """The images that have to be on this machine."""
    minio = next(i.reference for i in read_images(ROOT / "charts/images.yaml") if i.name == "minio")
    node: str = YAML(typ="safe").load(ROOT / kind.CONFIG)["nodes"][0]["image"]
    return [NODE_IMAGE or node, minio, own_image("server")]


def _missing() -> str:
    """Why no cluster can be made here; empty where one can."""
    if shutil.which("kind") is None or shutil.which("helm") is None or not kind.engines():
        return "there is no kind, no helm, or no container engine"
    for image in _images():
        inspected = subprocess.run(
            [kind.engine(), "image", "inspect", image], capture_output=True, check=False
        )
        if inspected.returncode != 0:
            return f"the container engine has no image {image}"
    return ""


class Place:
    """A machine without any cluster, and the command line on it."""

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.variables = {
            **os.environ,
            "COLUMNS": "300",
            "KIND_EXPERIMENTAL_PROVIDER": kind.engine(),
            kind.NAME_VARIABLE: NAME,
            "KUBECONFIG": str(self.kubeconfig),
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            command, cwd=ROOT, env=self.variables, capture_output=True, text=True, timeout=900, check=False
        )

    def seatrial(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run our command line without a terminal."""
        return self.run(str(Path(sys.executable).parent / "seatrial"), *arguments)

    def up(self) -> subprocess.CompletedProcess[str]:
        """Bring the platform up, as small as it can be."""
        image = ["--node-image", NODE_IMAGE] if NODE_IMAGE else []
        return self.seatrial("up", "--kind", *image, "--values", str(SMALL))

    def get(self, *what: str) -> Any:
        """What the cluster has."""
        found = self.run("kubectl", "--context", f"kind-{NAME}", "get", *what, "--output", "json")
        assert found.returncode == 0, found.stderr
        return json.loads(found.stdout)

    def exists(self) -> bool:
        """Whether kind has the cluster."""
        return NAME in self.run("kind", "get", "clusters").stdout.split()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The machine; the cluster is gone afterwards, whatever came of it."""
    if why := _missing():
        pytest.skip(why)
    made = Place(tmp_path_factory.mktemp("local-cluster"))
    yield made
    made.run("kind", "delete", "cluster", "--name", NAME)


@pytest.fixture(scope="module")
def first(place: Place) -> subprocess.CompletedProcess[str]:
    """What the first ``up --kind`` said, without being asked anything: the cluster was not there, so it is ours."""
    done = place.up()
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_up_makes_the_cluster_and_installs(place: Place, first: subprocess.CompletedProcess[str]) -> None:
    """It tells kind's steps; the store runs from the images of this machine, and the cluster is marked as ours."""
    told = first.stdout + first.stderr
    assert f"Making the local cluster {NAME}" in told
    assert "Preparing nodes" in told
    assert f"Loading {own_image('server')} into the cluster {NAME}" in told
    (pod,) = place.get("pods", "-n", "seatrial", "-l", "app.kubernetes.io/name=minio")["items"]
    assert all(status["ready"] for status in pod["status"]["containerStatuses"])
    assert place.get("configmap", MADE_CLUSTER, "-n", "kube-system")["data"] == {"kind": NAME}


def test_up_again_changes_nothing(place: Place, first: subprocess.CompletedProcess[str]) -> None:
    """No cluster is made, no image loaded, and no revision installed; nobody is asked."""
    assert first.returncode == 0
    releases = place.get("secrets", "-n", "seatrial", "-l", "owner=helm")["items"]

    done = place.up()

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Making" not in done.stdout
    assert "Loading" not in done.stdout
    assert place.get("secrets", "-n", "seatrial", "-l", "owner=helm")["items"] == releases


def test_what_we_did_not_make_is_not_deleted(place: Place, first: subprocess.CompletedProcess[str]) -> None:
    """Without our mark the cluster is somebody else's, also for one who says yes."""
    assert first.returncode == 0
    mark = place.get("configmap", MADE_CLUSTER, "-n", "kube-system")
    kubectl = ("kubectl", "--context", f"kind-{NAME}", "-n", "kube-system")
    assert place.run(*kubectl, "delete", "configmap", MADE_CLUSTER).returncode == 0

    done = place.seatrial("down", "--kind", "--yes")

    assert done.returncode == REFUSED
    assert "was not made by `seatrial up --kind`, so it stays" in done.stderr
    assert place.exists()
    literal = f"--from-literal=kind={mark['data']['kind']}"
    assert place.run(*kubectl, "create", "configmap", MADE_CLUSTER, literal).returncode == 0


def test_down_asks_and_deletes(place: Place, first: subprocess.CompletedProcess[str]) -> None:
    """Nobody is there to say yes, so it stays; with --yes it goes, with its context; once more there is none."""
    assert first.returncode == 0
    refused = place.seatrial("down", "--kind")
    assert refused.returncode == REFUSED
    assert "all data in it" in refused.stderr
    assert place.exists()

    done = place.seatrial("down", "--kind", "--yes")

    assert done.returncode == 0, done.stderr
    assert not place.exists()
    assert f"kind-{NAME}" not in place.run("kubectl", "config", "get-contexts", "--output=name").stdout
    assert "There is no such kind cluster." in place.seatrial("down", "--kind", "--yes").stdout
