"""Each gate passes what is good, fails what is bad, and fails what could not be measured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from seatrial.contract.schema import Costs, Gates
from seatrial.evaluation import ChampionAnswers, Evaluation, Interval, evaluate
from seatrial.gates import Measurements, judge_gates, passes
from seatrial.verdicts import Outcome, Verdict

GATES = Gates.model_validate(
    {
        "minimum_quality": {"metric": "roc_auc", "minimum": 0.6},
        "champion": {"metric": "average_precision", "tolerance": 0.0},
        "worst_slice": {"metric": "roc_auc", "minimum": 0.5, "minimum_rows": 100},
        "calibration": {"maximum": 0.1},
        "business_cost": {"maximum_ratio": 1.0},
        "latency": {"maximum_milliseconds": 10},
        "bundle_size": {"maximum_megabytes": 1},
        "parity": {"maximum_difference": 0.001},
        "training_time": {"maximum_minutes": 1},
        "training_energy": {"maximum_watt_hours": 1},
    }
)


@cache
def evaluation(quality: float = 2.0, champion: float | None = None) -> Evaluation:
    """A model of the given quality on 2,000 rows, beside a champion."""
    rng = np.random.default_rng(7)
    score = rng.normal(size=2_000)
    labels = rng.random(2_000) < 1 / (1 + np.exp(-score * 2 + 1))

    def answers(strength: float) -> Any:
        seen = strength / 2 * score + (1 - strength / 2) * rng.normal(size=2_000)
        return 1 / (1 + np.exp(-seen * 2 + 1))

    import polars as pl

    return evaluate(
        labels,
        answers(quality),
        threshold=1 / 6,
        costs=Costs(missed=5, false_alarm=1),
        training_base_rate=0.3,
        period=("2024-01-01", "2024-02-01"),
        seed=1,
        slices={"side": pl.Series(["left", "right"] * 1_000)},
        minimum_slice_rows=100,
        champion=None if champion is None else ChampionAnswers("f" * 64, answers(champion), 1 / 6),
    )


def measurements(**changes: Any) -> Measurements:
    """What a good model measures, with some of it changed."""
    good = Measurements(
        data=[Verdict(check="data.rows.t", outcome=Outcome.PASS, value=5.0, bound=1.0)],
        evaluation=evaluation(),
        champion_expected=False,
        latency_milliseconds=[1.0, 2.0, 3.0],
        bundle_bytes=500_000,
        parity_difference=1e-6,
        parity_rows=100,
        training_seconds=10.0,
        training_watt_hours=0.1,
    )
    return replace(good, **changes)


def outcomes(measured: Measurements) -> dict[str, Outcome]:
    """The outcome of each gate."""
    return {verdict.check: verdict.outcome for verdict in judge_gates(GATES, measured)}


def test_a_good_model_passes_every_gate() -> None:
    """Every gate of the contract says something, and a good model passes them all."""
    verdicts = judge_gates(GATES, measurements())

    assert {v.check for v in verdicts} == {"data_tests", *Gates.model_fields}
    assert [v.check for v in verdicts if v.outcome is not Outcome.PASS] == []
    assert passes(verdicts)


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("data_tests", {"data": []}),
        ("data_tests", {"data": [Verdict(check="data.rows.t", outcome=Outcome.FAIL)]}),
        ("minimum_quality", {"evaluation": evaluation(0.0)}),
        ("worst_slice", {"evaluation": evaluation(-1.0)}),
        ("champion", {"evaluation": evaluation(0.5, champion=2.0), "champion_expected": True}),
        ("champion", {"evaluation": evaluation(), "champion_expected": True}),
        ("business_cost", {"evaluation": evaluation(-2.0)}),
        ("latency", {"latency_milliseconds": [1.0, 2.0, 11.0]}),
        ("latency", {"latency_milliseconds": []}),
        ("bundle_size", {"bundle_bytes": 1_000_001}),
        ("parity", {"parity_difference": 0.01}),
        ("parity", {"parity_difference": float("nan")}),
        ("parity", {"parity_difference": 0.0, "parity_rows": 0}),
        ("training_time", {"training_seconds": 61.0}),
        ("training_time", {"training_seconds": None}),
        ("training_energy", {"training_watt_hours": 1.1}),
        ("training_energy", {"training_watt_hours": None}),
    ],
)
def test_a_gate_fails_what_is_bad_or_was_not_measured(gate: str, changes: dict[str, Any]) -> None:
    """A measurement beyond its bound, or missing, fails its gate, and the model is not let through."""
    verdicts = judge_gates(GATES, measurements(**changes))

    assert Outcome.FAIL is outcomes(measurements(**changes))[gate]
    assert not passes(verdicts)


def test_a_figure_that_is_not_a_number_fails() -> None:
    """Quality that could not be computed fails its gate; it never passes as the absence of bad news."""
    broken = evaluation().model_copy(
        update={"metrics": {name: Interval(value=None) for name in evaluation().metrics}}
    )
    found = outcomes(measurements(evaluation=broken))

    for gate in ("minimum_quality", "calibration", "business_cost"):
        assert Outcome.FAIL is found[gate]


def test_as_good_as_the_champion_passes() -> None:
    """A challenger that is worse than the champion by no more than the noise is let through."""
    same = evaluation(1.5, champion=1.5)

    assert outcomes(measurements(evaluation=same, champion_expected=True))["champion"] is not Outcome.FAIL


def test_a_gate_that_the_contract_leaves_out_is_not_judged() -> None:
    """Only the contract's gates and the data tests are judged."""
    few = Gates.model_validate(
        {"minimum_quality": {"metric": "roc_auc", "minimum": 0.6}, "parity": {"maximum_difference": 0.001}}
    )
    verdicts = judge_gates(few, measurements())

    assert [verdict.check for verdict in verdicts] == ["data_tests", "minimum_quality", "parity"]


def test_no_verdict_at_all_lets_nothing_through() -> None:
    """An empty list of verdicts is a failure."""
    assert not passes([])
