"""The laws of every trigger rule: it fires at its bound, once for one cause, and rests afterwards."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.contract.schema import Triggers
from seatrial.monitoring import MonitorResult
from seatrial.record_log import RecordLog
from seatrial.triggers import (
    Champion,
    Course,
    Decision,
    course,
    decide,
    finish,
    fire,
    has_died,
    may_be_taken_up,
    owner,
    take_up,
    trigger_log,
    unfinished,
)
from seatrial.verdicts import Outcome, Verdict
from seatrial.workspace import Workspace

TRAINED = datetime(2013, 7, 1, tzinfo=UTC)
NOW = datetime(2013, 9, 29, tzinfo=UTC)
DAY = timedelta(days=1)
CHAMPION = Champion("a" * 64, TRAINED, 160_000)
COOL_DOWN = timedelta(days=28)
OFF = Triggers(on_drift=False, on_quality=False, new_rows=None, every=None, cool_down=COOL_DOWN)


def window(*failed: str, bundle: str = CHAMPION.digest, one_client: tuple[str, ...] = ()) -> MonitorResult:
    """What a monitor found, with the checks that failed, and those of them that rest on one client."""
    checks = ("drift", "prediction_drift", "missing", "unseen", "outliers", "quality")
    verdicts = tuple(
        Verdict(
            check=f"monitor.{check}",
            outcome=Outcome.FAIL if check in failed else Outcome.PASS,
            value=0.6 if check in failed else 0.1,
            bound=0.3,
            evidence={"one_client": "10.0.0.9"} if check in one_client else {},
        )
        for check in checks
    )
    return MonitorResult(
        model="flights",
        bundle=bundle,
        start=TRAINED,
        end=NOW,
        rows=9_000,
        other_rows=0,
        outcomes=8_000,
        outcome_rate=0.25,
        label_rate=0.24,
        verdicts=verdicts,
        drift=None,
        quality=None,
    )


# Each rule with the contract that has it alone, and what it sees below and at its bound.
RULES = {
    "on_drift": ({"on_drift": True}, {"result": window("missing")}, {"result": window("drift")}),
    "on_drift, of the prediction": (
        {"on_drift": True},
        {"result": window("quality")},
        {"result": window("prediction_drift")},
    ),
    "on_quality": ({"on_quality": True}, {"result": window("drift")}, {"result": window("quality")}),
    "new_rows": ({"new_rows": 80_000}, {"new_rows": 79_999}, {"new_rows": 80_000}),
    "every": ({"every": 90 * DAY}, {"as_of": NOW - timedelta(microseconds=1)}, {"as_of": NOW}),
}
every_rule = pytest.mark.parametrize("rule", RULES)


@pytest.fixture
def log(tmp_path: Path) -> RecordLog:
    return trigger_log(Workspace.open(tmp_path), "flights")


def look(log: RecordLog, contract: dict[str, object], seen: dict[str, object]) -> Decision:
    """Decide by one contract on what is seen."""
    rules = OFF.model_copy(update=contract)
    facts = {"result": None, "new_rows": 0, "as_of": NOW, **seen}
    facts.setdefault("now", facts["as_of"])
    return decide("flights", rules, champion=CHAMPION, log=log, **facts)  # type: ignore[arg-type]


def fire_at_once(decision: Decision, log: RecordLog, *, by: str = "") -> Decision:
    """Fire at the very time of the decision."""
    return fire(decision, log, by=by, now=decision.as_of)


@every_rule
def test_a_rule_fires_at_its_bound_and_not_below(log: RecordLog, rule: str) -> None:
    """At the bound the rule asks and says value and bound; just below it does not."""
    contract, below, at = RULES[rule]

    assert not look(log, contract, below).fires
    decision = look(log, contract, at)
    assert decision.fires
    assert decision.causes == [rule.split(",", maxsplit=1)[0]]
    (asked,) = decision.rules
    assert asked.value is not None
    assert asked.bound is not None
    assert asked.message


@every_rule
def test_a_rule_that_is_absent_never_fires(log: RecordLog, rule: str) -> None:
    """A contract without the rule does not look at it, whatever is seen."""
    decision = look(log, {}, RULES[rule][2])

    assert (decision.fires, decision.rules) == (False, ())


@every_rule
def test_deciding_writes_nothing(log: RecordLog, rule: str) -> None:
    """A decision may be made any number of times; only firing leaves a record."""
    contract, _, at = RULES[rule]

    assert look(log, contract, at) == look(log, contract, at)
    assert log.all() == []


@every_rule
def test_the_record_says_what_fired(log: RecordLog, rule: str) -> None:
    """The record keeps the causes with value and bound, the champion, who asked, and names the run."""
    contract, _, at = RULES[rule]
    decision = fire_at_once(look(log, contract, at), log, by="run-7")
    (record,) = log.all()

    assert decision.run == "flights-trigger-0001"
    assert record.content["causes"] == decision.causes
    assert record.content["champion"] == CHAMPION.digest
    assert record.content["by"] == "run-7"
    assert [rule["bound"] for rule in record.content["rules"]] == [rule.bound for rule in decision.rules]


@every_rule
def test_many_monitors_that_see_the_same_start_one_run(log: RecordLog, rule: str) -> None:
    """Eight monitors decide on the same and fire at the same moment: one run, seven are told (T1)."""
    contract, _, at = RULES[rule]
    barrier = threading.Barrier(8)
    decisions: list[Decision] = []

    def watch() -> None:
        decision = look(RecordLog(log.workspace, log.prefix), contract, at)
        barrier.wait(timeout=30)
        decisions.append(fire_at_once(decision, log))

    threads = [threading.Thread(target=watch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert [decision.fires for decision in decisions].count(True) == 1
    assert len(log.all()) == 1
    assert all("Somebody else fired" in decision.suppressed for decision in decisions if not decision.fires)


@every_rule
def test_a_later_look_finds_the_cool_down(log: RecordLog, rule: str) -> None:
    """Within the cool-down the same cause is held back, until when is said; at its end it may fire again."""
    contract, _, at = RULES[rule]
    first = fire_at_once(look(log, contract, at), log)
    until = first.as_of + COOL_DOWN

    late = look(log, contract, {**at, "as_of": until - timedelta(microseconds=1)})
    assert (late.fires, late.causes, late.cool_down_until) == (False, first.causes, until)
    assert f"lasts until {until:%Y-%m-%d %H:%M} UTC" in late.suppressed
    assert fire_at_once(late, log) == late
    assert look(log, contract, {**at, "as_of": until}).fires


def test_a_flapping_value_fires_once_a_cool_down(log: RecordLog) -> None:
    """A value that crosses its bound at every one of 100 looks starts one run (T2)."""
    contract, below, at = RULES["new_rows"]
    fired = [
        fire_at_once(look(log, contract, {**(at if i % 2 else below), "as_of": NOW + i * DAY / 4}), log).fires
        for i in range(100)
    ]

    assert fired.count(True) == 1


@given(offsets=st.lists(st.integers(-400, 400), min_size=1, max_size=40), cool_down=st.integers(1, 60))
def test_any_order_of_looks_fires_at_most_once_a_cool_down(
    tmp_path_factory: pytest.TempPathFactory, offsets: list[int], cool_down: int
) -> None:
    """Whatever the clock does, forth and back, two firings are at least one cool-down apart (T6)."""
    log = trigger_log(Workspace.open(tmp_path_factory.mktemp("log")), "flights")
    contract = {"new_rows": 1, "cool_down": cool_down * DAY}
    fired = []
    for offset in offsets:
        decision = fire_at_once(look(log, contract, {"new_rows": 1, "as_of": NOW + offset * DAY}), log)
        if decision.fires:
            fired.append(decision.as_of)

    assert fired == [datetime.fromisoformat(record.content["as_of"]) for record in log.all()]
    assert all(later - earlier >= cool_down * DAY for earlier, later in itertools.pairwise(fired))


def test_a_clock_that_goes_back_does_not_fire_again(log: RecordLog) -> None:
    """A day before the last firing, by a clock set back, is within its cool-down (T6)."""
    contract, _, at = RULES["new_rows"]
    fire_at_once(look(log, contract, at), log)

    assert not look(log, contract, {**at, "as_of": NOW - DAY}).fires


def test_missed_looks_are_caught_up_by_one_run(log: RecordLog) -> None:
    """After three months in which nobody looked, the rule by time fires once, not thrice (T6)."""
    contract = {"every": 30 * DAY}
    late = TRAINED + 100 * DAY

    assert fire_at_once(look(log, contract, {"as_of": late}), log).fires
    assert not fire_at_once(look(log, contract, {"as_of": late + timedelta(minutes=1)}), log).fires


def test_a_flood_of_old_rows_is_one_run(log: RecordLog) -> None:
    """A backfill of a million rows that arrives in ten batches starts one run (T4)."""
    contract, _, _ = RULES["new_rows"]
    fired = [
        fire_at_once(
            look(log, contract, {"new_rows": batch * 100_000, "as_of": NOW + batch * DAY / 24}), log
        ).fires
        for batch in range(1, 11)
    ]

    assert fired.count(True) == 1


def test_a_window_of_an_earlier_model_does_not_fire(log: RecordLog) -> None:
    """Drift and bad quality of a bundle that was replaced in the meantime are no cause any more."""
    stale = {"result": window("drift", "quality", bundle="b" * 64)}
    decision = look(log, {"on_drift": True, "on_quality": True}, stale)

    assert not decision.fires
    assert "does not serve any more" in decision.rules[0].message


ON_VERDICTS = {"on_drift": True, "on_quality": True}


@pytest.mark.parametrize("check", ["drift", "prediction_drift", "quality"])
def test_what_rests_on_one_client_is_a_cause_only_where_the_contract_says_so(
    log: RecordLog, check: str
) -> None:
    """A verdict that fails by one client's predictions alone is held back and says why (T5)."""
    seen = {"result": window(check, one_client=(check,))}
    decision = look(log, ON_VERDICTS, seen)
    (held,) = (rule for rule in decision.rules if rule.held_back)

    assert not decision.fires
    assert "One client alone is no cause (triggers.one_client in the contract)." in held.message
    assert look(log, {**ON_VERDICTS, "one_client": True}, seen).causes == [held.name]


