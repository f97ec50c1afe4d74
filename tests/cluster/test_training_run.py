"""Training as a run of Kubeflow Pipelines: each step in its own pod, and the very outputs that a laptop has."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from tests.cluster.conftest import AS_OF, ENVIRONMENT, Command, TrainingRun

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.cluster.workflow import Workflow
from seatrial.cluster_runs import pipeline_name
from seatrial.local_runs import run_locally
from seatrial.steps.files import read_dataset, read_json
from seatrial.tables import digest_of
from seatrial.workspace import Workspace

pytestmark = pytest.mark.timeout(2400)
MODELS = Path(__file__).parents[2] / "models"
BUCKET = "mlpipeline"
STEPS = {
    "ingest", "validate", "features", "split", "train", "evaluate", "gates", "bundle", "report", "register",
}  # fmt: skip
TABLES = ("features/dataset", "split/training", "split/validation", "split/test")
DOCUMENTS = (
    "validate/checks",
    "validate/profiles",
    "validate/versions",
    "evaluate/evaluation",
)
MODEL_FILES = ("model.onnx", "model.skops", "schema.json", "baseline.json")
OF_TIME = {"training_time", "training_energy", "latency", "bundle_size"}
"""Gates whose values are times or rest on them (a bundle holds times, as text): they differ from run to run."""
TOLERANCE = 1e-9
"""Largest difference of a figure, relative to it: sums of floats may be taken in another order."""


@dataclass(frozen=True)
class Both:
    """One pipeline, run on this machine and on the cluster.

    Attributes:
        workflow: What the cluster says of its run's steps.
        cluster: What its steps put out: a folder a step, a file or folder an artifact.
        local: The same of this machine's run.
    """

    workflow: Workflow
    cluster: Path
    local: Path


@pytest.fixture(scope="module")
def both(
    context: str,
    platform: str,
    kubectl: Command,
    training_run: TrainingRun,
    tmp_path_factory: pytest.TempPathFactory,
) -> Both:
    """Train the flights model on the first three months of 2013, here and on the cluster."""
    folder = tmp_path_factory.mktemp("both")
    _fetch(context, platform, kubectl, training_run.id, folder / "cluster")
    workspace = Workspace.open(folder / "workspace")
    arguments = {"model": str(MODELS / "flights"), "environment": "local", "as_of": AS_OF}
    local = run_locally("training", arguments, workspace, tell=lambda _: None)
    return Both(training_run.workflow, folder / "cluster", local.folder)


def _fetch(context: str, namespace: str, kubectl: Command, run_id: str, folder: Path) -> None:
    """Copy what the steps of a run put out from the object store, the last attempt of each."""
    secret = json.loads(kubectl("get", "secret", "mlpipeline-minio-artifact", "-n", namespace, "-o", "json"))
    user, password = (base64.b64decode(secret["data"][key]).decode() for key in ("accesskey", "secretkey"))
    prefix = f"v2/artifacts/{pipeline_name('training', ENVIRONMENT)}/{run_id}/"
    with Forward(connect(context, namespace), *SERVICES["minio"]) as forward:
        store = Minio(forward.host, user, password, secure=False)
        found = store.list_objects(BUCKET, prefix=prefix, recursive=True)
        for entry in sorted(found, key=lambda entry: entry.last_modified):
            step, _, rest = entry.object_name.removeprefix(prefix).split("/", 2)
            store.fget_object(BUCKET, entry.object_name, str(folder / step / rest))


def _plain(value: Any) -> Any:
    """A document with its numbers at the tolerance."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return pytest.approx(value, rel=TOLERANCE, nan_ok=True) if isinstance(value, float) else value


def test_every_step_ran_in_a_pod_of_its_own(both: Both) -> None:
    """The run ended well, each step once, in a pod of its own."""
    assert both.workflow.succeeded, both.workflow
    assert {step.name.rpartition("/")[2] for step in both.workflow.steps} == STEPS
    pods = [attempt.pod for step in both.workflow.steps for attempt in step.attempts]
    assert len(set(pods)) == len(pods) == len(STEPS)


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_the_same_on_both(both: Both, name: str) -> None:
    """Features and the parts of the data have the same digest here and on the cluster (threats: K13)."""
    here, there = (digest_of(read_dataset(str(place / name)).frame) for place in (both.local, both.cluster))

    assert here == there


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_the_same_on_both(both: Both, name: str) -> None:
    """What was found, counted and evaluated is the same, floats to nine digits."""
    here, there = (read_json(str(place / name)) for place in (both.local, both.cluster))

    assert there == _plain(here)


def test_the_same_batches_were_ingested(both: Both) -> None:
    """Every batch has the same rows here and there, whether this run or an earlier one of the workspace added it."""
    here, there = (
        {
            (batch["table"], batch["batch"]): (batch["rows"], batch["digest"])
            for batch in read_json(str(place / "ingest" / "batches"))
        }
        for place in (both.local, both.cluster)
    )

    assert here == there
    assert here


@pytest.mark.parametrize("name", MODEL_FILES)
def test_the_model_is_the_same_on_both(both: Both, name: str) -> None:
    """The fitted model, its schema and its baseline are the same to the byte."""
    here, there = ((place / "train" / "fitted" / name).read_bytes() for place in (both.local, both.cluster))

    assert here == there


def test_the_verdicts_are_the_same_on_both(both: Both) -> None:
    """Every gate has the same value on both, but for those whose value is a time."""
    here, there = (
        {
            verdict["check"]: verdict["value"]
            for verdict in read_json(str(place / "gates" / "found"))["verdicts"]
        }
        for place in (both.local, both.cluster)
    )

    assert here.keys() == there.keys()
    for check in here.keys() - OF_TIME:
        assert there[check] == _plain(here[check]), check
