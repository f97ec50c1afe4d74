"""The load test in a container of the serving image: it needs docker or podman, and the image."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from tests.local.delivery.test_demands import demand, judged
from tests.local.serving.conftest import CONTRACT, Ferry

from seatrial.cluster.kind import engines
from seatrial.delivery.load_server import NAME
from seatrial.errors import GateError
from seatrial.feedback.joining import read_predictions
from seatrial.images import own_image
from seatrial.verdicts import Outcome
from support.harbour import MODEL, Harbour

IMAGE = own_image("server")
LOAD = "serving: {load: {requests_per_second: 20, p99_milliseconds: 60000}, "
HOLD = """
import sys, time
from seatrial.bundle import load_bundle
from seatrial.delivery.declared import ServingImage
from seatrial.delivery.load_server import started
from seatrial.promotion.environment import open_environment
test = open_environment("test")
workspace, trust = test.open_workspace(), test.open_trust_root()
with started(load_bundle(workspace, sys.argv[1], trust), workspace, trust, ServingImage(sys.argv[2], None, None)):
    print("it listens", flush=True)
    time.sleep(600)
"""


def engine() -> str:
    """The engine that has the image; empty where none has."""
    for name in engines()[:1]:
        asked = subprocess.run([name, "image", "inspect", IMAGE], check=False, capture_output=True)
        if asked.returncode == 0:
            return name
    return ""


pytestmark = pytest.mark.skipif(not engine(), reason=f"no container engine here has the image {IMAGE}")


def containers() -> str:
    """The ids of all containers that run a server under load."""
    listed = subprocess.run(
        [engine(), "ps", "--quiet", "--filter", f"name={NAME}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return listed.stdout.strip()


@pytest.fixture
def staged(harbour: Harbour) -> Harbour:
    """A harbour whose test environment serves a bundle that says what load it must bear."""
    ferry = Ferry(harbour.root / "models" / MODEL, harbour.root / ".seatrial")
    harbour.train(ferry.make_bundle(**{"model.yaml": CONTRACT.replace("serving: {", LOAD).encode()}))
    return harbour


def test_the_image_of_the_environment_is_asked(staged: Harbour) -> None:
    """The verdict names it; nothing is left of the container, and nothing of what was asked."""
    demand(staged, "staging", "load_test: {seconds: 2, in_image: true}")

    found = judged(staged.propose("staging", dry_run=True).verdicts, "load_test")

    assert found.outcome is Outcome.PASS
    assert found.message.startswith(f"99th percentile of 40 requests, 20 a second, to a container of {IMAGE}")
    assert found.evidence["failed"] == 0
    assert read_predictions(staged.workspace("test"), MODEL).is_empty()
    assert containers() == ""


def test_limits_of_the_environment_count(staged: Harbour) -> None:
    """A server that gets less memory than it needs does not start, and the bundle stays where it is."""
    objects = staged.root / "manifests/environments/staging" / MODEL / "objects.yaml"
    objects.write_text(objects.read_text().replace("memory: 768Mi", "memory: 48Mi"))
    demand(staged, "staging", "load_test: {seconds: 2, in_image: true}")

    with pytest.raises(GateError, match=r"load_test \(It could not be computed: The server of bundle"):
        staged.propose("staging")
    assert containers() == ""


def test_an_image_that_is_not_to_be_had(staged: Harbour) -> None:
    """The engine's words are in the verdict."""
    objects = staged.root / "manifests/environments/staging" / MODEL / "objects.yaml"
    objects.write_text(objects.read_text().replace(IMAGE, "localhost/nobody/nothing:1"))
    demand(staged, "staging", "load_test: {seconds: 2, in_image: true}")

    with pytest.raises(GateError, match=r"did not start: .*nobody/nothing"):
        staged.propose("staging")


def test_a_killed_promotion_leaves_no_container(staged: Harbour) -> None:
    """The engine keeps a container whose client died; ours ends as its input does."""
    command = [sys.executable, "-c", HOLD, str(staged.served("test")), IMAGE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holds:
        try:
            assert holds.stdout is not None
            assert holds.stdout.readline() == "it listens\n"
            assert containers() != ""
        finally:
            holds.kill()

    deadline = time.monotonic() + 30
    while containers():
        assert time.monotonic() < deadline, "the container is still there"
        time.sleep(0.2)
