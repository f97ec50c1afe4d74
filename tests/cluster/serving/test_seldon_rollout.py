"""A roll-out by the predictors of a SeldonDeployment, led by the manifests' own job, and what a mesh makes of it.

Where the cluster has Istio, with the gateway that ``charts/serving`` names, clients ask at the gateway. Where it has
not, there is no mesh: Istio's definitions alone are made, without types, and the clients do what its proxies would.
They follow the VirtualService that Seldon's operator writes: each request goes to one predictor's Service by the
weights, and in the shadow a copy of it to the other.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.cluster.serving.conftest import REST_PORT, STOP, Load, load
from tests.cluster.serving.test_rollout import (
    PAUSE,
    PLACE,
    PODS,
    Way,
    account,
    and_git_is_told,
    approved,
    failing_bundle,
    patiently,
    rules,
    watched,
)
from tests.local.serving.conftest import Ferry

from seatrial.feedback.joining import read_comparisons, read_recorded
from seatrial.promotion.pointer import read_pointer
from support.cluster_world import IMAGES, ROOT, Command, World, wait_until
from support.harbour import MODEL
from support.killed_delivery import record_comparisons
from support.three_namespaces import DELIVERER, VISITOR, three_namespaces

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
STEPS = [0, 20, 60]
BACK_STEPS = [30]
ROUTES = f"{STOP}.routes"
OTHER = f"{MODEL}-candidate"
SELDON = "seldondeployments.machinelearning.seldon.io"
RBAC = "rbac.authorization.k8s.io"
RIGHTS = [
    (DELIVERER, "get,create,patch", SELDON),
    (VISITOR, "get", SELDON),
    (DELIVERER, "get", f"roles.{RBAC},rolebindings.{RBAC}"),
    (VISITOR, "get", f"roles.{RBAC},rolebindings.{RBAC}"),
]
"""Of each person what it may do, beside its ClusterRole, with the resources that this does not know of."""
ISTIO = "networking.istio.io"
GATEWAY_NAMESPACE, GATEWAY = "istio-system", "seldon-gateway"
"""What ``charts/serving`` names by default."""
GATEWAY_PORT = 80
LOOK_SECONDS = 0.5
"""Between two looks at what is said to the mesh, each of which takes a share of what the machine can do."""
KINDS = {"virtualservices": "VirtualService", "destinationrules": "DestinationRule"}
Split = tuple[int, int | None, bool]
"""Percent of the requests for the first predictor and for the other, where it is there; and whether it gets copies."""


def definition(plural: str, kind: str) -> dict[str, Any]:
    """Return a definition of one of Istio's kinds that takes whatever it says."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{ISTIO}"},
        "spec": {
            "group": ISTIO,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "scope": "Namespaced",
            "versions": [
                {"name": "v1alpha3", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
            ],
        },
    }


@pytest.fixture(scope="module")
def gateway(kubectl: Command) -> Iterator[str]:
    """The address of Istio's gateway; empty where the cluster has no Istio, and its definitions are made here."""
    if kubectl("get", "crds", "--output", "name").count(ISTIO):
        place = ("--namespace", GATEWAY_NAMESPACE)
        if GATEWAY not in kubectl("get", f"gateways.{ISTIO}", *place, "--output", "name"):
            pytest.skip(f"this cluster has Istio's definitions, and no gateway {GATEWAY_NAMESPACE}/{GATEWAY}")
        selector = kubectl(
            "get", f"gateways.{ISTIO}", GATEWAY, *place, "--output", "jsonpath={.spec.selector}"
        )
        chosen = ",".join(f"{name}={value}" for name, value in json.loads(selector).items())
        kubectl(
            "label", "pods", *place, "--selector", chosen, f"access.seatrial.io/{MODEL}=true", "--overwrite"
        )
        (found,) = json.loads(kubectl("get", "services", *place, "--selector", chosen, "--output", "json"))[
            "items"
        ]
        yield f"{found['spec']['clusterIP']}:{GATEWAY_PORT}"
        return
    made = [definition(plural, kind) for plural, kind in KINDS.items()]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    kubectl("apply", "--filename", "-", stdin=listed)
    for plural in KINDS:
        kubectl("wait", "--for=condition=Established", f"crd/{plural}.{ISTIO}", "--timeout=60s")
    try:
        yield ""
    finally:
        kubectl("delete", "--filename", "-", "--ignore-not-found", stdin=listed)


