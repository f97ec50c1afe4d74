"""Monitoring as a recurring run: live traffic drifts, one run of the schedule trains again, and the next one does not.

It has a workspace of its own, below that of the environment: a copy of what the training run left there, without
what was ever served or fired. So it can be run again, and disturbs no other test.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from minio import Minio
from minio.commonconfig import CopySource
from tests.cluster.conftest import AS_OF, ENVIRONMENT, Command, TrainingRun

from seatrial.cluster.context import Cluster, connect
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.cluster.kubeflow import Kubeflow, Run
from seatrial.cluster.submit import read_logs
from seatrial.cluster.workflow import Workflow
from seatrial.contract import load_contract
from seatrial.errors import ClusterError
from seatrial.feedback import read_predictions
from seatrial.model_check import load_features
from seatrial.promotion import read_pointer
from seatrial.registry import TRACKING_VARIABLE, list_versions
from seatrial.replay import ReplayResult, replay
from seatrial.report import monitor_key, report_key
from seatrial.sources import read_source
from seatrial.triggers import course, trigger_log
from seatrial.workspace import WORKSPACE_VARIABLE, Workspace
from support.cluster_world import wait_until
from support.kubeflow import ENDED

pytestmark = pytest.mark.timeout(2400)
ROOT = Path(__file__).parents[2]
SEATRIAL = str(Path(sys.executable).with_name("seatrial"))
MODEL = "flights"
RELEASE = "watched"
COPIED = (
    "bundles/",
    "environments/",
    "tested/",
    *(f"tables/{MODEL}/{x}/" for x in ("raw", "valid", "quarantine")),
)
"""What the training run left that a server and a monitor need."""
EVERY_HALF_MINUTE = "*/30 * * * * *"
WINDOW = "31d"
ROWS = 1500
"""Requests of a round of traffic: the contract's monitor wants 1,000."""
STEPS_OF_LEARNING = {"features", "split", "train", "evaluate", "gates", "bundle", "report", "register"}
ASKS = "asks for a retraining"
"""What a trigger says of a rule whose cause it sees, whether it fires or not."""
START_SECONDS, RUN_SECONDS = 300, 1500


@dataclass(frozen=True)
class Place:
    """The workspace of these tests, and the platform that it is on.

    Attributes:
        cluster: The platform.
        address: The workspace's address.
        settings: The environment's variables, with this workspace's address.
    """

    cluster: Cluster
    address: str
    settings: dict[str, str]

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """Open the workspace and the registry from here."""
        with (
            Forward(self.cluster, *SERVICES["minio"]) as store,
            Forward(self.cluster, *SERVICES["mlflow"]) as registry,
            pytest.MonkeyPatch.context() as variables,
        ):
            for name, value in self.settings.items():
                variables.setenv(name, value)
            variables.setenv("AWS_ENDPOINT_URL", store.address)
            variables.setenv(TRACKING_VARIABLE, registry.address)
            yield Workspace.open(self.address)

    def fill(self) -> None:
        """Copy what the training run left, within the object store."""
        source = self.address.rpartition("/")[0]
        bucket, _, prefix = source.removeprefix("s3://").partition("/")
        target = self.address.removeprefix(f"s3://{bucket}/")
        with Forward(self.cluster, *SERVICES["minio"]) as forward:
            keys = (self.settings["AWS_ACCESS_KEY_ID"], self.settings["AWS_SECRET_ACCESS_KEY"])
            store = Minio(forward.address.removeprefix("http://"), *keys, secure=False, region="us-east-1")
            for entry in store.list_objects(bucket, prefix=f"{prefix}/", recursive=True):
                key = str(entry.object_name).removeprefix(f"{prefix}/")
                if key.startswith(COPIED):
                    store.copy_object(bucket, f"{target}/{key}", CopySource(bucket, str(entry.object_name)))


@pytest.fixture(scope="module")
def place(context: str, platform: str, kubectl: Command, training_run: TrainingRun) -> Place:
    """A workspace in which a trained model is served, and nothing was ever asked or fired."""
    assert training_run.workflow.succeeded, training_run.workflow
    found = json.loads(kubectl("get", "secret", f"environment-{ENVIRONMENT}", "-n", platform, "-o", "json"))
    settings = {name: base64.b64decode(value).decode() for name, value in found["data"].items()}
    address = f"{settings[WORKSPACE_VARIABLE]}/watched-{secrets.token_hex(4)}"
    made = Place(connect(context, platform), address, settings | {WORKSPACE_VARIABLE: address})
    made.fill()
    with made.workspace() as workspace:
        assert read_pointer(workspace, ENVIRONMENT, MODEL).digest, "the training run has promoted nothing"
    return made


