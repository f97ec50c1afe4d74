"""Evaluation: the figures agree with scikit-learn and keep their laws."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from seatrial.contract.schema import Costs
from seatrial.evaluation import (
    METRICS,
    ChampionAnswers,
    Evaluation,
    Interval,
    best_threshold,
    bootstrap_intervals,
    calibration_curve,
    classification_metrics,
    cost_curve,
    evaluate,
    expected_calibration_error,
    paired_difference,
    precision_recall_points,
    roc_points,
    slice_metrics,
    wilson_interval,
)

COSTS = Costs(missed=5, false_alarm=1)
PERIOD = ("2013-05-01T00:00:00+00:00", "2013-05-28T23:00:00+00:00")


@st.composite
def rows(draw: st.DrawFn, smallest: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels of both classes and probabilities, often tied."""
    size = draw(st.integers(smallest, 60))
    labels = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    labels[:2] = [True, False]
    steps = draw(st.sampled_from([3, 10, 1_000_000]))
    whole = draw(st.lists(st.integers(0, steps), min_size=size, max_size=size))
    return labels, np.array(whole) / steps


def simulated(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from their probabilities, so that the probabilities are calibrated."""
    generator = np.random.default_rng(seed)
    probabilities = generator.beta(2, 5, n)
    return generator.random(n) < probabilities, probabilities


@given(rows())
@settings(max_examples=60)
def test_values_agree_with_scikit_learn(given_rows: tuple[np.ndarray, np.ndarray]) -> None:
    """Each figure that scikit-learn has too is the same to nine digits, ties included."""
    labels, probabilities = given_rows
    found = classification_metrics(labels, probabilities, threshold=0.4, costs=COSTS)
    flagged = probabilities >= 0.4
    expected = {
        "roc_auc": sklearn_metrics.roc_auc_score(labels, probabilities),
        "average_precision": sklearn_metrics.average_precision_score(labels, probabilities),
        "brier_score": sklearn_metrics.brier_score_loss(labels, probabilities),
        "log_loss": sklearn_metrics.log_loss(labels, probabilities),
        "recall": sklearn_metrics.recall_score(labels, flagged),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    if flagged.any():
        assert found["precision"] == pytest.approx(sklearn_metrics.precision_score(labels, flagged))


@given(rows(), st.integers(0, 5))
@settings(max_examples=30)
def test_a_weighted_draw_is_the_drawn_rows(given_rows: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """A replicate from counts is what scikit-learn says of the rows drawn one by one."""
    from seatrial.evaluation.intervals import _draws, replicates
    from seatrial.evaluation.metrics import RankedRows

    labels, probabilities = given_rows
    ranked = RankedRows(labels, probabilities, threshold=0.4, costs=COSTS)
    drawn = replicates(ranked, seed=seed, repeats=5)
    counts = np.concatenate(list(_draws(len(labels), seed, 5))).astype(int)
    for place, count in enumerate(counts):
        picked = np.repeat(np.arange(len(labels)), count)
        assert len(picked) == len(labels)
        if labels[picked].all() or not labels[picked].any():
            assert math.isnan(drawn["roc_auc"][place])
            continue
        area = sklearn_metrics.roc_auc_score(labels[picked], probabilities[picked])
        precision = sklearn_metrics.average_precision_score(labels[picked], probabilities[picked])
        assert drawn["roc_auc"][place] == pytest.approx(area, abs=1e-9)
        assert drawn["average_precision"][place] == pytest.approx(precision, abs=1e-9)


@given(rows(), st.integers(0, 10))
@settings(max_examples=50)
def test_the_interval_contains_the_value(given_rows: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    """The value lies within its interval, however few the rows."""
    labels, probabilities = given_rows
    found = bootstrap_intervals(labels, probabilities, threshold=0.4, costs=COSTS, seed=seed, repeats=20)
    values = classification_metrics(labels, probabilities, threshold=0.4, costs=COSTS)
    assert set(found) == set(METRICS)
    for name, interval in found.items():
        if interval.value is None:
            assert math.isnan(values[name])
            continue
        assert interval.value == values[name]
        if interval.low is not None and interval.high is not None:
            assert interval.low <= interval.value <= interval.high


@given(rows())
@settings(max_examples=50)
def test_the_areas_do_not_change_under_a_rising_map(given_rows: tuple[np.ndarray, np.ndarray]) -> None:
    """ROC AUC and average precision depend on the order of the answers only."""
    labels, probabilities = given_rows
    _, ranks = np.unique(probabilities, return_inverse=True)
    for mapped in (probabilities / 2, ranks / (len(ranks) + 1)):
        before = classification_metrics(labels, probabilities, threshold=0.5, costs=COSTS)
        after = classification_metrics(labels, mapped, threshold=0.5, costs=COSTS)
        assert after["roc_auc"] == before["roc_auc"]
        assert after["average_precision"] == before["average_precision"]


@given(rows(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_order_of_the_rows_is_of_no_account(
    given_rows: tuple[np.ndarray, np.ndarray], random: object
) -> None:
    """The same rows in another order give the same figures, calibration bins included."""
    labels, probabilities = given_rows
    order = np.arange(len(labels))
    random.shuffle(order)  # type: ignore[attr-defined]
    before = classification_metrics(labels, probabilities, threshold=0.4, costs=COSTS)
    after = classification_metrics(labels[order], probabilities[order], threshold=0.4, costs=COSTS)
    assert after == pytest.approx(before, abs=1e-9, nan_ok=True)


@given(rows(), st.floats(0.1, 20), st.floats(0.1, 20))
@settings(max_examples=60)
def test_no_threshold_is_cheaper_than_the_best(
    given_rows: tuple[np.ndarray, np.ndarray], missed: float, false_alarm: float
) -> None:
    """The best threshold costs at most what any of 100 others costs, and all the answers as thresholds."""
    labels, probabilities = given_rows
    costs = Costs(missed=missed, false_alarm=false_alarm)

    def cost(threshold: float) -> float:
        flagged = probabilities >= threshold
        return float(missed * (labels & ~flagged).sum() + false_alarm * (~labels & flagged).sum())

    best = cost(best_threshold(labels, probabilities, costs))
    others = [*np.random.default_rng(0).random(100), *probabilities, 0.0, 1.0, 1.5]
    assert best <= min(map(cost, others)) + 1e-9


@pytest.mark.parametrize(
    ("labels", "threshold"),
    [([1, 1, 0, 0], 0.6), ([0, 1, 0, 1], 0.6), ([0, 0, 0, 0], 0.95), ([1, 1, 1, 1], 0.15)],
)
def test_the_threshold_keeps_its_distance(labels: list[int], threshold: float) -> None:
    """Of equally cheap steps the middle one is taken, and the threshold lies half-way between two answers."""
    found = best_threshold(labels, [0.9, 0.7, 0.5, 0.3], Costs(missed=1, false_alarm=1))
    assert found == pytest.approx(threshold)


@given(rows(), st.sampled_from(["roc_auc", "average_precision", "brier_score", "cost_per_row"]))
@settings(max_examples=40)
def test_a_model_does_not_differ_from_itself(given_rows: tuple[np.ndarray, np.ndarray], metric: str) -> None:
    """The paired difference of a model with itself is exactly zero, with no width."""
    labels, probabilities = given_rows
    found = paired_difference(
        labels,
        probabilities,
        probabilities,
        metric=metric,
        thresholds=(0.4, 0.4),
        costs=COSTS,
        seed=1,
        repeats=20,
    )
    assert found == Interval(value=0, low=0, high=0)


@pytest.mark.parametrize(
    "metric", ["roc_auc", "average_precision", "brier_score", "log_loss", "cost_per_row"]
)
def test_a_better_challenger_differs_upwards(metric: str) -> None:
    """A positive difference means that the challenger is better, whatever the figure's direction."""
    labels, probabilities = simulated(4_000)
    noisy = np.random.default_rng(1).permutation(probabilities)
    pair = {"metric": metric, "thresholds": (0.2, 0.2), "costs": COSTS, "seed": 1}
    better = paired_difference(labels, probabilities, noisy, **pair)
    worse = paired_difference(labels, noisy, probabilities, **pair)
    assert better.low is not None
    assert better.low > 0
    assert worse.high is not None
    assert worse.high < 0


def test_the_interval_is_as_wide_as_theory_says() -> None:
    """The bootstrap's interval of a share is the normal one, within the noise of 200 draws."""
    labels, probabilities = simulated(5_000)
    interval = bootstrap_intervals(labels, probabilities, threshold=0.4, costs=COSTS, seed=3)["base_rate"]
    rate = labels.mean()
    width = 2 * 1.96 * math.sqrt(rate * (1 - rate) / len(labels))
    assert interval.low is not None
    assert interval.high is not None
    assert interval.high - interval.low == pytest.approx(width, rel=0.2)


@pytest.mark.parametrize("label", [True, False])
def test_one_class_has_no_ranking(label: bool) -> None:
    """With one class the areas and the cost ratio are NaN, the losses are not."""
    found = classification_metrics(np.full(9, label), np.linspace(0, 1, 9), threshold=0.5, costs=COSTS)
    assert {name for name, value in found.items() if math.isnan(value)} >= {
        "roc_auc",
        "average_precision",
        "cost_ratio",
    }
    assert found["brier_score"] == pytest.approx(np.mean((np.linspace(0, 1, 9) - label) ** 2))


@pytest.mark.parametrize("probabilities", [[], [0.2, float("nan"), 0.4], [0.1, float("inf")]])
def test_what_cannot_be_measured_is_nan(probabilities: list[float]) -> None:
    """No rows, or an answer that is no number, make every figure NaN and the evaluation valid JSON."""
    labels = [place % 2 for place in range(len(probabilities))]
    found = classification_metrics(labels, probabilities, threshold=0.5, costs=COSTS)
    assert set(found) == set(METRICS)
    assert all(math.isnan(value) for value in found.values())
    whole = evaluate(
        labels,
        probabilities,
        threshold=0.5,
        costs=COSTS,
        training_base_rate=0.3,
        period=PERIOD,
        seed=1,
        slices={"carrier": pl.Series(["a"] * len(labels), dtype=pl.String)},
    )
    assert whole.metrics["roc_auc"] == Interval(value=None)
    assert Evaluation.model_validate_json(whole.model_dump_json()) == whole


def test_one_row_is_measured() -> None:
    """One row has losses and a cost, but no ranking."""
    found = bootstrap_intervals([1], [0.25], threshold=0.5, costs=COSTS, seed=0)
    assert found["cost_per_row"] == Interval(value=5, low=5, high=5)
    assert found["roc_auc"].value is None
    assert best_threshold([1], [0.25], COSTS) <= 0.25


def test_a_constant_answer_ranks_like_chance() -> None:
    """A constant has an ROC AUC of one half, the base rate as average precision, and one bin."""
    labels, _ = simulated(300)
    found = classification_metrics(labels, np.full(300, 0.3), threshold=0.5, costs=COSTS)
    assert found["roc_auc"] == 0.5
    assert found["average_precision"] == pytest.approx(labels.mean())
    assert found["expected_calibration_error"] == pytest.approx(abs(labels.mean() - 0.3))
    assert len(calibration_curve(labels, np.full(300, 0.3))) == 1


def test_calibrated_answers_have_little_calibration_error() -> None:
    """Labels drawn from the probabilities leave noise only; shifted probabilities show by the shift."""
    labels, probabilities = simulated(30_000)
    assert expected_calibration_error(labels, probabilities) < 0.015
    assert expected_calibration_error(labels, probabilities + 0.1) == pytest.approx(0.1, abs=0.01)
    bins = calibration_curve(labels, probabilities)
    assert len(bins) == 15
    assert {point.rows for point in bins} == {2_000}
    assert sum(point.low <= point.predicted <= point.high for point in bins) >= 12


def test_costs_count_both_mistakes() -> None:
    """The cost is what the contract says of a miss and a false alarm, against the cheaper idleness."""
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    probabilities = np.array([0.9, 0.1, 0.8, 0.7, 0.1, 0.1, 0.1, 0.1])
    found = classification_metrics(labels, probabilities, threshold=0.5, costs=COSTS)
    assert found["cost_per_row"] == pytest.approx((5 + 2) / 8)
    assert found["cost_ratio"] == pytest.approx(7 / min(2 * 5, 6 * 1))


@pytest.mark.parametrize("size", [2, 5, 199, 5_000])
def test_curves_are_thin_and_keep_their_ends(size: int) -> None:
    """A curve has at most 200 points, rises in x, and keeps its area when thinned."""
    labels, probabilities = simulated(size, seed=4)
    labels[:2] = [True, False]
    roc, precision_recall = roc_points(labels, probabilities), precision_recall_points(labels, probabilities)
    cost = cost_curve(labels, probabilities, COSTS)
    for x, y in (
        (roc.x, roc.y),
        (precision_recall.x, precision_recall.y),
        (cost.thresholds, cost.cost_per_row),
    ):
        assert len(x) == len(y) <= 200
        assert x == sorted(x)
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert precision_recall.x[-1] == 1
    area = sklearn_metrics.roc_auc_score(labels, probabilities)
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(area, abs=0.003)
    assert cost.cost_per_row[0] == pytest.approx(cost.flag_all, abs=1e-6)


@given(st.floats(0, 1), st.integers(1, 10_000))
def test_a_share_lies_in_its_interval(share: float, count: int) -> None:
    """Wilson's interval holds the share and stays within 0 and 1."""
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share <= high <= 1


def test_slices_are_measured_on_their_rows() -> None:
    """Each value's figures are those of its rows; small, missing and rare values are marked."""
    labels, probabilities = simulated(3_000)
    carriers = ["AA"] * 2_000 + ["UA"] * 900 + [None] * 50 + [f"X{place}" for place in range(50)]
    found = slice_metrics(
        labels,
        probabilities,
        {"carrier": pl.Series(carriers)},
        minimum_rows=500,
        threshold=0.3,
        costs=COSTS,
    )
    by_value = {one.value: one for one in found}
    assert [one.value for one in found][:2] == ["AA", "UA"]
    assert by_value["AA"].judged
    assert not by_value["(missing)"].judged
    assert len(found) == 41
    assert found[-1].value == "(13 rarer values)"
    assert sum(one.rows for one in found) == 3_000
    expected = classification_metrics(
        labels[2_000:2_900], probabilities[2_000:2_900], threshold=0.3, costs=COSTS
    )
    assert by_value["UA"].metrics["roc_auc"].value == pytest.approx(expected["roc_auc"])
    assert by_value["UA"].metrics["cost_per_row"].value == pytest.approx(expected["cost_per_row"])


def test_a_number_of_many_values_is_cut_at_its_quartiles() -> None:
    """A number of many values becomes four ranges; one of few keeps its values in their order."""
    labels, probabilities = simulated(2_000)
    hours = pl.Series(np.arange(2_000) % 12)
    found = slice_metrics(
        labels,
        probabilities,
        {"distance": pl.Series(np.arange(2_000) % 400), "hour": hours, "weekend": hours > 5},
        minimum_rows=100,
        threshold=0.3,
        costs=COSTS,
        repeats=5,
    )
    shown = {
        name: [one.value for one in found if one.slice == name] for name in ("distance", "hour", "weekend")
    }
    assert (
        shown["distance"] == ["0 to 99", "100 to 199", "200 to 299", "300 to 399"]
        or len(shown["distance"]) == 4
    )
    assert shown["hour"] == [str(hour) for hour in range(12)]
    assert shown["weekend"] == ["false", "true"]


def test_what_is_no_number_is_missing() -> None:
    """NaN in a slice counts as missing, not as the largest number."""
    labels, probabilities = simulated(400)
    distance = pl.Series([float(place) if place % 4 else float("nan") for place in range(400)])
    found = slice_metrics(
        labels, probabilities, {"distance": distance}, minimum_rows=50, threshold=0.3, costs=COSTS, repeats=5
    )
    assert [one.rows for one in found if one.value == "(missing)"] == [100]
    assert len(found) == 5
    assert found[3].value.endswith("to 399")


def test_an_evaluation_holds_everything() -> None:
    """An evaluation compares with the constant and the champion, and survives JSON."""
    labels, probabilities = simulated(2_000)
    champion = np.clip(probabilities + np.random.default_rng(2).normal(0, 0.1, 2_000), 0, 1)
    found = evaluate(
        labels,
        probabilities,
        threshold=0.2,
        costs=COSTS,
        training_base_rate=0.29,
        period=PERIOD,
        seed=1,
        slices={"half": pl.Series(np.arange(2_000) < 1_000)},
        minimum_slice_rows=500,
        champion=ChampionAnswers("ab" * 32, champion, 0.3),
    )
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert found.confusion.true_positives + found.confusion.false_negatives == labels.sum()
    assert found.champion is not None
    expected = paired_difference(
        labels, probabilities, champion, metric="cost_per_row", thresholds=(0.2, 0.3), costs=COSTS, seed=1
    )
    assert found.champion.differences["cost_per_row"] == expected
    assert found.constant.metrics["roc_auc"].value == 0.5
    assert found.metrics_json()["test"]["roc_auc"]["value"] == found.metrics["roc_auc"].value


def test_the_same_seed_gives_the_same_evaluation() -> None:
    """Two evaluations of the same rows with the same seed are equal, digit by digit."""
    labels, probabilities = simulated(500)
    once, again = (
        bootstrap_intervals(labels, probabilities, threshold=0.2, costs=COSTS, seed=7) for _ in range(2)
    )
    assert once == again
