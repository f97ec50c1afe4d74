"""What charts/model can be set to does what it says: the privacy key, the jobs, traces, and gRPC beside REST."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.cluster.conftest import Command
from tests.cluster.serving.conftest import RELEASE, Served, load, send_all
from tests.local.serving.conftest import Ferry
from tests.local.serving.protocols import COLUMNS, PROTOCOLS, Message, prediction_ids
from tests.local.serving.test_private_fields import WITHOUT
from tests.local.serving.test_traces import ROOTS, parent

from seatrial.bundle import copy_bundle, open_trust_root
from seatrial.feedback import FeedbackLog
from seatrial.feedback.concealing import Concealer
from seatrial.feedback.ids import first_id_at
from seatrial.feedback.shipping import feedback_tables, ship
from support.cluster_world import ROOT, Object, World, wait_until
from support.feedback_records import prediction

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
COLLECTOR, PORT = "collector", 4318
MESSAGES: dict[str, Message] = {name: write(COLUMNS) for name, write in PROTOCOLS.items()}
SECRET = str(COLUMNS[0].values[0])
"""The private value in each of the messages: a crossing's id."""


@pytest.fixture(scope="module")
def discreet(ferry: Ferry, world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of a bundle whose contract hashes the crossing's id, drops its line, and keeps feedback for an hour."""
    base = tmp_path_factory.mktemp("discreet")
    made = Ferry(base / "ferry", base / "workspace")
    shutil.copytree(ferry.folder, made.folder)
    shutil.copytree(ferry.root, made.root)
    text = (made.folder / "model.yaml").read_text()
    text = text.replace("crossing_id: {type: string,", "crossing_id: {private: hash, type: string,")
    text = text.replace("line: {type: string,", "line: {private: drop, type: string,")
    (made.folder / "model.yaml").write_text(f"{text}feedback: {{retention: 1h}}\n")
    (made.folder / "features.py").write_text(WITHOUT)
    digest = made.make_bundle(seed=7, **{"features.py": WITHOUT.encode()})
    with world.workspace() as workspace:
        copy_bundle(made.workspace, workspace, digest, open_trust_root(made.workspace))
    return digest


def collector(world: World) -> list[Object]:
    """A receiver of traces in a pod, which the model's pods may reach."""
    labels = {"app.kubernetes.io/name": COLLECTOR}
    script = (ROOT / "tests" / "support" / "trace_receiver.py").read_text()
    container = {
        "command": ["python", "-c", script, str(PORT)],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    models = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "model"}}}
    return [
        world.pod(COLLECTOR, labels=labels, container=container),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": COLLECTOR},
            "spec": {"selector": labels, "ports": [{"port": PORT}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": COLLECTOR},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [models], "ports": [{"port": PORT}]}],
            },
        },
    ]


def settings(world: World) -> list[str]:
    """What the release is set to: traces that a client began are sent, and none that begin here."""
    return [
        "replicas=1",
        f"traces.endpoint=http://{COLLECTOR}.{world.namespace}:{PORT}",
        "traces.share=0",
        f"network.traceReceiver.namespace={world.namespace}",
    ]


@pytest.fixture(scope="module")
def settled(world: World, helm: Command, ferry: Ferry, discreet: str) -> Iterator[Served]:
    """The model with private fields, served by a Deployment with its settings, beside a receiver of traces."""
    made = Served(world, helm, "plain", ferry)
    world.apply(*collector(world))
    made.promote(discreet)
    made.install(*settings(world))
    try:
        world.run("wait", "--for=condition=Ready", f"pod/{COLLECTOR}", "--timeout=120s", timeout=130)
        made.wait()
        yield made
    finally:
        made.uninstall()
        world.run("delete", "pod,service,networkpolicy", COLLECTOR, "--ignore-not-found")


def asked(served: Served, **headers: str) -> list[str]:
    """Ask over each protocol, and return the ids of the predictions."""
    with load(served.world):
        answers = send_all(served.world, MESSAGES, **headers)
    return [name for protocol, said in answers.items() for name in prediction_ids(protocol, said)]


def test_private_fields_are_hashed_by_the_secret(settled: Served) -> None:
    """Over each protocol, what is recorded of a private field is its hash by the key of the environment's Secret."""
    rows = settled.arrived(asked(settled))

    key = settled.world.privacy_key.encode()
    expected = Concealer({"crossing_id": "hash"}, key).hash("crossing_id", SECRET)
    inputs = [orjson.loads(text) for text in rows["inputs"]]
    assert len(inputs) == len(PROTOCOLS)
    assert {one["crossing_id"] for one in inputs} == {expected}
    assert {one["line"] for one in inputs} == {None}
    assert SECRET not in str(rows.rows())


