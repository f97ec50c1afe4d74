"""The command line on a real cluster: what it touches, what it says, and that a run can be followed."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from seatrial.cluster.context import connect
from seatrial.cluster.kubeflow import Kubeflow

pytestmark = pytest.mark.timeout(2400)
Command = Callable[..., str]
Seatrial = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
HERE = f"command-line-{secrets.token_hex(3)}"
"""A namespace of these tests' own."""
PATIENCE_SECONDS = 900
"""What a command, or Kubernetes, may take at most on a machine that has much else to do."""
_EXECUTABLE = str(Path(sys.executable).parent / "seatrial")


@pytest.fixture(scope="module")
def seatrial(context: str) -> Seatrial:
    """Run the command line without a terminal, as a script would."""

    def run(*arguments: str, timeout: float = PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [_EXECUTABLE, *arguments],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "300", "SEATRIAL_CONTEXT": context},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture
def namespace(kubectl: Command) -> Iterator[str]:
    """An empty namespace that is deleted afterwards."""
    kubectl("create", "namespace", HERE)
    yield HERE
    kubectl("delete", "namespace", HERE, timeout=PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def up(seatrial: Seatrial, platform: str) -> str:
    """The platform, which the command line has taken over from Helm."""
    done = seatrial("up", "--namespace", platform, "--yes", timeout=1500)
    assert done.returncode == 0, done.stderr
    return platform


def deployment(
    name: str, container: dict[str, Any], volumes: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A Deployment of one container."""
    labels = {"app": name}
    pod = {
        "containers": [{"name": "main", **container}],
        "volumes": volumes or [],
        "terminationGracePeriodSeconds": 0,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": HERE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def broken_parts(image: str) -> list[dict[str, Any]]:
    """A part for each way in which one can be broken."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "no-class", "namespace": HERE},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "no-such-class",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    say_and_die = ["python3", "-c", "import sys; print('the reactor is hot', flush=True); sys.exit(3)"]
    eat = ["python3", "-c", "x = []\nwhile True: x.append(bytearray(2**22))"]
    return [
        claim,
        deployment("a-not-pulled", {"image": "localhost/no/such-image:1.0"}),
        deployment("b-too-large", {"image": image, "resources": {"requests": {"memory": "900Gi"}}}),
        deployment("c-crashes", {"image": image, "command": say_and_die}),
        deployment("d-hungry", {"image": image, "command": eat, "resources": {"limits": {"memory": "64Mi"}}}),
        deployment(
            "e-no-volume",
            {"image": image, "volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            [{"name": "data", "persistentVolumeClaim": {"claimName": "no-class"}}],
        ),
        deployment("f-no-secret", {"image": image, "envFrom": [{"secretRef": {"name": "no-such-secret"}}]}),
    ]


WORDS = {
    "a-not-pulled": "the image localhost/no/such-image:1.0 can't be pulled",
    "b-too-large": "no node has room for it: it asks for 900Gi of memory",
    "c-crashes": r"crashed .*\(exit code 3\); it said last: the reactor is hot",
    "d-hungry": r"was killed for want of memory \(its limit is 64Mi\)",
    "e-no-volume": "its volume claim no-class wants the storage class 'no-such-class', which is not there",
    "f-no-secret": 'can\'t start: .*secret "no-such-secret" not found',
}


@pytest.mark.long
def test_status_says_in_words_what_is_broken(
    seatrial: Seatrial, kubectl: Command, platform: str, namespace: str
) -> None:
    """Each way of being broken is named with its cause, and with what to do, and the command fails."""
    image = _an_image(kubectl, platform)
    kubectl("label", "namespace", HERE, "seatrial.io/platform=true")
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": broken_parts(image)}),
    )

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = seatrial("status", "--namespace", HERE, "--json")
        found = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
        wrong = {name for name, words in WORDS.items() if not re.search(words, found[name]["why"])}
        if not wrong:
            break
        assert time.monotonic() < deadline, {name: found[name] for name in wrong}
        time.sleep(2)

    assert {part["state"] for part in found.values()} == {"broken"}
    assert all(part["remedy"] for part in found.values())
    assert done.returncode == 18


def _an_image(kubectl: Command, platform: str) -> str:
    """An image with Python in it that the cluster has: the one that our own parts run in."""
    listed = json.loads(kubectl("get", "pods", "-n", platform, "-o", "json"))["items"]
    images: set[str] = {
        c["image"]
        for pod in listed
        for c in pod["spec"]["containers"] + pod["spec"].get("initContainers", [])
    }
    return next(image for image in sorted(images) if "/seatrial/server:" in image)


def test_a_cluster_that_is_not_ours_is_not_touched(
    seatrial: Seatrial, kubectl: Command, namespace: str
) -> None:
    """Without --yes nothing is installed; the error names context and plan, and the namespace stays empty."""
    done = seatrial("up", "--namespace", HERE)

    assert done.returncode == 19
    assert "Seatrial did not install there" in done.stderr
    assert "--yes" in done.stderr
    assert kubectl("get", "secrets,deployments,jobs", "-n", HERE, "-o", "name") == ""


def test_a_namespace_with_other_owners_is_refused(
    seatrial: Seatrial, kubectl: Command, namespace: str
) -> None:
    """Also with --yes: what runs there is named, and another namespace is asked for."""
    kubectl("create", "deployment", "cart", "-n", HERE, "--image", "localhost/no/such-image:1.0")

    done = seatrial("up", "--namespace", HERE, "--yes")

    assert done.returncode == 18
    assert f"The namespace {HERE} has other owners: in it are cart." in done.stderr


def test_a_platform_that_is_too_large_is_refused(seatrial: Seatrial, namespace: str, tmp_path: Path) -> None:
    """What is asked for is held against what the nodes have, before anything is installed."""
    values = tmp_path / "values.yaml"
    values.write_text("minio: {resources: {requests: {memory: 900Gi}, limits: {memory: 900Gi}}}\n")

    done = seatrial("up", "--namespace", HERE, "--yes", "--values", str(values))

    assert done.returncode == 18
    assert "The cluster is too small: the platform asks for" in done.stderr


def test_the_second_up_does_nothing(seatrial: Seatrial, kubectl: Command, up: str) -> None:
    """It finds chart and values installed and everything healthy, and Helm makes no new revision."""
    before = kubectl("get", "secrets", "-n", up, "-l", "owner=helm", "-o", "name")

    done = seatrial("up", "--namespace", up)

    assert done.returncode == 0, done.stderr
    assert "nothing was to be done" in done.stdout
    assert kubectl("get", "secrets", "-n", up, "-l", "owner=helm", "-o", "name") == before


def test_a_healthy_platform_is_said_to_be(seatrial: Seatrial, up: str) -> None:
    """Every part is healthy, and the command exits with 0."""
    done = seatrial("status", "--namespace", up, "--json")

    found = json.loads(done.stdout)
    assert found["healthy"], [part for part in found["parts"] if part["state"] != "healthy"]
    assert {"minio", "mariadb", "ml-pipeline", "mlflow"} <= {part["name"] for part in found["parts"]}
    assert done.returncode == 0


@pytest.mark.long
def test_a_contract_that_is_not_in_the_image_ends_the_run(seatrial: Seatrial, up: str) -> None:
    """The step's own error comes through, with its exit code and where the contract is read from."""
    done = seatrial("submit", "training", "-p", "model=no-such-model", "--namespace", up)

    assert done.returncode in {2, 3}, done.stdout + done.stderr
    assert "no-such-model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_parameter_that_is_wrong_starts_nothing(seatrial: Seatrial, up: str) -> None:
    """It is refused before a run is made, with the parameters that there are."""

    def runs() -> set[str]:
        """Those of this pipeline, by id: how earlier ones are going may change, and a schedule may start others."""
        listed = json.loads(seatrial("runs", "--namespace", up, "--json").stdout)
        return {run["id"] for run in listed if run["name"].startswith("training-")}

    before = runs()

    done = seatrial("submit", "training", "-p", "modle=flights", "--namespace", up)

    assert done.returncode == 2
    assert "'modle=flights' is no key=value of this pipeline" in done.stderr
    assert runs() == before


@pytest.mark.long
def test_a_run_is_followed_listed_and_read(seatrial: Seatrial, up: str) -> None:
    """Steps are told as they end, verdicts at the end; the run is listed, and a step's log can be read."""
    place = ("--namespace", up)
    done = seatrial(
        "submit", "training", "-p", "model=flights", "-p", "as_of=2013-04", "--json", *place, timeout=1500
    )

    assert done.returncode in {0, 9}, done.stderr
    ended = json.loads(done.stdout)
    # Steps of a pipeline within are told with its name: "learning/train".
    told = {name.rpartition("/")[2] for name in re.findall(r"✓ (\S+)", done.stderr)}
    assert {"ingest", "train", "gates", "report"} <= told, done.stderr
    assert ended["verdicts"]
    assert (done.returncode == 9) == bool(ended["failed_gates"])
    assert ended["look_at"]["report"].startswith("s3://")
    listed = json.loads(seatrial("runs", *place, "--json").stdout)
    assert next(run for run in listed if run["id"] == ended["run"])["state"] == "SUCCEEDED"
    assert "seatrial: " in seatrial("logs", ended["run"][:8], "train", *place).stdout


def test_the_same_pipeline_is_uploaded_once(seatrial: Seatrial, context: str, up: str) -> None:
    """Two runs of it are of one version."""
    arguments = ("submit", "training", "-p", "model=no-such-model", "--detach", "--json", "--namespace", up)

    first, second = (json.loads(seatrial(*arguments).stdout) for _ in range(2))
    with Kubeflow(connect(context, up)) as kubeflow:
        for started in (first, second):
            kubeflow.stop(started["run"])

    assert first["version"] == second["version"]
    assert first["run"] != second["run"]


def test_a_recurring_run_is_made_replaced_and_removed(seatrial: Seatrial, up: str) -> None:
    """One of the same name takes the other's place, and removing it leaves none."""
    name, place = "nightly", ("--namespace", up)
    make = ("schedule", "create", "training", "-p", "model=flights", "--name", name, *place)
    for cron in ("0 3 * * *", "0 4 * * *"):
        assert seatrial(*make, "--cron", cron).returncode == 0

    listed = [
        s for s in json.loads(seatrial("schedule", "list", *place, "--json").stdout) if s["name"] == name
    ]
    removed = seatrial("schedule", "remove", name, *place)
    after = [
        s for s in json.loads(seatrial("schedule", "list", *place, "--json").stdout) if s["name"] == name
    ]

    assert [(s["cron"], s["parameters"]["model"]) for s in listed] == [("0 0 4 * * *", "flights")]
    assert removed.returncode == 0, removed.stderr
    assert after == []


def test_a_part_is_opened_until_ctrl_c(context: str, up: str) -> None:
    """What is printed answers, also after kubectl has died; Ctrl-C ends it and kubectl, and frees the port."""
    command = [_EXECUTABLE, "open", "mlflow", "--context", context, "--namespace", up, "--at", "/health"]
    # A shell starts what is in its background with Ctrl-C ignored, and children inherit that, but not a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        address = line.removeprefix("mlflow: ").strip()
        assert _answers(address)
        died = _kubectl_of(process)
        died.kill()
        died.wait(PATIENCE_SECONDS)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(address):
            assert time.monotonic() < deadline, f"{address} did not come back"
            time.sleep(0.2)
        kubectl = _kubectl_of(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_SECONDS) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        process.kill()
        process.communicate()

    assert not kubectl.is_running()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=60)  # noqa: S310 -- of this machine


def _kubectl_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The forwarding that a command keeps up."""
    (found,) = psutil.Process(process.pid).children()
    return found


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310 -- of this machine
            return bool(answer.status == 200)
    except OSError:
        return False


def test_down_asks_always(seatrial: Seatrial, up: str) -> None:
    """Without a terminal and without --yes nothing is taken down, also where the platform is ours."""
    done = seatrial("down", "--namespace", up)

    assert done.returncode == 19
    assert "keep its volumes" in done.stderr
    assert seatrial("status", "--namespace", up).returncode == 0
