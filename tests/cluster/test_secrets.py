"""No secret of the platform shows up where people and pods look, after a whole training run (threats: K12, C10)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config
from minio import Minio
from tests.cluster.conftest import Command, TrainingRun

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.cluster_setup.credentials import SECRET_CHARACTERS

pytestmark = pytest.mark.timeout(2400)
KINDS = "pods,workflows,configmaps,events,deployments,statefulsets,jobs,services,serviceaccounts,scheduledworkflows"
"""What whoever may read in the namespace can read, Secrets aside."""
LARGEST_OBJECT = 4 * 1024 * 1024
"""Larger objects in the store are tables and models; a secret would be in what says something."""
EXPECTED = {
    "minio-root/password",
    "mariadb/root-password",
    "environment-test/AWS_SECRET_ACCESS_KEY",
    "mlpipeline-minio-artifact/secretkey",
    "signing-key-test/signing-key.pem",
}
"""Secrets that there must be, so that it is looked for some at all."""
DUMP = 'exec mariadb-dump --user=root --password="$MARIADB_ROOT_PASSWORD" --all-databases'


METADATA = ("metadata-grpc", "mariadb/mlmd-password")
"""A container, and the secret that it takes as an argument. One that says which arguments it got shows it."""


@dataclass(frozen=True)
class Known:
    """A secret of the namespace; a failed test does not print it."""

    name: str
    content: bytes = field(repr=False)

    def is_in(self, text: bytes) -> bool:
        """Whether a text shows it, as it is or in base64."""
        return self.content in text or base64.b64encode(self.content).rstrip(b"=")[:-1] in text


@pytest.fixture(scope="module")
def secrets(kubectl: Command, platform: str, training_run: TrainingRun) -> list[Known]:
    """Passwords, and the content of private keys."""
    assert training_run.workflow.ended
    found = []
    for secret in json.loads(kubectl("get", "secrets", "-n", platform, "-o", "json"))["items"]:
        for key, value in secret.get("data", {}).items() if secret["type"] == "Opaque" else ():
            name, content = f"{secret['metadata']['name']}/{key}", base64.b64decode(value)
            if content.startswith(b"-----BEGIN"):
                found.append(Known(name, content.splitlines()[1]))
            elif len(content) == SECRET_CHARACTERS and content.isalnum():
                found.append(Known(name, content))
    assert {secret.name for secret in found} >= EXPECTED
    return found


def shown_in(content: bytes, secrets: list[Known]) -> set[str]:
    """Return the names of the secrets that a content shows."""
    return {secret.name for secret in secrets if secret.is_in(content)}


def test_logs_show_none(context: str, platform: str, secrets: list[Known]) -> None:
    """Nothing is in the log of any container, those of finished steps included (K12)."""
    api = CoreV1Api(new_client_from_config(context=context))
    read = 0
    for pod in api.list_namespaced_pod(platform).items:
        name = pod.metadata.name
        for status in [*(pod.status.container_statuses or []), *(pod.status.init_container_statuses or [])]:
            if status.state.waiting is not None:
                continue
            answer = api.read_namespaced_pod_log(
                name, platform, container=status.name, _preload_content=False
            )
            allowed = {METADATA[1]} if status.name == METADATA[0] else set()
            assert shown_in(answer.data, secrets) <= allowed, f"in the log of {name}, {status.name}"
            read += bool(answer.data)
    assert read > 10


def test_objects_show_none(kubectl: Command, platform: str, secrets: list[Known]) -> None:
    """Nothing is in any object of the namespace but the Secrets: no variable, argument, parameter or event (K12)."""
    objects = kubectl("get", KINDS, "-n", platform, "-o", "json").encode()
    assert b"workflows.argoproj.io" in objects
    assert shown_in(objects, secrets) == set()


def test_databases_show_none(kubectl: Command, platform: str, secrets: list[Known]) -> None:
    """Nothing is in the databases of Kubeflow Pipelines and MLflow (K12)."""
    dump = kubectl("exec", "-n", platform, "mariadb-0", "--", "sh", "-c", DUMP, timeout=300).encode()
    assert b"run_details" in dump
    assert b"model_versions" in dump
    assert shown_in(dump, secrets) == set()


def test_stored_objects_show_none(
    context: str, platform: str, kubectl: Command, secrets: list[Known]
) -> None:
    """Nothing is in what runs left in the object store: logs, reports, metrics, bundles (K12)."""
    read = 0
    for name, content in _stored(context, platform, kubectl):
        assert shown_in(content, secrets) == set(), f"in {name}"
        read += 1
    assert read > 50


def _stored(context: str, platform: str, kubectl: Command) -> Iterator[tuple[str, bytes]]:
    keys = json.loads(kubectl("get", "secret", "minio-root", "-n", platform, "-o", "json"))["data"]
    user, password = (base64.b64decode(keys[key]).decode() for key in ("user", "password"))
    with Forward(connect(context, platform), *SERVICES["minio"]) as forward:
        store = Minio(forward.host, user, password, secure=False)
        for bucket in store.list_buckets():
            for found in store.list_objects(bucket.name, recursive=True):
                if (found.size or 0) <= LARGEST_OBJECT:
                    with store.get_object(bucket.name, str(found.object_name)) as answer:
                        yield f"{bucket.name}/{found.object_name}", answer.read()
