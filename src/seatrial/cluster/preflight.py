"""What can be known before anything is installed: room, storage, and who is there already.

Each check reads the objects that the charts would make and those that the cluster has, and names the
problem with both figures. All problems are told at once: nobody should install five times to learn of five.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from seatrial.cluster.context import ENVIRONMENT
from seatrial.cluster.health import DEFAULT_CLASS, is_default

Object = dict[str, Any]

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_DECIMAL = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_POD_KINDS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
_ENDED = {"Succeeded", "Failed"}
_COMING_UP = {
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/network-unavailable",
    "node.cloudprovider.kubernetes.io/uninitialized",
}
"""Taints that Kubernetes itself takes from a node when it has come up."""
OWNER = "meta.helm.sh/release-name"
OWNER_PLACE = "meta.helm.sh/release-namespace"


@dataclass(frozen=True)
class Trouble:
    """Something that would keep an installation from coming up.

    Attributes:
        message: What is wrong, expected and got.
        remedy: What to do.
    """

    message: str
    remedy: str


@dataclass(frozen=True)
class Amount:
    """An amount of what nodes have.

    Attributes:
        cpu: Cores.
        memory: Bytes.
    """

    cpu: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.cpu - other.cpu, self.memory - other.memory)

    def __mul__(self, times: int) -> Amount:
        return Amount(self.cpu * times, self.memory * times)

    def fits(self, room: Amount) -> bool:
        """Whether this is at most as much as there is room for."""
        return self.cpu <= room.cpu and self.memory <= room.memory

    def __str__(self) -> str:
        return f"{self.cpu:.2f} cores and {self.memory / 2**30:.2f} GiB of memory"


def quantity(text: str | float) -> float:
    """Return the number that a Kubernetes quantity such as ``250m`` or ``1.5Gi`` stands for."""
    plain = str(text)
    if plain[-2:] in _BINARY:
        return float(plain[:-2]) * _BINARY[plain[-2:]]
    if plain[-1:] in _DECIMAL:
        return float(plain[:-1]) * _DECIMAL[plain[-1]]
    return float(plain)


def requested(pod_spec: Object) -> Amount:
    """Return what a pod asks for: its containers together, or its largest init container if that asks for more."""
    together = sum((_asked(container) for container in pod_spec.get("containers") or []), Amount())
    first = [_asked(container) for container in pod_spec.get("initContainers") or []]
    return Amount(
        max([together.cpu, *(amount.cpu for amount in first)]),
        max([together.memory, *(amount.memory for amount in first)]),
    )


def _asked(container: Object) -> Amount:
    requests = (container.get("resources") or {}).get("requests") or {}
    return Amount(quantity(requests.get("cpu", 0)), quantity(requests.get("memory", 0)))


def wanted(objects: Iterable[Object]) -> list[tuple[str, Amount, int]]:
    """Return what each part that stays asks for: name, a pod's amount, number of pods."""
    return [
        (
            item["metadata"]["name"],
            requested(item["spec"]["template"]["spec"]),
            item["spec"].get("replicas", 1),
        )
        for item in objects
        if item.get("kind") in _POD_KINDS - {"Job"}
    ]


def room(nodes: list[Object], pods: list[Object], *, but_for: str) -> list[Amount]:
    """Return what each node that takes pods has left.

    Args:
        nodes: The cluster's nodes.
        pods: The pods of all namespaces.
        but_for: The pods of this namespace count as gone: they are those that are to be installed.
    """
    left = []
    for node in nodes:
        if node["spec"].get("unschedulable") or _closing_taints(node):
            continue
        has = node["status"]["allocatable"]
        used = [
            requested(pod["spec"])
            for pod in pods
            if pod["spec"].get("nodeName") == node["metadata"]["name"]
            and pod["metadata"]["namespace"] != but_for
            and (pod.get("status") or {}).get("phase") not in _ENDED
        ]
        left.append(Amount(quantity(has["cpu"]), quantity(has["memory"])) - sum(used, Amount()))
    return left


def _closing_taints(node: Object) -> set[str]:
    """The keys of the taints that keep pods off a node."""
    taints = node["spec"].get("taints") or []
    return {taint["key"] for taint in taints if taint["effect"] in {"NoSchedule", "NoExecute"}}


def is_coming_up(nodes: list[Object]) -> bool:
    """Whether no node takes pods yet, and one will soon: all that closes it is that it has just begun."""
    open_to = [_closing_taints(node) for node in nodes if not node["spec"].get("unschedulable")]
    return all(open_to) and any(taints <= _COMING_UP for taints in open_to)


def check_room(
    objects: Iterable[Object], nodes: list[Object], pods: list[Object], namespace: str
) -> list[Trouble]:
    """Check that the nodes have room for the requests of all parts together, and a node for the largest."""
    parts, left = wanted(objects), room(nodes, pods, but_for=namespace)
    if not left:
        return [
            Trouble(
                "No node of the cluster takes pods.",
                "Add a node, or look at why theirs are closed, and take the taints away: kubectl describe nodes",
            )
        ]
    total = sum((amount * count for _, amount, count in parts), Amount())
    has = sum(left, Amount())
    remedy = (
        "Give the cluster more (a local one: the memory of Docker's or podman's machine), stop something else on it, "
        "or switch parts off or lower their requests with --values."
    )
    if not total.fits(has):
        return [
            Trouble(f"The cluster is too small: the platform asks for {total}, and {has} are free.", remedy)
        ]
    return [
        Trouble(f"No node has room for {name}: a pod of it asks for {amount}.", remedy)
        for name, amount, _ in parts
        if not any(amount.fits(node) for node in left)
    ]


