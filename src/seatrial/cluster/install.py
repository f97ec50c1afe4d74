"""Bring the platform up, and take it down: the story, a step a function."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from seatrial.cluster import helm, local_cluster, preflight
from seatrial.cluster.context import (
    ENVIRONMENT,
    Ask,
    Cluster,
    allow,
    connect,
    installed,
    is_ours,
    mark,
    namespace_of,
)
from seatrial.cluster.forward import SERVICES
from seatrial.cluster.health import Finding
from seatrial.cluster.image_check import listed_images
from seatrial.cluster.observe import POLL_SECONDS, Progress, findings, storage_classes, workloads
from seatrial.errors import ClusterError, NotOurClusterError
from seatrial.images import PIPELINE_IMAGE

POD_SECURITY = "pod-security.kubernetes.io/enforce"
_NAMESPACES, _NODES = "/api/v1/namespaces", "/api/v1/nodes"
_NODE_SECONDS = 180.0
"""How long a node may take to come up; kind gives its own as long."""


@dataclass(frozen=True)
class Wishes:
    """What a person wants installed, and where.

    Attributes:
        context: Context of the kubeconfig; the current one if None.
        namespace: The platform's namespace.
        make_cluster: Whether to make the local cluster if it is not there.
        node_image: Image of the nodes of the cluster that is made; that of ``kind-config.yaml`` if None.
        environments: Names of the environments.
        values: Files of values for the chart.
        seconds: How long it may take until everything is healthy.
    """

    context: str | None
    namespace: str
    make_cluster: bool = False
    node_image: str | None = None
    environments: tuple[str, ...] = ("test",)
    values: tuple[Path, ...] = ()
    seconds: float = 900.0


@dataclass(frozen=True)
class Voice:
    """How the installation speaks.

    Attributes:
        stage: Is told what begins.
        finding: Is told how a part is, when that changed.
        ask: Asks a person; None where there is nobody to ask.
    """

    stage: Callable[[str], None]
    finding: Callable[[Finding], None]
    ask: Ask | None = None


@dataclass(frozen=True)
class Up:
    """A platform that is up.

    Attributes:
        context: Where it is.
        namespace: Where it is.
        changed: Whether anything had to be done.
        parts: How each part is.
    """

    context: str
    namespace: str
    changed: bool
    parts: list[Finding] = field(default_factory=list)


def up(wishes: Wishes, voice: Voice) -> Up:
    """Install the platform or bring it up to date, and return when it is healthy.

    Args:
        wishes: What is wanted, and where.
        voice: Is told of progress, and asks.

    Raises:
        NotOurClusterError: if the cluster is not ours and nobody says to use it.
        ClusterError: if the cluster is away, too small or without storage, the namespace is taken, or a part stays
            unhealthy.
        ToolError: if helm, kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    cluster = _reach(wishes, voice)
    chart = helm.Chart(files=wishes.values, values=environment_values(wishes.environments))
    digest = chart.digest()
    if _is_up(cluster, digest):
        return Up(cluster.context, cluster.namespace, False, findings(cluster))
    objects = helm.render(cluster.context, cluster.namespace, chart)
    allow(cluster, _plan(cluster, objects), voice.ask)
    _await_node(cluster, voice)
    voice.stage("Looking whether the cluster has what it takes")
    check(cluster, objects)
    local_cluster.provide_images(cluster.context, images_of(objects), voice.stage)
    prepare_namespace(cluster)
    voice.stage(f"Installing in {cluster}")
    progress = Progress(cluster, voice.finding)
    helm.install(
        cluster.context,
        cluster.namespace,
        chart,
        seconds=wishes.seconds,
        meanwhile=lambda: _ignore(progress.look()),
    )
    parts = progress.wait(wishes.seconds)
    mark(cluster, _installed(cluster, digest))
    return Up(cluster.context, cluster.namespace, True, parts)


def _ignore(_: Any) -> None:
    """Take what is not needed."""


def _reach(wishes: Wishes, voice: Voice) -> Cluster:
    """The cluster that is meant; a local one is made if that is wished and it is not there."""
    if not wishes.make_cluster:
        return connect(wishes.context, wishes.namespace)
    return local_cluster.reach(
        wishes.context, wishes.namespace, wishes.node_image, stage=voice.stage, finding=voice.finding
    )


def _await_node(cluster: Cluster, voice: Voice) -> None:
    """Return when a node takes pods, or none will: kind calls a cluster ready a moment before its node is."""
    end = time.monotonic() + _NODE_SECONDS
    told = False
    while preflight.is_coming_up(cluster.api.list(_NODES)) and time.monotonic() < end:
        if not told:
            voice.stage("Waiting until a node of the cluster takes pods")
            told = True
        time.sleep(POLL_SECONDS)


def environment_values(environments: tuple[str, ...]) -> dict[str, Any]:
    """Return the chart's values for just these environments; it has ``test`` by itself."""
    wanted: dict[str, Any] = {
        f"global.environments.{name}": {
            "namespace": name,
            "createNamespace": True,
            "workspace": f"s3://seatrial/{name}",
        }
        for name in environments
        if name != "test"
    }
    return wanted if "test" in environments else {**wanted, "global.environments.test.enabled": False}


def _is_up(cluster: Cluster, digest: str) -> bool:
    """Whether just this is installed already, by us and untouched since, and healthy."""
    namespace = namespace_of(cluster)
    if not is_ours(cluster, namespace) or installed(namespace) != _installed(cluster, digest):
        return False
    return all(finding.state == "healthy" for finding in findings(cluster))


def _installed(cluster: Cluster, digest: str) -> str:
    release = helm.release(cluster.context, cluster.namespace)
    return f"{digest}@{release.revision if release and release.status == 'deployed' else 0}"