@dataclass(frozen=True)
class Meshed(Way):
    """An environment whose requests a mesh splits.

    Attributes:
        gateway: Address of the mesh's gateway; empty: clients follow what is said to a mesh.
    """

    gateway: str


@pytest.fixture(scope="module")
def way(
    kubectl: Command,
    helm: Command,
    context: str,
    ferry: Ferry,
    gateway: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Meshed]:
    """Production serves a first bundle in two pods of a SeldonDeployment; staging has two others in its store."""
    first, second = ferry.digests[:2]
    failing = failing_bundle(ferry)
    root = tmp_path_factory.mktemp("rolled-out")
    with (
        contextlib.chdir(root),
        three_namespaces(
            kubectl, context, ferry, root, {PLACE: rules(STEPS)}, seldon=PLACE, clients=GATEWAY_NAMESPACE
        ) as made,
    ):
        world = made.worlds[PLACE]
        if why := world.missing_image(IMAGES["seldon-operator"]):
            pytest.skip(why)
        chart = str(ROOT / "charts" / "serving")
        helm(
            "install",
            "serving",
            chart,
            "--namespace",
            world.namespace,
            "--set=istio.enabled=true",
            "--wait",
            "--timeout=6m",
        )
        for number, (person, verbs, resources) in enumerate(RIGHTS):
            role = f"{person}-{number}"
            world.run("create", "role", role, f"--verb={verbs}", f"--resource={resources}")
            world.run("create", "rolebinding", role, f"--role={role}", f"--user={person}")
        approved(made, first)
        # The job's rights are handed out once, by who may.
        folder = str(made.harbour.root / "manifests/environments" / PLACE)
        kubectl("apply", "-k", folder, "--selector", "app.kubernetes.io/component=rights")
        made.seatrial("reconcile", PLACE, "--context", DELIVERER)
        yield Meshed(made, first, second, failing, gateway)


@dataclass
class Mesh:
    """What the operator's VirtualService says, followed by the clients as it changes, where no mesh does that.

    Attributes:
        way: The environment.
        seen: What it said, one after the other.
        stages: What the record said then: percent of the requests for the candidate; None without a roll-out.
    """

    way: Meshed
    seen: list[Split] = field(default_factory=list)
    stages: list[int | None] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def world(self) -> World:
        """The namespace."""
        return self.way.made.worlds[PLACE]

    def look(self) -> None:
        """Look once, and let the clients follow what is new."""
        (http, _) = self.world.get("virtualservice", MODEL)["spec"]["http"]
        weights = {one["destination"]["host"].split(".")[0]: one.get("weight", 0) for one in http["route"]}
        assert sum(weights.values()) == 100, weights
        split = (weights[MODEL], weights.get(OTHER), "mirror" in http)
        if self.seen[-1:] == [split]:
            return
        self.seen.append(split)
        self.stages.append(self.way.stage())
        print(f"the mesh: {split}, the record: {self.stages[-1]}")
        if self.way.gateway:
            return
        hosts = {name: self._host(name) for name, weight in weights.items() if weight}
        said = {
            "weights": {host: weights[name] for name, host in hosts.items()},
            "mirror": self._host(OTHER) if "mirror" in http else "",
        }
        write = f"cat > {ROUTES}.new && mv {ROUTES}.new {ROUTES}"
        self.world.run("exec", "--stdin", "client", "--", "sh", "-c", write, stdin=json.dumps(said))

    def _host(self, service: str) -> str:
        return f"{self.world.get('service', service)['spec']['clusterIP']}:{REST_PORT}"

    def follow(self) -> None:
        """Look until it is ended."""
        while not self._ended.wait(LOOK_SECONDS):
            try:
                self.look()
            except (
                AssertionError
            ) as error:  # The API of an overloaded cluster may not answer; the next look will.
                if "Unable to connect" not in str(error) and "timed out" not in str(error):
                    raise

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()


@contextlib.contextmanager
def meshed(way: Meshed) -> Iterator[tuple[Mesh, Load]]:
    """Ask as through a mesh, from before the block to its end."""
    mesh = Mesh(way)
    with load(mesh.world, pause=PAUSE, gateway=way.gateway) as clients:
        mesh.look()
        thread = threading.Thread(target=mesh.follow)
        thread.start()
        try:
            yield mesh, clients
        finally:
            mesh.end()
            thread.join()


