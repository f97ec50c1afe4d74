"""A promotion into a namespace by `kubectl apply -k`, a person's word, a roll-back, and an audit of what runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from tests.cluster.conftest import CONTEXT
from tests.cluster.serving.conftest import Load, load
from tests.local.serving.conftest import Ferry

from seatrial.delivery.apply import apply_manifests
from seatrial.delivery.audit import Finding, audit
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import RolledBack, roll_back
from seatrial.errors import StoreError
from seatrial.promotion.environment import open_environment
from support.cluster_world import ADDRESS, World, wait_until
from support.harbour import MODEL, Harbour, open_harbour

pytestmark = pytest.mark.long
DEPLOYMENT = f"deployment/{MODEL}"
ATTEMPTS = 5
T = TypeVar("T")


def point_at(harbour: Harbour, world: World) -> None:
    """Let production's files in git be those of the namespace."""
    folder = harbour.root / "manifests/environments/production"
    changes = [
        (folder / "kustomization.yaml", "namespace: production", f"namespace: {world.namespace}"),
        (folder / "environment.yaml", "after: staging", f"after: staging\nnamespace: {world.namespace}"),
        (folder / MODEL / "objects.yaml", "metadata.name: seatrial", f"metadata.name: {world.namespace}"),
        (folder / MODEL / "objects.yaml", "cpu: 100m", "cpu: 10m"),
    ]
    for path, old, new in changes:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    harbour.git("commit", "--quiet", "--all", "--message", "The namespace")


@pytest.fixture
def harbour(ferry: Ferry, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harbour]:
    """Staging serves the first bundle on this machine; production is a namespace with a store of its own."""
    with contextlib.chdir(tmp_path):
        made = open_harbour(ferry, tmp_path)
        point_at(made, world)
        monkeypatch.setenv("SEATRIAL_WORKSPACE_PRODUCTION", ADDRESS)
        made.train(made.digests[0])
        made.deliver("staging")
        yield made
    kinds = "deployment,service,pdb,serviceaccount,pvc,networkpolicy,cronjob"
    world.run("delete", kinds, "--selector", f"app.kubernetes.io/instance={MODEL}")


def into_production(harbour: Harbour, world: World, person: str) -> float:
    """Promote what staging serves and roll it out; return the seconds from the approval to its being served."""
    proposal = at_store(world, lambda: harbour.propose("production"))
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)
    at_store(world, lambda: harbour.approve("production", person, proposal.digest))
    began = time.monotonic()
    at_store(world, lambda: reconcile("production"))
    applied(world)
    rolled_out(world)
    return time.monotonic() - began


def at_store(world: World, work: Callable[[], T]) -> T:
    """Do what needs the namespace's store, again where kubectl's forwarding broke off: any command can be repeated."""
    for _ in range(ATTEMPTS):
        with contextlib.suppress(StoreError), world.workspace():
            return work()
    with world.workspace():
        return work()


def applied(world: World) -> None:
    """Hand production's manifests to the cluster, with what is recorded."""
    at_store(world, lambda: apply_manifests(open_environment("production"), CONTEXT))


def rolled_out(world: World) -> None:
    """Wait until the Deployment has nothing but pods of what it asks for."""
    world.run("rollout", "status", DEPLOYMENT, "--timeout=300s", timeout=310)


def findings(world: World) -> list[Finding]:
    """Audit production, its Deployment included."""
    return at_store(world, lambda: audit("production", context=CONTEXT).findings)


def return_to(harbour: Harbour, digest: str) -> RolledBack:
    """Roll production back to a bundle, as Alice."""
    signer = harbour.key("alice")
    return roll_back(MODEL, "production", to=digest[:12], reason="test", signer=signer)


def served_by(clients: Load, digests: list[str]) -> None:
    """Check that every request was answered, by these bundles in this order."""
    said = clients.said
    print(f"{said['statuses']} answers, {len(said['failures'])} failures: {said['failures'][:3]}")
    assert said["failures"] == []
    assert said["bundles"] == digests


def test_into_production_and_back_under_load(harbour: Harbour, world: World) -> None:
    """What git names is what runs; a promotion and a roll-back answer every request; a change by hand is found."""
    first, second = harbour.digests
    seconds = [into_production(harbour, world, "alice")]
    assert findings(world) == []
    harbour.train(second)
    harbour.deliver("staging")
    with load(world) as clients:
        time.sleep(3)  # The load itself is what is waited with.
        seconds.append(into_production(harbour, world, "bob"))
        began = time.monotonic()
        back = at_store(world, lambda: return_to(harbour, first))
        applied(world)
        rolled_out(world)
        seconds.append(time.monotonic() - began)
        served_by(clients, [first, second])
    print(f"seconds from approval to served: {seconds[:2]}, of the roll-back: {seconds[2]:.1f}")
    assert back.branch is not None
    harbour.merge(back.branch.name)
    assert findings(world) == []
    world.run("set", "env", DEPLOYMENT, f"BUNDLE={second}")
    rolled_out(world)
    (found,) = findings(world)
    assert found.what == "served"
    assert f"BUNDLE of server {second[:12]}; by the record it is {first[:12]}" in found.message
    applied(world)
    wait_until(lambda: not findings(world), "the manifests to count again", 60)
