"""What is known before an installation: room, storage, and who is there already."""

from __future__ import annotations

from typing import Any

import pytest

from seatrial.cluster import preflight
from seatrial.cluster.preflight import Amount, quantity

Object = dict[str, Any]
MEBI = 2**20


def container(cpu: str = "100m", memory: str = "128Mi") -> Object:
    return {"name": "main", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": memory}}}


def deployment(name: str, *containers: Object, replicas: int = 1, first: Object | None = None) -> Object:
    spec = {"containers": list(containers), "initContainers": [first] if first else []}
    return {
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "template": {"spec": spec}},
    }


def node(name: str = "one", cpu: str = "2", memory: str = "4Gi", **spec: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": spec,
        "status": {"allocatable": {"cpu": cpu, "memory": memory}},
    }


def pod(namespace: str, memory: str, *, node_name: str = "one", phase: str = "Running") -> Object:
    return {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"nodeName": node_name, "containers": [container("500m", memory)]},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", 0.25),
        ("2", 2.0),
        (1, 1.0),
        ("1.5Gi", 1.5 * 2**30),
        ("512Ki", 2.0**19),
        ("1G", 1e9),
        ("128974848", 128974848),
    ],
)
def test_quantities_are_numbers(text: str | int, number: float) -> None:
    """Kubernetes' quantities mean what its documentation says."""
    assert quantity(text) == pytest.approx(number)


def test_an_init_container_counts_where_it_asks_for_more() -> None:
    """A pod asks for its containers together, or for its largest init container, each resource by itself."""
    spec = deployment(
        "a", container("100m", "100Mi"), container("100m", "100Mi"), first=container("50m", "1Gi")
    )

    asked = preflight.requested(spec["spec"]["template"]["spec"])

    assert asked == Amount(0.2, 1024 * MEBI)


def test_what_fits_is_no_trouble() -> None:
    """Requests that the nodes have room for pass, with the pods of the namespace itself not counted twice."""
    parts = [deployment("a", container("500m", "2Gi"))]
    pods = [pod("seatrial", "3Gi"), pod("other", "1Gi"), pod("other", "9Gi", phase="Succeeded")]

    assert preflight.check_room(parts, [node()], pods, "seatrial") == []


def test_a_cluster_that_is_too_small_is_named_with_both_figures() -> None:
    """What is asked for and what is free are both in the message."""
    parts = [deployment("a", container("500m", "2Gi"), replicas=2), deployment("b", container("500m", "1Gi"))]

    (trouble,) = preflight.check_room(parts, [node()], [pod("other", "1Gi")], "seatrial")

    assert "asks for 1.50 cores and 5.00 GiB" in trouble.message
    assert "1.50 cores and 3.00 GiB of memory are free" in trouble.message
    assert "--values" in trouble.remedy


def test_the_largest_pod_needs_one_node() -> None:
    """Two small nodes have room for all together, but not for the pod that asks for more than either has."""
    parts = [deployment("large", container("1", "3Gi"))]

    (trouble,) = preflight.check_room(parts, [node("one", memory="2Gi"), node("two", memory="2Gi")], [], "n")

    assert "No node has room for large" in trouble.message


def test_nodes_that_take_no_pods_have_no_room() -> None:
    """A cordoned node and a tainted one do not count."""
    closed = [node("one", unschedulable=True), node("two", taints=[{"key": "k", "effect": "NoSchedule"}])]

    (trouble,) = preflight.check_room([deployment("a", container())], closed, [], "n")

    assert "No node of the cluster takes pods" in trouble.message


NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
KEPT_FREE = {"key": "role", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node(taints=[NOT_READY])], True),
        ([node("one", unschedulable=True), node("two", taints=[NOT_READY])], True),
        ([node("one", taints=[NOT_READY]), node("two", taints=[KEPT_FREE])], True),
        ([node("one", taints=[NOT_READY]), node("two")], False),
        ([node(taints=[NOT_READY, KEPT_FREE])], False),
        ([node(unschedulable=True)], False),
        ([], False),
    ],
)
def test_a_node_that_has_just_begun_is_waited_for(nodes: list[Object], expected: bool) -> None:
    """Only where none takes pods, and one will without anybody's doing."""
    assert preflight.is_coming_up(nodes) is expected


