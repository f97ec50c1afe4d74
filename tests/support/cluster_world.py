"""A namespace with what a served model needs: an object store, its keys, a workspace with signed bundles.

It is a small stand-in for nothing: MinIO, Secrets and NetworkPolicies are what ``charts/platform``
makes, in one namespace, so that serving can be tested without the rest of the platform. The store may
go away and come back with its data.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.images import own_image, read_images
from seatrial.workspace import Workspace

ROOT = Path(__file__).parents[2]
BUCKET = "seatrial"
ADDRESS = f"s3://{BUCKET}/trial"
IMAGES = {image.name: image.reference for image in read_images(ROOT / "charts" / "images.yaml")}
SERVER = own_image("server")
USER = 1000
SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
MISSING_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
NO_SUCH_COMMAND = "/there-is-no-such-command"

Command = Callable[..., str]
Object = dict[str, Any]


def wait_until(condition: Callable[[], Any], what: str, seconds: float) -> Any:
    """Wait until ``condition`` returns something true, and return it; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)
    return found


@dataclass
class World:
    """The namespace, and what a test does in it.

    Attributes:
        kubectl: Runs kubectl on the cluster.
        namespace: Its name.
        access_key: Name of the object store's user; empty, like the other keys, where there is none.
        secret_key: Its key.
        privacy_key: What private fields are hashed by: 32 characters.
        environment: The environment that it is for.
        address: The workspace's.
        store: The namespace that the object store is in; empty: this one.
    """

    kubectl: Command
    namespace: str
    access_key: str = ""
    secret_key: str = ""
    privacy_key: str = ""
    environment: str = "local"
    address: str = ADDRESS
    store: str = ""

    def run(self, *arguments: str, **more: Any) -> str:
        """Run kubectl in the namespace."""
        return self.kubectl("--namespace", self.namespace, *arguments, **more)

    def get(self, kind: str, name: str = "", *arguments: str) -> Object:
        """Return an object, or a list of objects, as the API has it."""
        found: Object = json.loads(
            self.run("get", kind, *([name] if name else []), *arguments, "--output", "json")
        )
        return found

    def apply(self, *objects: Object) -> None:
        """Make or change objects."""
        self.run(
            "apply",
            "--filename",
            "-",
            stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
        )

    def pod(self, name: str, **spec: Any) -> Object:
        """Return a pod that Pod Security "restricted" lets in, with one container of the server's image."""
        labels = spec.pop("labels", {})
        container = {
            "name": "main",
            "image": SERVER,
            "imagePullPolicy": "IfNotPresent",
            "securityContext": SECURITY,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            **spec.pop("container", {}),
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "securityContext": POD_SECURITY,
                "containers": [container],
                **spec,
            },
        }

    def missing_image(self, image: str) -> str:
        """Return why an image cannot be had on the cluster; empty if it can."""
        name = f"look-{secrets.token_hex(4)}"
        container = {"image": image, "command": [NO_SUCH_COMMAND]}
        self.apply(self.pod(name, container=container))
        try:
            state = wait_until(lambda: self._container_state(name), f"the image {image}", 180)
        finally:
            self.run("delete", "pod", name, "--wait=false")
        reason = (state.get("waiting") or {}).get("reason", "")
        return f"the cluster cannot have the image {image}" if reason in MISSING_IMAGE else ""

    def _container_state(self, name: str) -> Object:
        statuses = self.get("pod", name)["status"].get("containerStatuses") or [{"state": {}}]
        state: Object = statuses[0]["state"]
        reason = (state.get("waiting") or {}).get("reason", "")
        return {} if reason in ("", "ContainerCreating") and "terminated" not in state else state

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """Open the workspace from here, with the variables that its libraries read."""
        context = os.environ.get("SEATRIAL_TEST_CONTEXT", "kind-seatrial")
        with Forward(connect(context, self.store or self.namespace), *SERVICES["minio"]) as forward:
            variables = self.store_variables(forward.address)
            before = {name: os.environ.get(name) for name in variables}
            os.environ.update(variables)
            try:
                yield Workspace(self.address)
            finally:
                for name, value in before.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})

    def store_goes(self) -> None:
        """Kill the object store, and let it stay away."""
        self.run("scale", "statefulset/minio", "--replicas=0")
        self.run("wait", "--for=delete", "pod/minio-0", "--timeout=120s", timeout=130)

    def store_comes(self) -> None:
        """Let the object store be there, with the data that it had."""
        self.run("scale", "statefulset/minio", "--replicas=1")
        self.run("rollout", "status", "statefulset/minio", "--timeout=180s", timeout=190)

    def change_key(self, secret_key: str) -> None:
        """Let the object store take another key from now on, and the environment's Secret have it."""
        self.secret_key = secret_key
        change = {"stringData": self.store_variables(self.endpoint)}
        self.run("patch", "secret", "environment", "--patch", json.dumps(change))
        self.apply(*_store(self))
        self.store_comes()

    @property
    def endpoint(self) -> str:
        """The object store's address within the cluster."""
        return f"http://minio.{self.store or self.namespace}.svc:9000"

    def store_variables(self, endpoint: str) -> dict[str, str]:
        """Return the variables by which a process finds the object store."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def upload(self, folder: Path) -> None:
        """Put a local workspace into the object store, but for its keys and logs."""
        with self.workspace() as workspace:
            for path in sorted(folder.rglob("*")):
                key = path.relative_to(folder).as_posix()
                if path.is_file() and key.split("/")[0] not in ("keys", "serving"):
                    workspace.put(key, path.read_bytes())


@contextmanager
def made_world(
    kubectl: Command, trusted: dict[str, str], *, environment: str = "local", store: World | None = None
) -> Iterator[World]:
    """Make the namespace and what is in it; it is gone afterwards.

    Args:
        kubectl: Runs kubectl on the cluster.
        trusted: The public keys of the trust root, PEM by file name.
        environment: The environment that it is for.
        store: A world whose object store it has a workspace in, instead of an object store of its own.
    """
    privacy_key, name = secrets.token_hex(16), f"{secrets.token_hex(3)}"
    if store is None:
        keys = (secrets.token_hex(10), secrets.token_hex(20), privacy_key)
        world = World(kubectl, f"serving-{name}", *keys, environment)
    else:
        keys = (store.access_key, store.secret_key, privacy_key)
        place = (f"s3://{BUCKET}/{environment}", store.store or store.namespace)
        world = World(kubectl, f"{environment}-{name}", *keys, environment, *place)
    kubectl(
        "apply",
        "--filename",
        "-",
        stdin=json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": world.namespace,
                    "labels": {
                        "seatrial.io/environment": environment,
                        "pod-security.kubernetes.io/enforce": "restricted",
                    },
                },
            }
        ),
    )
    try:
        world.apply(*([] if world.store else _store(world)), *_environment(world, trusted))
        yield world
    finally:
        kubectl("delete", "namespace", world.namespace, "--wait=false")


def _environment(world: World, trusted: dict[str, str]) -> list[Object]:
    """What charts/platform makes in the namespace of an environment, and a closed network."""
    variables = {
        **world.store_variables(world.endpoint),
        "SEATRIAL_WORKSPACE": world.address,
    }
    privacy = {"privacy-key": world.privacy_key}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "environment"}, "stringData": variables},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "privacy-key"}, "stringData": privacy},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "trust-root"}, "data": trusted},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "default-deny"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        },
    ]


def _store_pod(world: World, labels: dict[str, str]) -> Object:
    """Return the pod of the object store, whose data are in the volume ``data``."""
    make_bucket = {
        "name": "bucket",
        "image": SERVER,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": SECURITY,
        "command": ["mkdir", "-p", f"/data/{BUCKET}"],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    variables = {"MINIO_ROOT_USER": world.access_key, "MINIO_ROOT_PASSWORD": world.secret_key}
    minio = {
        "image": IMAGES["minio"],
        "command": ["minio"],
        "args": ["server", "/data", "--address=:9000"],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"containerPort": 9000}],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": 9000}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "home", "mountPath": "/.minio"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}},
    }
    home = [{"name": "home", "emptyDir": {}}]
    spec = {"container": minio, "initContainers": [make_bucket], "volumes": home, "restartPolicy": "Always"}
    return world.pod("minio", labels=labels, **spec)


def _store(world: World) -> list[Object]:
    """An object store of one pod, with the bucket; its data are in a volume, which goes with the namespace."""
    labels = {"app.kubernetes.io/name": "minio"}
    pod = _store_pod(world, labels)
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "minio"},
            "spec": {
                "serviceName": "minio",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod["spec"]},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "minio"},
            "spec": {"selector": labels, "ports": [{"port": 9000}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "minio"},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        # As in charts/platform: all pods of the environments' namespaces.
                        "from": [
                            {
                                "namespaceSelector": {
                                    "matchExpressions": [
                                        {"key": "seatrial.io/environment", "operator": "Exists"}
                                    ]
                                }
                            }
                        ],
                        "ports": [{"port": 9000}],
                    }
                ],
            },
        },
    ]