def alone(way: Meshed) -> bool:
    """Return whether the first predictor is the only one again, for the mesh and in pods."""
    found = way.made.worlds[PLACE].get("seldondeployment", MODEL)
    names = [one["name"] for one in found["spec"]["predictors"]]
    return names == ["main"] and found["status"]["state"] == "Available" and len(way.made.pods(PLACE)) == PODS


def not_recorded_twice(way: Meshed, said: dict[str, Any]) -> None:
    """Print how many copies were recorded as requests: those between a step of the record and the mesh's."""
    recorded = read_recorded(way.made.harbour.workspace(PLACE), MODEL)
    found = set(patiently(lambda: recorded.select("prediction_id").collect())["prediction_id"])
    more = len(found - set(said["predictions"]))
    print(f"{said['copies']} answers to copies; {more} rows recorded that no client asked for")
    if way.gateway:  # Nobody hears of the answers to a mesh's copies.
        assert more < len(said["predictions"]) / 10
        return
    assert said["copies"].get("200", 0) > 20
    assert more < sum(said["copies"].values())


def came_by_both(way: Meshed, said: dict[str, Any]) -> None:
    """Check that both predictors were asked; at a gateway, which one it was is not seen."""
    print(f"{said['hosts']} answers by who was asked")
    assert len(said["hosts"]) == (1 if way.gateway else 2)


def test_from_the_shadow_to_all_requests(way: Meshed) -> None:
    """The mesh's weights follow the record's steps, no request fails, and the first predictor's pods stay."""
    before = way.pods()
    assert len(before) == PODS
    with meshed(way) as (mesh, clients):
        began = time.time()
        way.begin(way.second, "forward")
        watched(way)
        print(way.ended("forward", "complete"))
        wait_until(lambda: alone(way), "the candidate's predictor to be gone", 120)
        wait_until(lambda: mesh.seen[-1] == (100, None, False), "the mesh to have heard of it", 60)
        wait_until(lambda: way.answer(way.second), "both pods to answer with it", 60)
        clients.goes_on(50)
        said = clients.said

    account(way, said)
    assert mesh.seen == [
        (100, None, False),
        (100, None, True),
        (80, 20, False),
        (40, 60, False),
        (100, 0, False),
        (100, None, False),
    ]
    assert mesh.stages == [None, 0, 20, 60, None, None]
    print(f"{time.time() - began:.0f} s in all")
    came_by_both(way, said)
    assert said["bundles"] == [way.first, way.second]
    assert way.pods() == before
    steps = [record for record in way.records() if record["kind"] == "stage"]
    assert [record["weight"] for record in steps] == STEPS
    assert {verdict["outcome"] for verdict in way.records()[-1]["guards"]} == {"pass"}
    not_recorded_twice(way, said)
    way.made.seatrial("audit", PLACE, "--context", VISITOR)


def without_candidate(way: Meshed, mesh: Mesh) -> None:
    """Wait until the job has taken a candidate back, and the mesh has heard that its predictor is gone."""
    print(way.ended("back", "failed"))
    wait_until(lambda: alone(way), "the candidate's predictor to be gone", 120)
    wait_until(lambda: mesh.seen[-1] == (100, None, False), "the mesh to have heard of it", 60)


def taken_back(way: Meshed, mesh: Mesh, clients: Load, candidate: str) -> dict[str, Any]:
    """Wait until the job has taken a candidate back and its predictor is gone; return what clients were answered."""
    without_candidate(way, mesh)
    clients.goes_on(50)
    said = clients.said
    account(way, said)
    print(f"the mesh said {mesh.seen}")
    begun, back = way.records()[-2:]
    assert (begun["kind"], begun["digest"], begun["weight"]) == ("stage", candidate, BACK_STEPS[0])
    assert (back["kind"], back["previous"]) == ("roll-back", candidate)
    assert back["digest"] == way.made.harbour.served(PLACE)
    and_git_is_told(way)
    way.made.worlds[PLACE].run("delete", "job", "back")
    return said