def claims_of(storage_class: str | None) -> list[Object]:
    spec = {"storageClassName": storage_class} if storage_class else {}
    template = {"metadata": {"name": "data"}, "spec": spec}
    return [
        {"kind": "StatefulSet", "metadata": {"name": "minio"}, "spec": {"volumeClaimTemplates": [template]}},
        {"kind": "PersistentVolumeClaim", "metadata": {"name": "metrics"}, "spec": spec},
    ]


def storage_class(name: str, *, default: bool = False) -> Object:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {"metadata": {"name": name, "annotations": annotations}}


def test_claims_without_a_default_class_are_named() -> None:
    """Where no storage class is the default, each claim that names none is told, with the classes that are there."""
    (trouble,) = preflight.check_storage(claims_of(None), [storage_class("slow")], [])

    assert "data-minio-0, metrics name none" in trouble.message
    assert "It has: slow" in trouble.message
    assert "is-default-class=true" in trouble.remedy


def test_a_class_that_is_not_there_is_named() -> None:
    """A claim that wants an unknown class is told with the class."""
    (trouble,) = preflight.check_storage(claims_of("fast"), [storage_class("slow", default=True)], [])

    assert "data-minio-0 wants 'fast'" in trouble.message


def test_claims_that_are_bound_or_have_a_default_are_no_trouble() -> None:
    """A default class serves all; a claim that is bound already needs none."""
    bound = [
        {"metadata": {"name": name}, "status": {"phase": "Bound"}} for name in ("data-minio-0", "metrics")
    ]

    assert preflight.check_storage(claims_of(None), [storage_class("standard", default=True)], []) == []
    assert preflight.check_storage(claims_of(None), [], bound) == []


def namespaced(name: str, *, release: str | None = None, **labels: str) -> Object:
    annotations = {preflight.OWNER: release} if release else {}
    return {"metadata": {"name": name, "annotations": annotations, "labels": labels}}


def test_a_namespace_with_other_owners_is_refused() -> None:
    """A stranger's release and a stranger's workload are both named."""
    there = {"metadata": {"name": "apps"}}
    strangers = [namespaced("shop", release="shop"), namespaced("cart")]

    (trouble,) = preflight.check_namespace("apps", there, ["shop"], strangers, ours="seatrial")

    assert "the Helm release shop, cart" in trouble.message
    assert "--namespace" in trouble.remedy


def test_an_empty_namespace_and_our_own_are_free() -> None:
    """A namespace that is not there, empty, ours, or left with our hook's job can be installed in."""
    there = {"metadata": {"name": "seatrial"}}
    hook = namespaced("credentials", **{"app.kubernetes.io/instance": "seatrial"})

    assert preflight.check_namespace("seatrial", None, [], [], ours="seatrial") == []
    assert preflight.check_namespace("seatrial", there, [], [], ours="seatrial") == []
    assert (
        preflight.check_namespace("seatrial", there, ["seatrial"], [namespaced("x")], ours="seatrial") == []
    )
    assert preflight.check_namespace("seatrial", there, [], [hook], ours="seatrial") == []


def test_a_namespace_that_is_being_deleted_is_waited_for() -> None:
    """Nothing can be made in it, so that is said with the command that waits."""
    there = {"metadata": {"name": "seatrial"}, "status": {"phase": "Terminating"}}

    (trouble,) = preflight.check_namespace("seatrial", there, [], [], ours="seatrial")

    assert "is being deleted" in trouble.message
    assert "kubectl wait" in trouble.remedy


def test_an_environments_namespace_of_somebody_else_is_refused() -> None:
    """It is named with its owner, and with the commands that hand it over; our own is taken."""
    wanted = [
        {"kind": "Namespace", "metadata": {"name": "test", "labels": {"seatrial.io/environment": "test"}}}
    ]
    theirs = {"metadata": {"name": "test"}}
    ours = {
        "metadata": {
            "name": "test",
            "annotations": {preflight.OWNER: "seatrial", preflight.OWNER_PLACE: "seatrial"},
        }
    }

    (trouble,) = preflight.check_environments(wanted, [theirs], "seatrial", "seatrial")

    assert "belongs to somebody else" in trouble.message
    assert "kubectl annotate namespace test" in trouble.remedy
    assert preflight.check_environments(wanted, [ours], "seatrial", "seatrial") == []
    assert preflight.check_environments(wanted, [], "seatrial", "seatrial") == []