def check_storage(
    objects: Iterable[Object], storage_classes: list[Object], claims: list[Object]
) -> list[Trouble]:
    """Check that each volume claim will find a storage class."""
    names = [item["metadata"]["name"] for item in storage_classes]
    bound = {
        claim["metadata"]["name"] for claim in claims if (claim.get("status") or {}).get("phase") == "Bound"
    }
    missing = []
    for claim in _claims(objects):
        name, kind = claim["metadata"]["name"], claim["spec"].get("storageClassName")
        is_there = kind in names if kind else any(is_default(item) for item in storage_classes)
        if not is_there and name not in bound:
            missing.append((name, kind))
    if not missing:
        return []
    unnamed = [name for name, kind in missing if not kind]
    named = [f"{name} wants {kind!r}" for name, kind in missing if kind]
    said = [f"no default one, and {', '.join(unnamed)} name none"] if unnamed else []
    return [
        Trouble(
            f"The cluster lacks a storage class: {'; '.join(said + named)}. It has: {', '.join(names) or 'none'}.",
            f"Mark one as default (kubectl annotate storageclass NAME {DEFAULT_CLASS}=true), "
            "or name one in a file of values and give it with --values.",
        )
    ]


def _claims(objects: Iterable[Object]) -> list[Object]:
    found = []
    for item in objects:
        if item.get("kind") == "PersistentVolumeClaim":
            found.append(item)
        if item.get("kind") == "StatefulSet":
            name = item["metadata"]["name"]
            found += [
                {"metadata": {"name": f"{claim['metadata']['name']}-{name}-0"}, "spec": claim["spec"]}
                for claim in item["spec"].get("volumeClaimTemplates") or []
            ]
    return found


def check_namespace(
    namespace: str, there: Object | None, releases: list[str], workloads: list[Object], *, ours: str
) -> list[Trouble]:
    """Check that nobody else lives in the namespace that is to be installed in.

    Args:
        namespace: Its name.
        there: The namespace; None if it is not there.
        releases: Names of the Helm releases in it.
        workloads: Deployments, StatefulSets, DaemonSets and Jobs in it.
        ours: Name of our release.
    """
    if there is None:
        return []
    if there.get("status", {}).get("phase") == "Terminating":
        why = f"The namespace {namespace} is being deleted."
        return [Trouble(why, f"Wait until it is gone: kubectl wait --for=delete namespace/{namespace}")]
    others = sorted(set(releases) - {ours})
    strangers = sorted(
        item["metadata"]["name"]
        for item in workloads
        if not {_owner(item), _instance(item)} & {ours, *others}
        and not item["metadata"].get("ownerReferences")
        and ours not in releases
    )
    found = [f"the Helm release {name}" for name in others] + strangers
    if not found:
        return []
    return [
        Trouble(
            f"The namespace {namespace} has other owners: in it are {', '.join(found[:5])}"
            f"{' and more' if len(found) > 5 else ''}.",  # noqa: PLR2004 -- as many as one reads
            "Install in a namespace of its own: --namespace NAME.",
        )
    ]


def _owner(item: Object) -> str | None:
    return (item["metadata"].get("annotations") or {}).get(OWNER)


def _instance(item: Object) -> str | None:
    """The release that a hook's objects belong to: Helm writes no owner on them."""
    return (item["metadata"].get("labels") or {}).get("app.kubernetes.io/instance")


def check_environments(
    objects: Iterable[Object], there: list[Object], namespace: str, release: str
) -> list[Trouble]:
    """Check that the namespaces of the environments are free, or were made by this very release.

    Args:
        objects: What the charts would make.
        there: All namespaces of the cluster.
        namespace: The platform's namespace.
        release: Name of our release.
    """
    by_name = {item["metadata"]["name"]: item for item in there}
    found = []
    for item in objects:
        name = item["metadata"]["name"]
        if item.get("kind") != "Namespace" or name not in by_name:
            continue
        labels = by_name[name]["metadata"].get("labels") or {}
        annotations = by_name[name]["metadata"].get("annotations") or {}
        owner = (annotations.get(OWNER), annotations.get(OWNER_PLACE))
        if owner == (release, namespace):
            continue
        environment = (item["metadata"].get("labels") or {}).get(ENVIRONMENT, name)
        whose = (
            f"the release {owner[0]} in {owner[1]}" if owner[0] else labels.get(ENVIRONMENT, "somebody else")
        )
        found.append(
            Trouble(
                f"The namespace {name} of the environment {environment} is there already and belongs to {whose}.",
                "Give the environment another namespace in the values, or hand this one over: "
                f"kubectl annotate namespace {name} {OWNER}={release} {OWNER_PLACE}={namespace} && "
                f"kubectl label namespace {name} app.kubernetes.io/managed-by=Helm",
            )
        )
    return found