@contextlib.contextmanager
def in_a_long_canary(way: Meshed) -> Iterator[tuple[str, Mesh, Load]]:
    """Let the mesh give a third of the requests to the bundle that is not served, in a step of an hour."""
    candidate = way.first if way.made.harbour.served(PLACE) == way.second else way.second
    way.made.harbour.rules(PLACE, rules(BACK_STEPS).replace('"5s"', '"1h"'))
    way.made.harbour.git(
        "commit", "--quiet", "--all", "--allow-empty", "--message", "A canary at once, for long"
    )
    with meshed(way) as (mesh, clients):
        way.begin(candidate, "back")
        wait_until(lambda: mesh.seen[-1] == (70, 30, False), "the mesh to give it requests", 300)
        clients.goes_on(100)
        yield candidate, mesh, clients


def test_a_guard_puts_the_weights_back(way: Meshed) -> None:
    """A candidate that goes wrong with a third of the requests: none fails, and the mesh gives it none again."""
    served, before = str(way.made.harbour.served(PLACE)), way.pods()
    with in_a_long_canary(way) as (candidate, mesh, clients):
        stage = patiently(lambda: read_pointer(way.made.harbour.workspace(PLACE), PLACE, MODEL)).stage
        assert stage is not None
        for _ in range(10):  # What its servers would record of rows that it does not answer.
            record_comparisons(way.made.harbour.workspace(PLACE), stage, failed=True)
        said = taken_back(way, mesh, clients, candidate)

    assert mesh.seen == [
        (100, None, False),
        (100, 0, False),
        (70, 30, False),
        (100, 0, False),
        (100, None, False),
    ]
    assert set(said["bundles"]) == {way.first, way.second}
    came_by_both(way, said)
    assert way.pods() == before
    assert way.made.harbour.served(PLACE) == served


def test_one_that_answers_nothing_is_taken_back(way: Meshed) -> None:
    """What is compared beside the first predictor says so, whether or not the mesh gave it requests: none fails."""
    served, before = str(way.made.harbour.served(PLACE)), way.pods()
    way.made.harbour.rules(PLACE, rules(BACK_STEPS))
    way.made.harbour.git("commit", "--quiet", "--all", "--message", "A canary at once")
    with meshed(way) as (mesh, clients):
        way.begin(way.failing, "back")
        watched(way)
        said = taken_back(way, mesh, clients, way.failing)

    assert set(mesh.seen) <= {(100, None, False), (100, 0, False), (70, 30, False)}
    assert said["bundles"] == [served]
    assert way.pods() == before
    rows = patiently(read_comparisons(way.made.harbour.workspace(PLACE), MODEL).collect)
    print(Counter(rows.filter(rows["candidate"] == way.failing)["error"].to_list()))


@contextlib.contextmanager
def without_pods(world: World, deployment: str) -> Iterator[None]:
    """Take the pods of a Deployment away, and those that come in their place, in the block: as a node that is lost."""
    ended = threading.Event()
    named = ("--selector", f"app={deployment}")

    def take() -> None:
        while not ended.wait(2):  # None comes up in that time.
            with contextlib.suppress(AssertionError):
                world.run("delete", "pods", *named, "--grace-period=0", "--force", "--wait=false")

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_one_whose_pods_are_gone_is_taken_back(way: Meshed) -> None:
    """Requests that the mesh gives to nobody fail until the job has looked twice, and none does after that."""
    served, before = str(way.made.harbour.served(PLACE)), way.pods()
    with in_a_long_canary(way) as (candidate, mesh, clients):
        began = time.time()
        with without_pods(mesh.world, f"{MODEL}-candidate-0-server"):
            wait_until(lambda: way.stage() is None, "the candidate to be taken back", 120)
        recorded = time.time()
        without_candidate(way, mesh)
        told = time.time()
        clients.goes_on(100)
        said = clients.said

    failed = [float(failure.split()[0]) for failure in said["failures"]]
    print(f"{said['statuses']} answers, {len(failed)} failures, e.g. {said['failures'][:2]}")
    print(
        f"taken back {recorded - began:.0f} s after the pods went, the mesh told after {told - began:.0f} s; failures "
        f"from {min(failed, default=began) - began:.0f} s to {max(failed, default=began) - began:.0f} s"
    )
    assert max(failed, default=began) < told + 1
    back = way.records()[-1]
    assert (back["kind"], back["previous"], back["digest"]) == ("roll-back", candidate, served)
    assert back["reason"] == f"none of its pods answers, and {BACK_STEPS[0]}% of the requests are theirs"
    assert way.pods() == before
    and_git_is_told(way)
    mesh.world.run("delete", "job", "back")
