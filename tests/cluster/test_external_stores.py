"""The platform on an object store and a MySQL that are somebody else's, with the network closed as by default.

They are in a namespace of their own and know nothing of our charts: what is needed of them is made here as the
platform's README says it, by hand.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from support.cluster_world import IMAGES, ROOT, SECURITY, SERVER, Command, Object, World, wait_until
from support.kubeflow import Pipelines, chain

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]
PIPELINES_BUCKET, MLFLOW_BUCKET, MODELS_BUCKET = "acme-pipelines", "acme-mlflow", "acme-models"
DATABASE_PORT = 3307
"""Another than MySQL's own, as a user's may have."""
WAIT = ("--wait", "--wait-for-jobs", "--timeout", "10m")
WRITE = """\
import os
from seatrial.workspace import Workspace
workspace = Workspace.open(os.environ["SEATRIAL_WORKSPACE"])
workspace.put("notes/kept.txt", b"kept")
print(workspace.get("notes/kept.txt"))
"""
DATABASES = {"kfp": "mlpipeline", "mlmd": "metadb", "mlflow": "mlflow"}
"""The database of each user (charts/platform/README.md)."""


@dataclass(frozen=True)
class Elsewhere:
    """Object store and database, and the platform that uses them.

    Attributes:
        world: Where they are.
        platform: The platform's namespace.
        environment: The namespace of its environment.
        passwords: Of each of the database's users.
    """

    world: World
    platform: str
    environment: str
    passwords: dict[str, str] = field(
        default_factory=lambda: {user: secrets.token_hex(16) for user in DATABASES}
    )

    @property
    def endpoint(self) -> str:
        """The object store's address."""
        return f"http://store.{self.world.namespace}.svc:9000"

    def sql(self, statements: str) -> str:
        """Run statements as the database's administrator, and return what they say."""
        return self.world.run(
            "exec", "--stdin", "pod/database", "--", "mariadb", "-uroot", "-pacme", stdin=statements
        )

    def objects(self, bucket: str) -> str:
        """Return the names that a bucket has in the store's own folder."""
        return self.world.run("exec", "pod/store", "--", "find", f"/data/{bucket}", "-name", "xl.meta")

    def values(self) -> dict[str, object]:
        """What the chart is told."""
        environment = {"namespace": self.environment, "workspace": f"s3://{MODELS_BUCKET}/test"}
        return {
            "global": {
                "objectStore": {
                    "buckets": {"pipelines": PIPELINES_BUCKET, "mlflow": MLFLOW_BUCKET},
                    "external": {"endpoint": self.endpoint},
                },
                "database": {
                    "external": {"host": f"database.{self.world.namespace}.svc", "port": DATABASE_PORT}
                },
                "environments": {"test": environment},
            },
            "minio": {"enabled": False},
            "mariadb": {"enabled": False},
            "prometheus": {"enabled": False},
        }

    def secrets(self) -> list[Object]:
        """The Secrets that nobody but the user can make, by the names and keys of the README."""
        keys = {"AWS_ACCESS_KEY_ID": self.world.access_key, "AWS_SECRET_ACCESS_KEY": self.world.secret_key}
        settings = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "MLFLOW_TRACKING_URI": f"http://mlflow.{self.platform}.svc:5000",
            "SEATRIAL_WORKSPACE": f"s3://{MODELS_BUCKET}/test",
        }
        contents = {
            "mariadb": {f"{user}-password": password for user, password in self.passwords.items()},
            "mlpipeline-minio-artifact": {
                "accesskey": self.world.access_key,
                "secretkey": self.world.secret_key,
            },
            "mlflow-object-store": keys,
            "environment-test": {**keys, **settings},
        }
        return [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content}
            for name, content in contents.items()
        ]


