"""Which cluster is meant, and whether it may be touched.

The mark that ``seatrial up`` leaves is a label and two annotations on the namespace: that Seatrial
installed here, from which context, and what. A cluster without it is somebody else's: nothing is changed
there before a person, or ``--yes``, has said so. The name of the context belongs to the mark because that is
what goes wrong: the right command, in a terminal whose context is another one than yesterday.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seatrial.cluster.helm import CHART, releases
from seatrial.errors import ClusterError, NotOurClusterError
from seatrial.kubernetes_api import Context, Kubernetes, contexts

PLATFORM = "seatrial.io/platform"
"""Label of a namespace that the platform is installed in."""
INSTALLED_FROM = "seatrial.io/installed-from-context"
INSTALLED = "seatrial.io/installed"
"""Annotation that says what is installed: digest of chart and values, and Helm's revision."""
ENVIRONMENT = "seatrial.io/environment"
"""Label of an environment's namespace."""
MADE_CLUSTER = "seatrial-made-this-cluster"
"""ConfigMap in ``kube-system`` of a cluster that Seatrial made itself, and may therefore delete."""

Ask = Callable[[str], bool]
"""Asks a person a question and returns whether the answer was yes."""


@dataclass(frozen=True)
class Cluster:
    """A cluster, and the namespace of the platform in it.

    Attributes:
        api: Its API server.
        namespace: Where the platform is, or is to be.
    """

    api: Kubernetes
    namespace: str

    @property
    def context(self) -> str:
        """Name of the context in the kubeconfig."""
        return self.api.context

    def __str__(self) -> str:
        return f"context {self.context} ({self.api.server}), namespace {self.namespace}"

    def path(self, kind: str, api: str = "") -> str:
        """Path of the objects of a kind in the namespace.

        Args:
            kind: The kind's plural name, such as ``pods``.
            api: Its API group and version, such as ``apps/v1``; empty for the core ones.
        """
        root = f"/apis/{api}" if api else "/api/v1"
        return f"{root}/namespaces/{self.namespace}/{kind}"


def connect(context: str | None, namespace: str) -> Cluster:
    """Return the cluster of a context, after a look whether it answers.

    Args:
        context: Name of the context; the kubeconfig's current one if None.
        namespace: Where the platform is, or is to be.

    Raises:
        ClusterError: if there is no such context, or its API server does not answer.
    """
    cluster = Cluster(Kubernetes(choose(context, contexts()).name), namespace)
    cluster.api.get("/version")
    return cluster


def choose(context: str | None, there: list[Context]) -> Context:
    """Return the context that is meant.

    Args:
        context: Its name; the current one if None.
        there: The contexts of the kubeconfig.

    Raises:
        ClusterError: if it is not there, or none is current.
    """
    found = [c for c in there if (c.current if context is None else c.name == context)]
    if found:
        return found[0]
    names = ", ".join(c.name for c in there)
    what = (
        "The kubeconfig has no current context."
        if context is None
        else f"The kubeconfig has no context {context!r}."
    )
    raise ClusterError(
        f"{what} It has: {names or 'none'}.",
        remedy="Name one with --context." if names else "Make a local cluster: seatrial up --kind",
    )


def namespace_of(cluster: Cluster, name: str | None = None) -> dict[str, Any] | None:
    """Return a namespace, by default the platform's; None if it is not there.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    return cluster.api.get(f"/api/v1/namespaces/{name or cluster.namespace}")


def is_ours(cluster: Cluster, namespace: dict[str, Any] | None) -> bool:
    """Whether Seatrial installed in this namespace from this very context."""
    metadata = (namespace or {}).get("metadata", {})
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return PLATFORM in labels and annotations.get(INSTALLED_FROM) == cluster.context


def allow(cluster: Cluster, plan: list[str], ask: Ask | None, *, always: bool = False) -> None:
    """Return if the cluster may be changed: it is ours, or a person says so.

    Args:
        cluster: The cluster.
        plan: What would be done, a sentence each.
        ask: Asks the person; None where there is nobody to ask.
        always: Ask also where the cluster is ours, as before something is taken away.

    Raises:
        NotOurClusterError: if the answer is no, or there is nobody to ask.
        ClusterError: if the API server is away or refuses.
    """
    ours = is_ours(cluster, namespace_of(cluster)) or was_made(
        cluster.api, cluster.context.removeprefix("kind-")
    )
    if ours and not always:
        return
    whose = "" if ours else " Seatrial did not install there from this context before."
    would = "\n".join(f"  - {line}" for line in plan)
    if ask is None:
        raise NotOurClusterError(
            f"This would change {cluster}.{whose}\n{would}",
            remedy="If that is the cluster that you mean, say --yes. Else choose with --context; "
            "`kubectl config get-contexts` lists them.",
        )
    if not ask(f"This is {cluster}.{whose} It would:\n{would}\nGo on?"):
        raise NotOurClusterError(f"Nothing was done in {cluster}.")


def require_platform(cluster: Cluster) -> None:
    """Return if the platform is installed in the namespace, by whomever.

    Raises:
        ClusterError: if it is not, or the API server is away or refuses.
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    if PLATFORM in ((namespace_of(cluster) or {}).get("metadata", {}).get("labels") or {}):
        return
    if any(found["chart"].startswith(f"{CHART}-") for found in releases(cluster.context, cluster.namespace)):
        return
    raise ClusterError(
        f"The platform is not installed in {cluster}.",
        remedy="Install it with `seatrial up`, or say where it is with --context and --namespace.",
    )


def mark(cluster: Cluster, installed: str) -> None:
    """Leave the mark on the namespace: installed by Seatrial, from this context, and what.

    Args:
        cluster: The cluster.
        installed: Digest of chart and values, and Helm's revision.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    change = {
        "metadata": {
            "labels": {PLATFORM: "true"},
            "annotations": {INSTALLED_FROM: cluster.context, INSTALLED: installed},
        }
    }
    cluster.api.patch(f"/api/v1/namespaces/{cluster.namespace}", change)


def installed(namespace: dict[str, Any] | None) -> str:
    """Return what the mark says is installed; empty without a mark."""
    return str(((namespace or {}).get("metadata", {}).get("annotations") or {}).get(INSTALLED, ""))


def mark_made(api: Kubernetes, name: str) -> None:
    """Note in a cluster that Seatrial made it.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    item = {"metadata": {"name": MADE_CLUSTER}, "data": {"kind": name}}
    api.create("/api/v1/namespaces/kube-system/configmaps", item)


def was_made(api: Kubernetes, name: str) -> bool:
    """Whether a cluster carries the note that Seatrial made it, under this name.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    found = api.get(f"/api/v1/namespaces/kube-system/configmaps/{MADE_CLUSTER}")
    return found is not None and bool((found.get("data") or {}).get("kind") == name)
