"""From a commit to a served production model and back, in three namespaces, under traffic, as the guide says."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from tests.cluster.serving.conftest import load
from tests.local.serving.conftest import Ferry

from seatrial.feedback.joining import read_recorded
from seatrial.promotion.pointer import pointer_log
from support.cluster_world import Command, wait_until
from support.harbour import MODEL
from support.three_namespaces import (
    DELIVERER,
    DEPLOYMENT,
    ENVIRONMENTS,
    VISITOR,
    Namespaces,
    three_namespaces,
)

pytestmark = pytest.mark.timeout(1800)
PAUSE = 0.5
"""Seconds between two requests of a thread; there are four in each namespace."""
BACK_SECONDS = 60
"""What a roll-back may take on a machine that has a core for each process; on a busier one, as many times as long."""
FORBIDDEN, DIFFERS, UNAPPROVED = 18, 23, 22
"""Exit codes of commands."""
Said = dict[str, Any]


@pytest.fixture(scope="module")
def way(
    kubectl: Command, context: str, ferry: Ferry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Namespaces]:
    """The three namespaces, all of which serve a first bundle."""
    root = tmp_path_factory.mktemp("way")
    with contextlib.chdir(root), three_namespaces(kubectl, context, ferry, root) as made:
        made.apply("test")
        made.train()
        made.settled("test")
        made.propose("staging")
        made.job("staging")
        made.settled("staging")
        made.propose("production")
        approve(made, "alice")
        made.seatrial("reconcile", "production", "--context", DELIVERER)
        made.settled("production")
        yield made


def approve(way: Namespaces, person: str) -> None:
    """Let a person say yes to what was judged for production last."""
    key = ("--key", str(way.harbour.root / f"{person}.key"))
    way.seatrial("approve", MODEL, "--env", "production", *key, "--comment", "looked at the figures")


@dataclass(frozen=True)
class Move:
    """A bundle that came into service, by what clients saw.

    Attributes:
        what: In words.
        environment: Where.
        digest: The bundle.
        began: When, in seconds since 1970, what brought it was begun.
    """

    what: str
    environment: str
    digest: str
    began: float

    def seconds(self, said: Said, until: float) -> tuple[float, float]:
        """Return after how many seconds it answered first, and after how many alone, before the next one began."""
        changes = [(at, by) for at, by in said["changes"] if self.began <= at <= until]
        assert changes[-1][1] == self.digest, f"{self.what}: {changes}"
        first = next(at for at, by in changes if by == self.digest)
        return first - self.began, changes[-1][0] - self.began


def change_the_model(way: Namespaces) -> None:
    """Commit a change of the model, from which another bundle comes."""
    contract = way.harbour.root / "models" / MODEL / "model.yaml"
    text = contract.read_text()
    assert "missed: 5" in text
    contract.write_text(text.replace("missed: 5", "missed: 6"))
    way.harbour.git("commit", "--quiet", "--all", "--message", "A missed delay costs more")


def into_test(way: Namespaces) -> Move:
    """Commit, and train; test serves what passes its gates by itself."""
    change_the_model(way)
    began = time.time()
    return Move("from a commit to test", "test", way.train(), began)


def into_staging(way: Namespaces) -> Move:
    """Merge what was proposed; the job that CI runs then serves it, and who has no right does not."""
    digest = way.harbour.served("test")
    assert digest is not None
    text = way.propose("staging")
    assert text.startswith(f"# {MODEL} in staging: ")
    print(text)
    refused(way, "reconcile", "staging")
    began = time.time()
    way.job("staging")
    way.settled("staging")
    return Move("from a merge to staging", "staging", digest, began)


def into_production(way: Namespaces) -> Move:
    """What is merged is served when a person has approved, and not before."""
    digest = way.harbour.served("staging")
    assert digest is not None
    way.propose("production")
    said = way.seatrial("reconcile", "production", "--context", DELIVERER, code=UNAPPROVED)
    assert "wants 1 approval" in said
    approve(way, "bob")
    began = time.time()
    way.seatrial("reconcile", "production", "--context", DELIVERER)
    way.settled("production")
    return Move("from an approval to production", "production", digest, began)


def back(way: Namespaces, first: str) -> Move:
    """Take production back by one command, which who has no right is refused; git hears of it on a branch."""
    key = ("--key", str(way.harbour.root / "alice.key"), "--reason", "too many false alarms")
    refused(way, "rollback", MODEL, "--env", "production", *key)
    began = time.time()
    said = way.json("rollback", MODEL, "--env", "production", *key, "--context", DELIVERER)
    assert said["digest"] == first
    log = pointer_log(way.harbour.workspace("production"), "production", MODEL)
    recorded_at = datetime.fromisoformat(log.all()[-1].content["at"]).timestamp()
    print(f"the roll-back was recorded after {recorded_at - began:.0f} s")
    way.settled("production")
    way.harbour.merge(said["branch"]["name"])
    return Move("of a roll-back in production", "production", first, began)


def refused(way: Namespaces, *command: str) -> None:
    """Let somebody who may only look give a command: it is refused with a reason, and nothing is moved."""
    environment = command[1] if command[0] == "reconcile" else "production"
    world, served = way.worlds[environment], way.harbour.served(environment)
    before = world.get("deployment", MODEL)["metadata"]["generation"]
    said = way.seatrial(*command, "--context", VISITOR, code=FORBIDDEN)
    print(said)
    assert f"The user of {VISITOR} may not change {environment} there" in said
    assert f'User "{VISITOR}" cannot patch resource' in said
    assert way.harbour.served(environment) == served
    assert world.get("deployment", MODEL)["metadata"]["generation"] == before


def account(way: Namespaces, answered: dict[str, Said], moves: list[Move]) -> None:
    """Check that no request failed and that each answer is in the tables once; print what was measured."""
    for move in moves:
        later = [one.began for one in moves if one.environment == move.environment and one.began > move.began]
        first, alone = move.seconds(answered[move.environment], min(later, default=math.inf))
        print(f"| {move.what} | {first:.1f} | {alone:.1f} |")
    for name, said in answered.items():
        print(f"{name}: {said['statuses']} answers, failures: {said['failures'][:3]}")
        assert said["failures"] == []
        assert set(said["statuses"]) == {"200"}
        names: list[str] = said["predictions"]
        wait_until(partial(_has_recorded, way, name, set(names)), f"{name}'s predictions", 300)
        assert len(names) == len(set(names))
    slower = max(1.0, os.getloadavg()[1] / (os.cpu_count() or 1))
    print(f"{slower:.1f} processes waited for each core")
    assert alone < BACK_SECONDS * slower, "the roll-back took too long"


def _has_recorded(way: Namespaces, environment: str, ids: set[str]) -> bool:
    return ids <= recorded(way, environment)


def recorded(way: Namespaces, environment: str) -> set[str]:
    """Return the ids of an environment's predictions that are in its tables, each of which is there once."""
    ids = read_recorded(way.harbour.workspace(environment), MODEL).select("prediction_id").collect()
    assert ids["prediction_id"].is_unique().all()
    return set(ids["prediction_id"])


