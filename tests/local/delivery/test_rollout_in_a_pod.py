"""A roll-out that a pod leads on: it has an environment's files and no clone, and others act beside it."""

from __future__ import annotations

import sys

import pytest
from tests.local.delivery.conftest import Pod
from tests.local.serving.conftest import wait_for

from seatrial.cli import (
    main,  # noqa: F401 -- it registers the commands
    promotion,
)
from seatrial.cli.app import run
from seatrial.delivery import rollout
from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollout import RollOutState, advance, tell_git_of_roll_backs
from seatrial.errors import StoreError
from seatrial.promotion.environment import ENVIRONMENTS_VARIABLE
from seatrial.promotion.pointer import Stage, read_pointer
from support.harbour import MODEL, Harbour
from support.killed_delivery import record_comparisons


def stage(harbour: Harbour) -> Stage:
    """Return the step of the roll-out that staging is in."""
    found = read_pointer(harbour.workspace("staging"), "staging", MODEL).stage
    assert found is not None
    return found


def record(harbour: Harbour, *, failed: bool) -> None:
    """Record what servers would of the step."""
    record_comparisons(harbour.workspace("staging"), stage(harbour), failed=failed)


def led_on() -> RollOutState:
    """Lead the roll-out on, as a pod does, until it makes a step."""
    found: list[RollOutState] = []

    def left() -> bool:
        found[:] = advance("staging", git=False)
        return found[0].state != "rolling out" or "on to" in found[0].why

    wait_for(left, "a step of the roll-out")
    return found[0]


def test_a_pod_begins_and_ends_a_roll_out(rolling: Harbour, pod: Pod) -> None:
    """What git says is enough for it: it needs neither the environment before nor a clone."""
    with pod(rolling):
        (begun,) = reconcile("staging")
        states = []
        for _ in range(2):
            record(rolling, failed=False)
            states.append(led_on().state)

        assert begun.state == "rolling out"
        assert states == ["rolling out", "served"]
        assert rolling.served("staging") == rolling.digests[1]
    assert audit("staging").findings == []


def test_a_guard_in_a_pod_takes_back_and_a_clone_tells_git(rolling: Harbour, pod: Pod) -> None:
    """The roll-back is recorded without git, and whoever reconciles in a clone next finds its branch."""
    with pod(rolling):
        reconcile("staging")
        record(rolling, failed=True)
        assert led_on().state == "rolled back"
    assert rolling.served("staging") == rolling.digests[0]
    assert rolling.git("branch", "--list", "rollback/*") == ""
    assert [found.what for found in audit("staging").findings] == ["git"]

    tell_git_of_roll_backs("staging")

    rolling.merge(f"rollback/staging/{MODEL}/{rolling.digests[0][:12]}")
    assert [one.state for one in reconcile("staging")] == ["in step"]
    assert audit("staging").findings == []


def test_older_files_do_not_take_a_candidate_back(rolling: Harbour, pod: Pod) -> None:
    """A pod whose files are older than the roll-out waits for newer ones, and trips a guard all the same."""
    newer = rolling.git("rev-parse", "HEAD")
    rolling.git("checkout", "--quiet", "HEAD^1")
    with pod(rolling):
        rolling.git("checkout", "--quiet", newer)
        with pytest.MonkeyPatch.context() as person:
            person.delenv(ENVIRONMENTS_VARIABLE)
            reconcile("staging")
        record(rolling, failed=False)

        (waits,) = advance("staging", git=False)
        assert (waits.state, "git, as it is known here" in waits.why) == ("rolling out", True), waits.why

        record(rolling, failed=True)
        assert led_on().state == "rolled back"


@pytest.mark.parametrize(("failed", "code"), [(False, 0), (True, 9)])
def test_a_person_who_waits_hears_how_somebody_else_ended_it(
    rolling: Harbour,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failed: bool,
    code: int,
) -> None:
    """`reconcile --wait` says that a candidate is served, or went back, also where a pod led it there."""
    real = rollout.advance
    looks: list[list[RollOutState]] = []

    def beside(name: str, **options: object) -> list[RollOutState]:
        """Look first as the person, from then on only after the pod did its work."""
        while looks and (tried := read_pointer(rolling.workspace(name), name, MODEL).stage) is not None:
            record_comparisons(rolling.workspace(name), tried, failed=failed)
            real(name, git=False)
        looks.append(real(name, **options))  # type: ignore[arg-type]
        return looks[-1]

    monkeypatch.setattr(rollout, "advance", beside)
    monkeypatch.setattr(sys, "argv", ["seatrial", "reconcile", "staging", "--wait", "--every", "0.1"])

    assert run() == code
    said = capsys.readouterr()
    assert looks[-1] == []
    assert ("was rolled back: error_share is 1.0" in said.err) == failed
    assert ("served." in said.out) != failed


@pytest.mark.parametrize(("patience", "code"), [(300.0, 0), (0.0, 17)])
def test_a_store_that_is_away_for_a_while_does_not_end_the_job(
    rolling: Harbour,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    patience: float,
    code: int,
) -> None:
    """`reconcile --wait` says so and looks again, as nobody else would look at the guards; in the end it gives up."""
    real = rollout.advance
    looks: list[bool] = []

    def away(name: str, **options: object) -> list[RollOutState]:
        """Look the first time; find the store away three times; from then on look at a candidate that does well."""
        looks.append(len(looks) not in {1, 2, 3})
        if not looks[-1]:
            raise StoreError("The store of staging does not answer.", remedy="Look at it.")
        tried = read_pointer(rolling.workspace(name), name, MODEL).stage
        if tried is not None:
            record_comparisons(rolling.workspace(name), tried, failed=False)
        return real(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rollout, "advance", away)
    monkeypatch.setattr(promotion, "PATIENCE_SECONDS", patience)
    monkeypatch.setattr(sys, "argv", ["seatrial", "reconcile", "staging", "--wait", "--every", "0.1"])

    assert run() == code
    said = capsys.readouterr()
    assert said.out.count("is looked at again: The store of staging does not answer.") == (0 if code else 3)
    assert rolling.served("staging") == rolling.digests[0 if code else 1]
