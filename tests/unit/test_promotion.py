"""Promotion: only what passed every gate, and only by somebody who has looked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from seatrial.bundle import Bundle
from seatrial.errors import BundleError, GateError, PointerMovedError, StoreError, UsageError
from seatrial.promotion import Pointer, pointer_log, promote, read_pointer, wait_for_bundle
from seatrial.workspace import Workspace
from support.bundles import AS_OF, VERDICTS, bundle_files, loaded_bundle
from support.small_model import CONTRACT

NOTHING = Pointer(0, None)


def bundle(workspace: Workspace, *, run: str = "run", **files: Any) -> Bundle:
    """Write a bundle and load it."""
    return loaded_bundle(workspace, bundle_files(**files), run=run)


def move(workspace: Workspace, promoted: Bundle, expected: Pointer, environment: str = "local") -> Pointer:
    """Promote a bundle."""
    return promote(
        workspace, promoted, environment=environment, expected=expected, reason="test", as_of=AS_OF
    )


def test_what_is_promoted_is_served_and_remembered(workspace: Workspace) -> None:
    """The pointer moves from bundle to bundle, and its history says who, when and why."""
    first, second = bundle(workspace, run="1"), bundle(workspace, run="2")
    assert read_pointer(workspace, "local", "visits") == NOTHING

    one = move(workspace, first, NOTHING)
    two = move(workspace, second, one)

    assert (
        read_pointer(workspace, "local", "visits")
        == two
        == Pointer(2, second.digest, "2024-04-01T00:00:00+00:00")
    )
    records = [record.content for record in pointer_log(workspace, "local", "visits").all()]
    assert [(record["previous"], record["digest"]) for record in records] == [
        (None, first.digest),
        (first.digest, second.digest),
    ]
    assert {record["reason"] for record in records} == {"test"}
    assert all(record["by"] for record in records)
    assert all(datetime.fromisoformat(record["at"]) <= datetime.now(UTC) for record in records)


def test_promoting_what_is_served_changes_nothing(workspace: Workspace) -> None:
    """The same bundle again is no new generation."""
    mine = bundle(workspace)
    pointer = move(workspace, mine, NOTHING)

    assert move(workspace, mine, pointer) == pointer


def test_a_stale_view_is_refused(workspace: Workspace) -> None:
    """Whoever decided before somebody else promoted must look again (threats: P5)."""
    first, second, third = (bundle(workspace, run=run) for run in "123")
    move(workspace, first, NOTHING)

    with pytest.raises(
        PointerMovedError, match=r"moved from nothing \(generation 0\) to .* \(generation 1\)"
    ):
        move(workspace, second, NOTHING)
    one = read_pointer(workspace, "local", "visits")
    move(workspace, second, one)
    with pytest.raises(PointerMovedError):
        move(workspace, third, one)
    # What the stale view took for served is not served any more, so promoting it is no matter of course.
    with pytest.raises(PointerMovedError):
        move(workspace, first, one)
    assert read_pointer(workspace, "local", "visits").digest == second.digest


def test_an_environment_that_the_contract_does_not_have(workspace: Workspace) -> None:
    """A mistyped environment is refused with those that there are, and a name that climbs likewise."""
    for name in ("lokal", "production", "../local", ""):
        with pytest.raises(UsageError, match="has no environment .* It has: local."):
            move(workspace, bundle(workspace), NOTHING, name)


def verdicts(**changes: Any) -> list[dict[str, Any]]:
    """Return the verdicts with those of one check changed: ``calibration={"value": 1}``, or None to leave it out."""
    changed = [{**verdict, **(changes.get(verdict["check"], {}) or {})} for verdict in VERDICTS]
    return [verdict for verdict in changed if changes.get(verdict["check"], {}) is not None]


FAILED = {
    "a failed gate": (verdicts(calibration={"outcome": "fail"}), "calibration failed"),
    "two failed gates": (
        verdicts(calibration={"outcome": "fail"}, parity={"outcome": "fail"}),
        "calibration failed, parity failed",
    ),
    "a gate that was left out": (verdicts(calibration=None), "calibration has no verdict"),
    "data tests that were left out": (verdicts(data_tests=None), "data_tests has no verdict"),
    "no verdicts at all": ([], "calibration has no verdict, data_tests has no verdict"),
    "a gate under another name": (verdicts(parity={"check": "Parity"}), "parity has no verdict"),
    "a gate that could not be computed": (
        verdicts(parity={"outcome": "fail", "value": None}),
        "parity failed",
    ),
}


@pytest.mark.parametrize("case", FAILED)
def test_a_bundle_that_did_not_pass_is_not_promoted(workspace: Workspace, case: str) -> None:
    """Every gate of the contract must have a verdict, and none may have failed (threats: P9)."""
    given, message = FAILED[case]

    with pytest.raises(GateError, match=message):
        move(workspace, bundle(workspace, verdicts=given), NOTHING)
    assert read_pointer(workspace, "local", "visits") == NOTHING


FORGED = {
    "a pass without a value": {"value": None},
    "a value that is a text": {"value": "0.9"},
    "a value that is a boolean": {"value": True},
    "a bound that is a text": {"bound": "0.9"},
    "an outcome that there is not": {"outcome": "ok"},
    "an outcome in capitals": {"outcome": "PASS"},
    "a key that there is not": {"waived": True},
    "no check": {"check": None},
    "an outcome that is a number": {"outcome": 0},
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_verdict_cannot_be_read(workspace: Workspace, case: str) -> None:
    """What is no verdict is an error of the bundle, and nothing is promoted (threats: P9)."""
    given = verdicts(minimum_quality=FORGED[case])

    with pytest.raises(BundleError, match="verdicts.json of bundle .* is wrong at 1"):
        move(workspace, bundle(workspace, verdicts=given), NOTHING)


@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"1e999"])
def test_a_value_that_is_not_finite_cannot_be_read(workspace: Workspace, text: bytes) -> None:
    """NaN in a verdict is no value, even where JSON would let it pass."""
    content = bundle_files()["verdicts.json"].replace(b"0.7", text)
    files = {**bundle_files(), "verdicts.json": content}

    with pytest.raises(BundleError, match="verdicts.json"):
        move(workspace, loaded_bundle(workspace, files), NOTHING)


def test_an_optional_gate_must_have_its_verdict_if_the_contract_has_it(workspace: Workspace) -> None:
    """The bundle's own contract says which gates there must be."""
    contract = CONTRACT.replace("gates:\n", "gates:\n  latency: {maximum_milliseconds: 10}\n")

    with pytest.raises(GateError, match="latency has no verdict"):
        move(workspace, bundle(workspace, contract=contract), NOTHING)
    good = [*VERDICTS, {"check": "latency", "outcome": "pass", "value": 1.0, "bound": 10.0}]
    assert move(workspace, bundle(workspace, contract=contract, verdicts=good), NOTHING).generation == 1