@pytest.fixture(scope="module")
def served(context: str, place: Place, kubectl: Command, helm: Command) -> Iterator[Cluster]:
    """The model, served by charts/model in the environment's namespace: yields where."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": RELEASE, "namespace": ENVIRONMENT},
        "stringData": place.settings,
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    chosen = {
        "model": MODEL,
        "environment": ENVIRONMENT,
        "environmentSecret": RELEASE,
        "replicas": 1,
        "feedbackLog.volume": "emptyDir",
        "feedbackLog.shipEverySeconds": 1,
        "network.objectStore.namespace": place.cluster.namespace,
    }
    settings = ",".join(f"{key}={value}" for key, value in chosen.items())
    release = (RELEASE, "--namespace", ENVIRONMENT)
    helm("uninstall", *release, "--ignore-not-found", "--wait")
    helm("install", *release, str(ROOT / "charts" / "model"), "--set", settings, "--wait", "--timeout", "5m")
    yield connect(context, ENVIRONMENT)
    helm("uninstall", *release)
    kubectl("delete", "secret", RELEASE, "-n", ENVIRONMENT)


def ask(place: Place, served: Cluster) -> ReplayResult:
    """Send a round of drifted traffic, and wait until all that was answered is in the tables.

    The newest flights of the window, as an airline would send them that came in yesterday: its planes and
    airports are known to nobody, and it flies far.
    """
    contract = load_contract(ROOT / "models" / MODEL)
    known_at = load_features(contract).known_at
    assert known_at is not None
    rows = (
        read_source(contract, MODEL)
        .filter(pl.col("scheduled_departure") < datetime.fromisoformat(AS_OF))
        .sort("scheduled_departure")
        .tail(ROWS)
        .with_columns(
            pl.lit("N00000").alias("tailnum"),
            pl.lit("XXX").alias("dest"),
            pl.col("distance") + 3000,
            pl.col("scheduled_arrival") + timedelta(hours=6),
            pl.lit(None, pl.Boolean).alias("late"),
        )
    )
    with Forward(served, RELEASE, 9000) as forward:
        answered = asyncio.run(
            replay(
                contract.contract, rows, forward.address, known_at=known_at, slot="1d", rows_per_request=250
            )
        )
    assert answered.errors == []
    names = set(answered.prediction_ids.values())

    def stored() -> bool:
        with place.workspace() as workspace:
            return names <= set(read_predictions(workspace, MODEL)["prediction_id"])

    wait_until(stored, "the predictions in the tables", 180)
    return answered


@dataclass(frozen=True)
class Story:
    """What came of the recurring run.

    Attributes:
        champion: Digest of the bundle that served before.
        first: Its first run, ended.
        later: Its later runs, up to the one that saw the drift again.
        watched: What the monitor of the last one said.
        decided: What the trigger of the last one said.
    """

    champion: str
    first: Workflow
    later: list[Workflow]
    watched: str
    decided: str


@pytest.fixture(scope="module")
def story(place: Place, served: Cluster) -> Story:
    """Drifted traffic, the run of the schedule that trains for it, drifted traffic again, and a run after that."""
    (champion,) = ask(place, served).bundles
    with Kubeflow(place.cluster) as kubeflow, scheduled(place, kubeflow) as schedule:
        first = ended(kubeflow, nth_run(kubeflow, schedule, 0))
        assert first.succeeded, first
        with place.workspace() as workspace:
            serves = read_pointer(workspace, ENVIRONMENT, MODEL).digest
        wait_until(
            lambda: set(ask(place, served).bundles) == {serves}, "the server to take the challenger", 300
        )
        later: list[Workflow] = []
        said = {"trigger": ""}
        while ASKS not in said["trigger"]:
            # One that had begun before the traffic came has seen none of it.
            run = nth_run(kubeflow, schedule, 1 + len(later))
            later.append(ended(kubeflow, run))
            said = {step: read_logs(place.cluster, run.id, step)[-1].text for step in ("monitor", "trigger")}
    return Story(champion, first, later, said["monitor"], said["trigger"])


@contextmanager
def scheduled(place: Place, kubeflow: Kubeflow) -> Iterator[str]:
    """Make the recurring run by the command line; what it has started and still runs is stopped with it."""
    name = f"watched-{secrets.token_hex(4)}"
    parameters = {
        "model": MODEL,
        "workspace": place.address,
        "start": WINDOW,
        "as_of": AS_OF,
        "draw_drift": "false",
    }
    there = ("--context", place.cluster.context, "--namespace", place.cluster.namespace, "--yes")
    arguments = [word for key, value in parameters.items() for word in ("-p", f"{key}={value}")]
    command = [SEATRIAL, "schedule", "create", "monitoring", "--env", ENVIRONMENT, "--name", name, *there]
    made = subprocess.run(
        [*command, "--cron", EVERY_HALF_MINUTE, *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    schedule = json.loads(made.stdout)["id"]
    try:
        yield schedule
    finally:
        kubeflow.unschedule(name)
        for run in runs_of(kubeflow, schedule):
            if run.state not in ENDED:
                kubeflow.stop(run.id)


def runs_of(kubeflow: Kubeflow, schedule: str) -> list[Run]:
    """The runs that a recurring run has started, oldest first."""
    found = [run for run in kubeflow.runs(ENVIRONMENT, 100) if run.schedule_id == schedule]
    return sorted(found, key=lambda run: run.created)


def nth_run(kubeflow: Kubeflow, schedule: str, number: int) -> Run:
    """Wait for a run of a recurring run: the first is number 0."""
    found = wait_until(
        lambda: runs_of(kubeflow, schedule)[number:], f"run {number} of the schedule", START_SECONDS
    )
    run: Run = found[0]
    return run


def ended(kubeflow: Kubeflow, run: Run) -> Workflow:
    """Wait for the end of a run, and return what the cluster says of its steps."""

    def looked() -> Workflow | None:
        # A busy machine's database is away for moments.
        with suppress(ClusterError):
            workflow = kubeflow.workflow(run.id)
            return workflow if workflow and workflow.ended else None
        return None

    found: Workflow = wait_until(looked, f"the end of {run.name}", RUN_SECONDS)
    return found


def steps_of(workflow: Workflow) -> set[str]:
    """Names of the steps that ran, without those of the pipelines that contain them."""
    return {step.name.rpartition("/")[2] for step in workflow.steps}


def test_drift_starts_a_retraining_in_the_run_that_saw_it(place: Place, story: Story) -> None:
    """The first run of the schedule fires for the drift, trains a challenger, and says what came of it."""
    with place.workspace() as workspace:
        log = trigger_log(workspace, MODEL)
        fired = log.all()
        outcome = course(log, fired[0]).outcome

    assert steps_of(story.first) >= STEPS_OF_LEARNING
    assert [(record.content["by"], record.content["champion"]) for record in fired] == [
        (story.first.name, story.champion)
    ]
    assert "on_drift" in fired[0].content["causes"]
    assert outcome is not None
    assert outcome["bundle"] != story.champion


def test_the_challenger_is_gated_and_registered(place: Place, story: Story) -> None:
    """MLflow has it, with its verdict and its run; the environment serves it if, and only if, its gates passed."""
    with place.workspace() as workspace:
        versions = [
            v for v in list_versions(workspace, MODEL) if v.tags.get("seatrial.run") == story.first.name
        ]
        pointer = read_pointer(workspace, ENVIRONMENT, MODEL)

    assert len(versions) == 1
    passed = versions[0].tags["seatrial.verdict"] == "pass"
    assert pointer.digest == (versions[0].digest if passed else story.champion)


def test_report_and_verdicts_can_be_seen(place: Place, story: Story) -> None:
    """The workspace has the monitor's page, which says what has drifted, and the training's."""
    with place.workspace() as workspace:
        pages = [workspace.get(key(MODEL, story.first.name)) for key in (monitor_key, report_key)]

    assert all(page is not None for page in pages)
    assert b"features have drifted" in (pages[0] or b"")


def test_the_next_run_sees_the_drift_and_trains_nothing(place: Place, story: Story) -> None:
    """The cool-down holds it back: one run for one cause."""
    with place.workspace() as workspace:
        fired = trigger_log(workspace, MODEL).all()

    assert all(workflow.succeeded for workflow in story.later), story.later
    assert "FAIL monitor.drift" in story.watched
    assert "not now: The cool-down" in story.decided
    assert [steps_of(workflow) & STEPS_OF_LEARNING for workflow in story.later] == [set()] * len(story.later)
    assert len(fired) == 1
