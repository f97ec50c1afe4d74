"""Verdicts: what was not measured has failed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from seatrial.verdicts import Outcome, Verdict, judge, verdicts_table, worst

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def _verdict(outcome: Outcome) -> Verdict:
    return Verdict(check="x", outcome=outcome)


@given(FINITE, FINITE)
def test_a_value_passes_up_to_its_bound(value: float, bound: float) -> None:
    """Bounds are inclusive, from below and from above."""
    higher = judge("x", value, bound, better="higher", message="")
    lower = judge("x", value, bound, better="lower", message="")

    assert (higher.outcome is Outcome.PASS) == (value >= bound)
    assert (lower.outcome is Outcome.PASS) == (value <= bound)


@given(FINITE, FINITE, FINITE)
def test_a_warning_never_hides_a_failure(value: float, bound: float, warn_at: float) -> None:
    """A value that fails its bound fails, wherever the warning begins."""
    found = judge("x", value, bound, better="lower", message="", warn_at=warn_at).outcome

    assert (found is Outcome.FAIL) == (value > bound)
    assert (found is Outcome.WARN) == (value <= bound and value > warn_at)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("better", ["higher", "lower"])
def test_what_could_not_be_computed_fails(value: float | None, better: str) -> None:
    """No value, NaN and infinity fail whichever way is better, and the message says so."""
    found = judge("x", value, 0.5, better=better, message="A thing.")  # type: ignore[arg-type]

    assert found.outcome is Outcome.FAIL
    assert found.value is None
    assert found.message == "A thing. It could not be computed."


@pytest.mark.parametrize("outcome", ["pass", "warn"])
@pytest.mark.parametrize("value", ["null", '"0.9"', "true", "NaN", "1e999"])
def test_a_forged_verdict_cannot_be_read(outcome: str, value: str) -> None:
    """A pass whose value is missing, a text, a boolean or not finite is no verdict."""
    text = f'{{"check": "x", "outcome": "{outcome}", "value": {value}, "bound": 0.5}}'

    with pytest.raises(ValidationError):
        Verdict.model_validate_json(text)


def test_a_verdict_survives_json() -> None:
    """What is written into a bundle is what is read from it."""
    verdict = judge("x", 0.25, 0.5, better="lower", message="A thing.", unit="s", evidence={"rows": 3})

    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


@given(st.lists(st.sampled_from(Outcome), min_size=1))
def test_the_worst_of_verdicts_decides(outcomes: list[Outcome]) -> None:
    """One failure fails all, and one warning among passes warns."""
    found = worst([_verdict(outcome) for outcome in outcomes])

    if Outcome.FAIL in outcomes:
        assert found is Outcome.FAIL
    else:
        assert found is (Outcome.WARN if Outcome.WARN in outcomes else Outcome.PASS)


def test_no_verdict_at_all_is_a_failure() -> None:
    """A list of checks from which all were lost does not pass."""
    assert worst([]) is Outcome.FAIL


def test_a_table_of_verdicts_stands_in_markdown() -> None:
    """Failed ones come first, and nothing that a name or a message holds marks anything up or ends its cell."""
    passed = Verdict(
        check="worst_slice", outcome=Outcome.PASS, value=0.61, bound=0.5, message="roc_auc of a|b_\n*c*"
    )
    failed = Verdict(check="champion", outcome=Outcome.FAIL, message="too <b>bad</b>")

    assert verdicts_table([passed, failed])[2:] == [
        r"| **fail** | champion |  |  | too \<b\>bad\</b\> |",
        r"| pass | `worst_slice` | 0.61 | 0.5 | `roc_auc` of a\|`b_` \*c\* |",
    ]