def spans(world: World) -> list[dict[str, Any]]:
    """Return the spans that the receiver has got so far."""
    return [json.loads(line) for line in world.run("logs", COLLECTOR, "--tail=-1").splitlines()]


def test_traces_reach_the_receiver(settled: Served) -> None:
    """A request's spans over each protocol go on with its client's trace; of requests without one, none is sent."""
    world = settled.world
    began = {protocol: parent(900 + number) for number, protocol in enumerate(PROTOCOLS)}

    def untold() -> list[str]:
        told = {span["trace"] for span in spans(world) if span["name"] in ROOTS.values()}
        return [protocol for protocol, (trace, _) in began.items() if trace not in told]

    def all_told() -> bool:
        # A receiver that a busy machine makes slow costs spans, and no answers: then the request is made again.
        for protocol in untold():
            send_all(world, {protocol: MESSAGES[protocol]}, traceparent=began[protocol][1])
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not untold(), "what was sent a moment ago", 30)
        return not untold()

    with load(world):
        wait_until(all_told, "the spans of a request over each protocol", 240)
    found = spans(world)
    assert {span["trace"] for span in found} == {trace for trace, _ in began.values()}
    assert {span["service"] for span in found} == {RELEASE}
    for protocol, (trace, _) in began.items():
        names = {span["name"] for span in found if span["trace"] == trace}
        assert {ROOTS[protocol], "queue", "inference", "log commit"} <= names, protocol


def run_job(world: World, name: str) -> str:
    """Run a job of the release now, and return what it said."""
    world.run("create", "job", f"{name}-now", f"--from=cronjob/{RELEASE}-{name}")
    wait_until(lambda: job_ended(world, f"{name}-now"), f"the job {name}", 300)
    return world.run("logs", f"job/{name}-now")


def job_ended(world: World, name: str) -> bool:
    """Whether a job has done its work; one that failed fails the test with its words."""
    status = world.get("job", name)["status"]
    assert not status.get("failed"), world.run("logs", f"job/{name}")
    return bool(status.get("succeeded"))


def test_jobs_keep_the_tables_small(settled: Served, tmp_path: Path) -> None:
    """The chart's jobs put the files together, and delete what is older than the served bundle's contract keeps."""
    world = settled.world
    young = asked(settled)
    settled.arrived(young)
    old = f"{first_id_at(datetime.now(UTC) - timedelta(hours=2))}-7000-8000-{1:012x}"
    with world.workspace() as workspace, closing(FeedbackLog(tmp_path / "log")) as log:
        log.append(prediction(old)).result()
        ship(log, feedback_tables(workspace, "ferry"))
    assert old in set(settled.recorded()["prediction_id"])

    compacted = re.search(r"predictions: ([\d,]+) files became ([\d,]+)", run_job(world, "compact"))
    retained = re.search(r"([\d,]+) predictions and", run_job(world, "retain"))

    assert compacted is not None
    assert int(compacted[1].replace(",", "")) > int(compacted[2].replace(",", ""))
    assert retained is not None
    assert int(retained[1].replace(",", "")) >= 1
    left = set(settled.recorded()["prediction_id"])
    assert old not in left
    assert set(young) <= left


def test_without_the_key_no_private_field_is_served(settled: Served) -> None:
    """A pod of the model without the Secret ends and says what is missing; the one that has it goes on answering."""
    world = settled.world
    before = {pod["metadata"]["name"] for pod in settled.pods()}
    settled.install(*settings(world), "privacyKeySecret=nobody-made-it")

    def said() -> str:
        news = [pod for pod in settled.pods() if pod["metadata"]["name"] not in before]
        ended = [pod for pod in news if _has_ended(pod)]
        return world.run("logs", ended[0]["metadata"]["name"], "--container=server") if ended else ""

    words = wait_until(said, "a pod that ends", 300)
    assert "The privacy key /etc/seatrial/privacy-key/privacy-key cannot be read" in words
    assert len(asked(settled)) == len(PROTOCOLS)
    settled.install(*settings(world))
    settled.wait()
    assert {pod["metadata"]["name"] for pod in settled.pods()} == before


def _has_ended(pod: dict[str, Any]) -> bool:
    (status,) = pod["status"].get("containerStatuses") or [{}]
    return "terminated" in {**status.get("state", {}), **status.get("lastState", {})}