def test_the_whole_way_and_back_under_traffic(way: Namespaces) -> None:
    """A commit becomes a served production model, and one command takes it back; every request is answered."""
    first = way.harbour.served("production")
    assert first is not None
    with contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(load(way.worlds[name], pause=PAUSE)) for name in ENVIRONMENTS}
        moves = [into_test(way), into_staging(way), into_production(way), back(way, first)]
        second = moves[0].digest
        assert [move.digest for move in moves] == [second, second, second, first]
        answered = {name: asked.said for name, asked in clients.items()}
    account(way, answered, moves)
    for name in ENVIRONMENTS:
        assert answered[name]["bundles"] == [first, second]
    assert way.harbour.served("production") == first
    assert way.harbour.served("staging") == way.harbour.served("test") == second
    log = pointer_log(way.harbour.workspace("production"), "production", MODEL)
    kinds = ["gates", "approval", "promotion"]
    assert [record.content["kind"] for record in log.all()] == [*kinds, *kinds, "roll-back"]
    assert log.faults() == []
    for name in ("staging", "production"):
        way.seatrial("audit", name, "--context", VISITOR)


def drifted(way: Namespaces, audit: tuple[str, ...]) -> set[str]:
    """Return what an audit finds of the cluster's objects; pods that are being replaced are not among it."""
    findings = way.json(*audit, code=DIFFERS)["findings"]
    return {one["message"] for one in findings if one["what"] == "cluster"}


def test_changes_by_hand_are_found_and_repaired(way: Namespaces) -> None:
    """An audit by who may only look names each; git's values come back by reconcile, what was added goes by hand."""
    world, audit = way.worlds["production"], ("audit", "production", "--context", VISITOR)
    way.seatrial(*audit)
    world.run("scale", DEPLOYMENT, "--replicas=1")
    world.run("set", "env", DEPLOYMENT, "GREETING=hello")

    found = drifted(way, audit)
    where = f"Deployment {MODEL} in {world.namespace} of {VISITOR}"
    assert f"{where}: spec.replicas is 1; by git it is 2." in found
    added = next(message for message in found if "GREETING" in message)
    assert added.startswith(f"{where}: spec.template.spec.containers.server.env.GREETING is ")
    assert len(found) == 2
    print(found)

    way.seatrial("reconcile", "production", "--context", DELIVERER)
    assert drifted(way, audit) == {added}
    world.run("set", "env", DEPLOYMENT, "GREETING-")
    way.settled("production")
    way.seatrial(*audit)
