"""Two at once, and a kill at any moment: one wins, and what was begun is finished by the same command."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from seatrial.promotion.pointer import is_move, pointer_log
from seatrial.workspace import Workspace
from support.harbour import Harbour
from support.processes import say_go, started

pytestmark = pytest.mark.long

PROCESSES = 16
MOVES = 12


def test_racing_moves_are_linearizable(tmp_path: Path) -> None:
    """Sixteen promote and roll back at once: each move that was made follows the one that its maker saw.

    The record's numbers are the order. A history is linearizable if it can be put in an order that
    agrees with time (Herlihy and Wing 1990): no move may have ended before one with a smaller number
    began, and each must follow exactly the move before it (threats: P3, P4).
    """
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(started("race_moves.py", tmp_path, f"p{n}", str(MOVES)))
            for n in range(PROCESSES)
        ]
        say_go(racers)
        outputs = [racer.communicate(timeout=300) for racer in racers]
    assert [error for _, error in outputs] == [""] * PROCESSES
    said = [json.loads(line) for out, _ in outputs for line in out.splitlines()]

    log = pointer_log(Workspace.open(tmp_path), "production", "ferry")
    records = log.all()
    moves = [record for record in records if is_move(record.content)]
    won = {event["number"]: event for event in said if event["number"] is not None}
    assert log.faults() == []
    assert len(won) == len(moves) == sum(event["number"] is not None for event in said) > PROCESSES
    assert any(event["number"] is None for event in said)
    assert len(records) > len(moves)
    before = 0
    for record in moves:
        event = won[record.number]
        assert record.content["digest"] == event["digest"]
        assert record.content["follows"] == event["saw"] == before
        before = record.number
    ordered = [won[record.number] for record in moves]
    for place, event in enumerate(ordered[:-1]):
        assert event["began"] < min(later["ended"] for later in ordered[place + 1 :])


def kills(job: str, base: Harbour, folder: Path) -> list[dict[str, Any]]:
    """Kill a job at every call and return what was found after each kill."""
    with started("killed_delivery.py", job, base.root, folder, *base.digests) as process:
        out, error = process.communicate(timeout=550)
    assert error == ""
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def trained(harbour: Harbour) -> Harbour:
    """A harbour in which ``test`` serves a bundle, and nothing else does."""
    harbour.train(harbour.digests[0])
    return harbour


def test_a_delivery_killed_at_every_call(trained: Harbour, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Old or new, never half; the same commands again finish it, and each move is made once (threats: P1)."""
    found = kills("deliver", trained, tmp_path_factory.mktemp("killed"))

    digest = trained.digests[0]
    assert all(kill["killed"] for kill in found), [kill for kill in found if not kill["killed"]]
    assert len(found) > 30  # Nine files twice, two judgements, an approval and two moves, and git.
    for kill in found:
        for between in (kill["between"]["staging"], kill["between"]["production"]):
            assert (between["serves"], between["moves"]) in ((None, 0), (digest, 1)), kill["at"]
            assert set(between["findings"]) <= {"git"}, kill["at"]
        done = {"serves": digest, "moves": 1, "weights": [], "findings": []}
        assert kill["done"] == {"staging": done, "production": done}, kill["at"]
    states = {(kill["between"]["staging"]["moves"], kill["between"]["production"]["moves"]) for kill in found}
    assert states == {(0, 0), (1, 0), (1, 1)}


def test_a_roll_back_killed_at_every_call(served: Harbour, tmp_path_factory: pytest.TempPathFactory) -> None:
    """It goes back by one and no further, and git is told of it in the end."""
    found = kills("return", served, tmp_path_factory.mktemp("killed"))

    first, second = served.digests
    assert all(kill["killed"] for kill in found), [kill for kill in found if not kill["killed"]]
    for kill in found:
        between, done = kill["between"]["production"], kill["done"]["production"]
        assert (between["serves"], between["moves"]) in ((second, 2), (first, 3)), kill["at"]
        assert done["serves"] == first, kill["at"]
        assert done["moves"] == 3, kill["at"]
    assert {kill["between"]["production"]["moves"] for kill in found} == {2, 3}


@pytest.fixture
def rolled(harbour: Harbour) -> Harbour:
    """A harbour whose staging serves the first bundle and rolls out the second, which ``test`` serves."""
    first, second = harbour.digests
    harbour.train(first)
    harbour.deliver("staging")
    harbour.rules("staging", "rollout: {steps: [0, 50], minimum_rows: 20, minimum_time: 1s}\n")
    harbour.train(second)
    return harbour


def test_a_roll_out_killed_at_every_call(rolled: Harbour, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each step is made or not, and made once; the same commands again lead it to its end."""
    found = kills("roll out", rolled, tmp_path_factory.mktemp("killed"))

    first, second = rolled.digests
    assert all(kill["killed"] for kill in found), [kill for kill in found if not kill["killed"]]
    for kill in found:
        between, done = kill["between"]["staging"], kill["done"]["staging"]
        known = [(first, 1, weights) for weights in ([], [0], [0, 50])]
        assert (between["serves"], between["moves"], between["weights"]) in [*known, (second, 2, [0, 50])], (
            kill["at"]
        )
        assert set(between["findings"]) <= {"git"}, kill["at"]
        assert done == {"serves": second, "moves": 2, "weights": [0, 50], "findings": []}, kill["at"]
    assert {tuple(kill["between"]["staging"]["weights"]) for kill in found} == {(), (0,), (0, 50)}


def test_a_guard_killed_at_every_call(rolled: Harbour, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The candidate is on trial or taken back, once, and in the end git knows and all agree."""
    proposal = rolled.propose("staging")
    assert proposal.branch is not None
    rolled.merge(proposal.branch.name)
    found = kills("take back", rolled, tmp_path_factory.mktemp("killed"))

    first = rolled.digests[0]
    assert all(kill["killed"] for kill in found), [kill for kill in found if not kill["killed"]]
    for kill in found:
        between, done = kill["between"]["staging"], kill["done"]["staging"]
        assert (between["serves"], between["moves"]) in ((first, 1), (first, 2)), kill["at"]
        assert done == {"serves": first, "moves": 2, "weights": [0], "findings": []}, kill["at"]
    assert {kill["between"]["staging"]["moves"] for kill in found} == {1, 2}
