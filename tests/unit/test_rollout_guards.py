"""The guards of a roll-out: judged once enough rows are there, tripped as soon as they cannot be kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.contract.schema import Guards
from seatrial.delivery.guards import Judged, judge_guards
from seatrial.feedback.rows import COMPARISONS
from seatrial.server.candidate import share_of
from seatrial.verdicts import Outcome

GUARDS = Guards(maximum_quality_drop=None)
QUALITY = Guards(maximum_quality_drop=0.1, minimum_outcomes=50)


def rows(count: int, *, outcomes: list[float | None] | None = None, **changes: Any) -> pl.DataFrame:
    """Return so many rows of a candidate that says what the bundle says that serves; a list changes the first ones."""
    row: dict[str, Any] = {
        "compared_at": datetime.now(UTC),
        "stage": 3,
        "bundle": "a",
        "candidate": "b",
        "probability": 0.3,
        "candidate_probability": 0.3,
        "flagged": False,
        "candidate_flagged": False,
        "microseconds": 200,
        "candidate_microseconds": 200,
        "error": None,
    }
    columns: dict[str, list[Any]] = {name: [value] * count for name, value in row.items()}
    columns["prediction_id"] = [str(n) for n in range(count)]
    for name, change in changes.items():
        values = change if isinstance(change, list) else [change] * count
        columns[name] = values + columns[name][len(values) :]
    known = pl.Series("outcome", outcomes or [None] * count, dtype=pl.Float64)
    return pl.DataFrame({name: columns[name] for name in COMPARISONS}, schema=COMPARISONS).with_columns(known)


def found(judged: Judged) -> dict[str, Outcome]:
    """Return the outcome of each guard that was judged."""
    return {verdict.check: verdict.outcome for verdict in judged.verdicts}


def test_a_candidate_that_says_the_same_passes() -> None:
    """With enough rows, each guard has its verdict and nothing is waited for."""
    judged = judge_guards(GUARDS, rows(100), minimum_rows=100)

    names = ("error_share", "agreement", "latency_ratio", "probability_shift")
    assert found(judged) == dict.fromkeys(names, Outcome.PASS)
    assert (judged.waiting, judged.failed, judged.rows) == ([], [], 100)


def test_too_few_rows_are_waited_for() -> None:
    """With a row too few nothing is judged, and what is missing is said."""
    judged = judge_guards(GUARDS, rows(99), minimum_rows=100)

    assert judged.verdicts == []
    assert judged.waiting[0] == "error_share: 99 of 100 rows"
    assert judge_guards(GUARDS, rows(0), minimum_rows=100).verdicts == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "it failed": ({"candidate_probability": [None] * 2, "candidate_flagged": [None] * 2}, "error_share"),
    "it says something else": ({"candidate_flagged": [True] * 11}, "agreement"),
    "it is slow": ({"candidate_microseconds": [700] * 2}, "latency_ratio"),
    "its probabilities are others": ({"candidate_probability": 0.36}, "probability_shift"),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_guard_trips(case: str) -> None:
    """Each on its own kind of fault, and no other does."""
    changes, guard = WRONG[case]

    judged = judge_guards(GUARDS, rows(100, **changes), minimum_rows=100)

    assert [verdict.check for verdict in judged.failed] == [guard]


def test_what_cannot_be_kept_any_more_is_not_waited_for() -> None:
    """Two failures of a hundred are too many, however few rows are there; one may be the only one."""
    two = rows(2, candidate_probability=None, candidate_flagged=None, error="RequestError")
    one = rows(1, candidate_probability=None, candidate_flagged=None)
    other = rows(11, candidate_flagged=True)

    assert [v.check for v in judge_guards(GUARDS, two, minimum_rows=100).failed] == ["error_share"]
    assert judge_guards(GUARDS, two, minimum_rows=100).failed[0].evidence == {"RequestError": 2}
    assert judge_guards(GUARDS, one, minimum_rows=100).failed == []
    assert [v.check for v in judge_guards(GUARDS, other, minimum_rows=100).failed] == ["agreement"]


@pytest.mark.parametrize(("candidate", "outcome"), [([0.1, 0.9], Outcome.PASS), ([0.9, 0.1], Outcome.FAIL)])
def test_live_quality_on_the_same_rows(candidate: list[float], outcome: Outcome) -> None:
    """The candidate's ROC AUC may not fall too far below that of the bundle that serves, where outcomes are known."""
    outcomes = [0.0, 1.0] * 50
    judged = judge_guards(
        QUALITY.model_copy(update={"maximum_probability_shift": 1.0}),
        rows(100, probability=[0.2, 0.8] * 50, candidate_probability=candidate * 50, outcomes=outcomes),
        minimum_rows=100,
    )

    assert found(judged)["quality_drop"] is outcome


@pytest.mark.parametrize("outcomes", [[1.0] * 100, [0.0, 1.0] * 20 + [None] * 60])
def test_outcomes_are_waited_for(outcomes: list[float | None]) -> None:
    """Of one kind, or too few, they say nothing of quality yet."""
    judged = judge_guards(QUALITY, rows(100, outcomes=outcomes), minimum_rows=100)

    assert "quality_drop" not in found(judged)
    assert any(waiting.startswith("quality_drop") for waiting in judged.waiting)


@given(st.integers(1, 99), st.integers(0, 2**32), st.text(min_size=1, max_size=8))
def test_a_canary_answers_its_share(weight: int, first: int, prefix: str) -> None:
    """Of 1,000 requests the share is within six standard deviations of a fair draw, whatever the ids are."""
    count, share = 1_000, weight / 100
    taken = sum(share_of("d" * 64, f"{prefix}{first + n}") < share for n in range(count))

    assert abs(taken - count * share) < 6 * (count * share * (1 - share)) ** 0.5


@given(st.text(max_size=50), st.text(min_size=1, max_size=50))
def test_a_request_stays_where_it_is(digest: str, key: str) -> None:
    """The same id has the same place, and so stays the candidate's when its share grows."""
    assert share_of(digest, key) == share_of(digest, key)
    assert 0 <= share_of(digest, key) < 1