def _store(world: World) -> list[Object]:
    """A MinIO without anything of ours, its data in the pod."""
    variables = {"MINIO_ROOT_USER": world.access_key, "MINIO_ROOT_PASSWORD": world.secret_key}
    container = {
        "image": IMAGES["minio"],
        "command": ["minio", "server", "/data", "--address=:9000"],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": 9000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "home", "mountPath": "/.minio"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
    }
    make_buckets = {
        "name": "buckets",
        "image": SERVER,
        "securityContext": SECURITY,
        "command": [
            "mkdir",
            "-p",
            *(f"/data/{name}" for name in (PIPELINES_BUCKET, MLFLOW_BUCKET, MODELS_BUCKET)),
        ],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volumes: list[Object] = [{"name": name, "emptyDir": {}} for name in ("data", "home")]
    pod = world.pod(
        "store", labels={"app": "store"}, container=container, initContainers=[make_buckets], volumes=volumes
    )
    return [pod, _service("store", 9000)]


def _database(world: World) -> list[Object]:
    """A MariaDB without anything of ours, its data in the pod."""
    mounts = {"data": "/var/lib/mysql", "run": "/run/mysqld", "scratch": "/tmp"}  # noqa: S108 -- in the pod
    container = {
        "image": IMAGES["mariadb"],
        "args": [f"--port={DATABASE_PORT}", "--skip-name-resolve", "--character-set-server=utf8mb4"],
        "env": [{"name": "MARIADB_ROOT_PASSWORD", "value": "acme"}],
        "readinessProbe": {"tcpSocket": {"port": DATABASE_PORT}, "periodSeconds": 1},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
    }
    volumes: list[Object] = [{"name": name, "emptyDir": {}} for name in mounts]
    pod = world.pod("database", labels={"app": "database"}, container=container, volumes=volumes)
    pod["spec"]["securityContext"] |= {"runAsUser": 999, "fsGroup": 999}
    return [pod, _service("database", DATABASE_PORT)]


def _service(name: str, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }


@pytest.fixture(scope="module")
def elsewhere(
    kubectl: Command, helm: Command, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Elsewhere]:
    """The platform, installed as a user would by helm alone, and ready."""
    name = f"acme-{secrets.token_hex(3)}"
    world = World(kubectl, name, secrets.token_hex(10), secrets.token_hex(20))
    made = Elsewhere(world, f"{name}-platform", f"{name}-test")
    with ExitStack() as stack:
        for namespace in (name, made.platform):
            kubectl("create", "namespace", namespace)
            kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
            stack.callback(kubectl, "delete", "namespace", namespace, "--wait=false")
        world.apply(*_store(world), *_database(world))
        for pod in ("store", "database"):
            world.run("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=180s", timeout=190)
        wait_until(lambda: _answers(made), "the database", 60)
        for user, password in made.passwords.items():
            database = DATABASES[user]
            made.sql(
                f"CREATE DATABASE {database}; CREATE USER '{user}'@'%' IDENTIFIED BY '{password}';"
                f"GRANT ALL PRIVILEGES ON {database}.* TO '{user}'@'%';"
            )
        World(kubectl, made.platform).apply(*made.secrets())
        values = tmp_path_factory.mktemp("acme") / "values.json"
        values.write_text(json.dumps(made.values()))
        place = ("--namespace", made.platform)
        stack.callback(helm, "uninstall", "seatrial", *place)
        stack.callback(kubectl, "delete", "namespace", made.environment, "--wait=false", "--ignore-not-found")
        helm("install", "seatrial", str(ROOT / "charts" / "platform"), *place, "--values", str(values), *WAIT)
        yield made


def _answers(made: Elsewhere) -> bool:
    try:
        return "1" in made.sql("SELECT 1")
    except (AssertionError, TimeoutExpired):
        return False


def test_a_run_leaves_its_traces_there(
    context: str, kubectl: Command, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """A run finishes; the database knows it, and the bucket has what it put out."""
    pipelines = Pipelines(context, elsewhere.platform, kubectl)

    run = pipelines.submit(chain(tmp_path / "chain.yaml", steps=2, seconds=0))

    assert pipelines.finished(run, timeout=600) == "SUCCEEDED"
    assert [mark.text for mark in pipelines.marks(run)] == ["x", "xx"]
    assert run in elsewhere.sql("SELECT UUID FROM mlpipeline.run_details")
    assert run in elsewhere.objects(PIPELINES_BUCKET)


def test_a_model_s_pod_reaches_its_workspace(kubectl: Command, elsewhere: Elsewhere) -> None:
    """With the Secret that its namespace was given, a pod of the environment writes and reads there."""
    world = World(kubectl, elsewhere.environment)
    container = {"command": ["python", "-c", WRITE], "envFrom": [{"secretRef": {"name": "environment"}}]}
    world.apply(world.pod("writes", container=container))

    wait_until(lambda: world.get("pod", "writes")["status"]["phase"] in ("Succeeded", "Failed"), "it", 120)

    assert world.run("logs", "writes").strip() == "b'kept'"
    assert "notes/kept.txt" in elsewhere.objects(MODELS_BUCKET)


def test_mlflow_is_on_them(elsewhere: Elsewhere) -> None:
    """MLflow's tables are in the database, as its own user's."""
    assert "experiments" in elsewhere.sql("SHOW TABLES IN mlflow").split()
    assert "CREATE" not in elsewhere.sql("SHOW GRANTS FOR 'mlflow'@'%'")


def test_no_store_of_ours_runs(kubectl: Command, elsewhere: Elsewhere) -> None:
    """Neither MinIO nor MariaDB is in the platform's namespace, nor a volume of them."""
    found = kubectl("--namespace", elsewhere.platform, "get", "pods,pvc", "--output", "name")
    assert "minio" not in found
    assert "mariadb" not in found