def test_a_user_without_a_name_may_promote(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the user may be a number only."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", nobody)

    move(workspace, bundle(workspace), NOTHING)

    (record,) = pointer_log(workspace, "local", "visits").all()
    assert record.content["by"].startswith("uid ")


def test_waiting_ends_when_a_bundle_is_served(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits is told why, once a reason, also while the store fails, and goes on when a bundle is there."""
    made = bundle(workspace)

    def fail() -> Pointer:
        raise StoreError("The store failed.")

    served = move(workspace, made, NOTHING)
    answers = iter([fail, fail, lambda: NOTHING, lambda: NOTHING, lambda: served])
    monkeypatch.setattr("seatrial.promotion.pointer.read_pointer", lambda *_: next(answers)())
    monkeypatch.setattr("seatrial.promotion.pointer.LOOK_SECONDS", 0)
    told: list[str] = []

    pointer = wait_for_bundle(workspace, "local", "visits", report=told.append)

    assert pointer == served
    assert told == [
        "Waiting: The store failed.",
        "Waiting: The environment 'local' serves no bundle of 'visits' yet.",
    ]


def test_waiting_has_a_limit(workspace: Workspace) -> None:
    """After its time, waiting is given up with what was waited for and what to do."""
    with pytest.raises(BundleError, match="serves no bundle of 'visits' yet. Train one"):
        wait_for_bundle(workspace, "local", "visits", report=lambda _: None, limit_seconds=0)