def test_drift_that_others_see_too_is_a_cause_beside_one_client_s(log: RecordLog) -> None:
    """Of two failed drift verdicts the one that does not rest on one client fires, and is shown."""
    found = window("drift", "prediction_drift", one_client=("drift",))
    decision = look(log, ON_VERDICTS, {"result": found})

    assert decision.causes == ["on_drift"]
    assert decision.rules[0].message.startswith("monitor.prediction_drift")


def test_no_window_is_no_cause(log: RecordLog) -> None:
    """Where no monitor has run, rules on its verdicts do not fire; the others still do."""
    decision = look(log, {"on_drift": True, "on_quality": True, "new_rows": 1}, {"new_rows": 1})

    assert decision.causes == ["new_rows"]


def test_all_rules_that_ask_are_named(log: RecordLog) -> None:
    """Several causes at once start one run that names them all."""
    contract = {"on_drift": True, "on_quality": True, "new_rows": 80_000, "every": 90 * DAY}
    decision = fire_at_once(look(log, contract, {"result": window("drift"), "new_rows": 80_000}), log)

    assert decision.causes == ["on_drift", "new_rows", "every"]
    assert len(log.all()) == 1


DIE_AFTER_FIRING = """
import os, signal, sys
from datetime import UTC, datetime
from seatrial.contract.schema import Triggers
from seatrial.triggers import Champion, decide, fire, trigger_log
from seatrial.workspace import Workspace

log = trigger_log(Workspace.open(sys.argv[1]), "flights")
rules = Triggers(on_drift=False, on_quality=False, new_rows=1, every=None)
now = datetime(2013, 9, 29, tzinfo=UTC)
champion = Champion("a" * 64, datetime(2013, 7, 1, tzinfo=UTC), 1)
decision = decide("flights", rules, None, champion=champion, new_rows=1, as_of=now, log=log)
fire(decision, log, by="run-7")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_whose_starter_was_killed_is_found_and_not_fired_again(tmp_path: Path, log: RecordLog) -> None:
    """A run fired by a process that was then killed is found until it has ended; none is added (T3)."""
    died = subprocess.run([sys.executable, "-c", DIE_AFTER_FIRING, tmp_path], check=False)
    assert died.returncode == -9

    contract, _, at = RULES["new_rows"]
    assert not fire(look(log, contract, at), log).fires
    left = unfinished(log)
    assert left is not None
    assert left.owner == "run-7"
    assert finish(log, left, outcome={"bundle": "b" * 64})
    assert not finish(log, left, outcome={"bundle": "c" * 64})
    assert unfinished(log) is None
    assert course(log, left.record).outcome == {"bundle": "b" * 64}
    assert len(log.all()) == 1


START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = OFF.run_limit


def fired(log: RecordLog) -> Course:
    """A cause that was fired by run-1, which then says nothing more."""
    contract, _, at = RULES["new_rows"]
    fire(look(log, contract, at), log, by="run-1", now=START)
    left = unfinished(log)
    assert left is not None
    return left


def test_a_run_has_died_when_its_limit_is_over(log: RecordLog) -> None:
    """It counts as alive until the limit by the clock, also by one that was set back, and as died from then on (T3)."""
    left = fired(log)

    assert not has_died(left, OFF, now=START + LIMIT - timedelta(microseconds=1))
    assert not has_died(left, OFF, now=START - DAY)
    assert has_died(left, OFF, now=START + LIMIT)


def test_of_many_that_take_up_a_dead_run_one_does(log: RecordLog) -> None:
    """Eight monitors that find the same dead run: one trains in its place, seven are told (T1, T3)."""
    left = fired(log)
    barrier = threading.Barrier(8)
    won: list[str] = []

    def take(name: str) -> None:
        barrier.wait(timeout=30)
        if take_up(log, left, by=name, now=START + LIMIT):
            won.append(name)

    threads = [threading.Thread(target=take, args=(f"taker-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    (winner,) = won
    now = unfinished(log)
    assert now is not None
    assert (now.owner, now.runs) == (winner, 2)
    assert (owner(log, "run-1"), owner(log, winner), owner(log, "stranger")) == (winner, winner, None)
    assert not has_died(now, OFF, now=START + LIMIT + DAY / 8)
    assert len(log.all()) == 1


def test_an_end_and_a_take_over_exclude_each_other(log: RecordLog) -> None:
    """Whichever of the two comes first, the other is told, so no cause is trained for after its end (T3)."""
    left = fired(log)
    assert finish(log, left, outcome={"served": True})
    assert not take_up(log, left, by="run-2")
    assert unfinished(log) is None

    _, _, at = RULES["new_rows"]
    late = {**at, "as_of": NOW + COOL_DOWN}
    fire(look(log, {"new_rows": 1}, late), log, by="run-3", now=START)
    again = unfinished(log)
    assert again is not None
    assert take_up(log, again, by="run-4", now=START + LIMIT)
    assert not finish(log, again, outcome={"served": True})
    assert owner(log, "run-3") == "run-4"


def test_a_cause_that_kills_its_runs_is_given_up(log: RecordLog) -> None:
    """After three runs that died nobody takes the cause up, however long it is left (T3)."""
    left, now = fired(log), START
    for number in (2, 3):
        now += LIMIT
        assert may_be_taken_up(left, OFF, champion=CHAMPION.digest, as_of=NOW, now=now)
        assert take_up(log, left, by=f"run-{number}", now=now)
        found = unfinished(log)
        assert found is not None
        left = found

    assert left.runs == 3
    assert not may_be_taken_up(left, OFF, champion=CHAMPION.digest, as_of=NOW, now=now + 100 * LIMIT)


@pytest.mark.parametrize(
    ("champion", "as_of"),
    [("b" * 64, NOW), (None, NOW), (CHAMPION.digest, NOW + COOL_DOWN)],
    ids=["another model serves", "none serves", "the cool-down is over"],
)
def test_a_cause_that_stands_no_more_is_not_taken_up(
    log: RecordLog, champion: str | None, as_of: datetime
) -> None:
    """A dead run is left alone where its cause was another model's, or the rules may decide anew (T3)."""
    left = fired(log)

    assert may_be_taken_up(left, OFF, champion=CHAMPION.digest, as_of=NOW, now=START + LIMIT)
    assert not may_be_taken_up(left, OFF, champion=champion, as_of=as_of, now=START + LIMIT)


def test_nothing_is_fired_while_a_run_is_at_work(log: RecordLog) -> None:
    """Where the cool-down is shorter than a run, the next cause waits until the run has ended or died (T3)."""
    short = {"new_rows": 1, "cool_down": timedelta(minutes=1)}
    seen = {"new_rows": 1, "as_of": NOW + DAY}
    left = fired(log)

    held = look(log, short, {**seen, "now": START + LIMIT / 2})
    assert (held.fires, held.causes) == (False, ["new_rows"])
    assert "Run run-1 is at work" in held.suppressed
    assert look(log, short, {**seen, "now": START + LIMIT}).fires
    finish(log, left, outcome={"served": False})
    assert look(log, short, {**seen, "now": START + LIMIT / 2}).fires