def _plan(cluster: Cluster, objects: list[dict[str, Any]]) -> list[str]:
    """What an installation would do, a sentence each."""
    whole = sum((amount * count for _, amount, count in preflight.wanted(objects)), preflight.Amount())
    namespaces = [item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"]
    place = f"the Helm release {helm.RELEASE} in the namespace {cluster.namespace}"
    plan = [f"install or upgrade {place}: {len(objects)} objects, {whole} requested"]
    if namespaces:
        plan.append(
            f"make the namespaces of the environments where they are missing: {', '.join(namespaces)}"
        )
    if any((part / "crds").is_dir() for part in helm.Chart().folder.glob("charts/*")):
        plan.append(
            "add the CustomResourceDefinitions of Argo Workflows and Kubeflow Pipelines where they are missing"
        )
    return plan


def check(cluster: Cluster, objects: list[dict[str, Any]]) -> None:
    """Return if the cluster has room and storage for the objects, and nobody is in their place.

    Raises:
        ClusterError: if not; with every reason.
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    api, namespace = cluster.api, cluster.namespace
    names = [found["name"] for found in helm.releases(cluster.context, namespace)]
    troubles = preflight.check_namespace(
        namespace, namespace_of(cluster), names, workloads(cluster), ours=helm.RELEASE
    )
    troubles += preflight.check_environments(objects, api.list(_NAMESPACES), namespace, helm.RELEASE)
    claims = api.list(cluster.path("persistentvolumeclaims"))
    troubles += preflight.check_storage(objects, storage_classes(cluster), claims)
    nodes, pods = api.list(_NODES), api.list("/api/v1/pods")
    troubles += preflight.check_room(objects, nodes, pods, namespace)
    release = helm.release(cluster.context, namespace)
    if release is not None and release.status.startswith("pending"):
        troubles.append(
            preflight.Trouble(
                f"Helm says that the release {helm.RELEASE} is in work ({release.status}): another installation runs, "
                "or one was killed.",
                f"Wait for it; if there is none: helm rollback {helm.RELEASE} -n {namespace}, or seatrial down.",
            )
        )
    if troubles:
        remedies = dict.fromkeys(trouble.remedy for trouble in troubles)
        raise ClusterError("\n".join(trouble.message for trouble in troubles), remedy="\n".join(remedies))


def images_of(objects: list[dict[str, Any]]) -> set[str]:
    """Return the images that an installation needs.

    Those are the images of the containers of rendered objects, those of ``charts/images.yaml`` that the objects name
    for somebody who starts them later, and that of the steps, if Kubeflow Pipelines is installed.

    Raises:
        UsageError: if this is no clone of the repository.
    """
    found: set[str] = set()
    for item in objects:
        if item["kind"] == "Service" and item["metadata"]["name"] == SERVICES["pipelines-api"][0]:
            found.add(PIPELINE_IMAGE)
        template = (item.get("spec") or {}).get("template") or {}
        for key in ("initContainers", "containers"):
            containers = (template.get("spec") or {}).get(key) or []
            found |= {container["image"] for container in containers}
    text = orjson.dumps(objects).decode()
    return found | {image.reference for image in listed_images() if image.reference in text}


def prepare_namespace(cluster: Cluster) -> None:
    """Make the namespace, closed by Pod Security, or find it there; and mark it as ours.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    metadata = {"name": cluster.namespace, "labels": {POD_SECURITY: "restricted"}}
    cluster.api.create(_NAMESPACES, {"metadata": metadata})
    mark(cluster, installed(namespace_of(cluster)))


def down(cluster: Cluster, ask: Ask | None, tell: Callable[[str], None], *, data: bool) -> bool:
    """Uninstall the platform.

    Args:
        cluster: Where it is.
        ask: Asks a person, always; None where there is nobody to ask.
        tell: Is told what is done.
        data: Whether the data go too: volumes, Secrets, the environments' namespaces.

    Returns:
        Whether there was anything to take away.

    Raises:
        NotOurClusterError: if the answer is no, there is nobody to ask, or data would go that are not ours.
        ClusterError: if the API server is away or refuses.
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    namespace = namespace_of(cluster)
    release = helm.release(cluster.context, cluster.namespace)
    if namespace is None or (release is None and not data):
        return False
    if data and not is_ours(cluster, namespace):
        raise NotOurClusterError(
            f"The namespace {cluster.namespace} was not installed by Seatrial from {cluster.context}: its data stay.",
            remedy=f"Delete them yourself: kubectl --context {cluster.context} delete namespace {cluster.namespace}",
        )
    others = _environments(cluster)
    kept = "delete" if data else "keep"
    plan = [
        f"uninstall the Helm release {helm.RELEASE} in the namespace {cluster.namespace}",
        f"{kept} its volumes with all data, its Secrets, and the namespaces {', '.join(others) or '(none)'}",
    ]
    allow(cluster, plan, ask, always=True)
    tell(f"Uninstalling from {cluster}")
    helm.uninstall(cluster.context, cluster.namespace, seconds=300.0)
    for name in [cluster.namespace, *others] if data else []:
        tell(f"Deleting the namespace {name} with its data")
        cluster.api.delete(f"{_NAMESPACES}/{name}")
    if not data:
        mark(cluster, "")
    return True


def _environments(cluster: Cluster) -> list[str]:
    """Names of the environments' namespaces that this release made."""
    return [
        item["metadata"]["name"]
        for item in cluster.api.list(_NAMESPACES, labelSelector=ENVIRONMENT)
        if (item["metadata"].get("annotations") or {}).get(preflight.OWNER_PLACE) == cluster.namespace
    ]
