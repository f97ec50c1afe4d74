"""Gates: what a model must pass before it may serve, each a verdict with value, bound and evidence.

A gate looks at measurements and at nothing else, so that the same gate judges a fresh challenger,
a bundle before a promotion, and a forged one in a test. What could not be measured has failed
(threats: P9, D6, M7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from seatrial.contract.schema import Gates
from seatrial.evaluation import Evaluation, Interval
from seatrial.verdicts import Outcome, Verdict, judge, worst

_HIGHER = ("roc_auc", "average_precision")


@dataclass(frozen=True)
class Measurements:
    """All that the gates look at.

    Attributes:
        data: Verdicts of the data tests.
        evaluation: The model on the test rows, beside the champion where one serves.
        champion_expected: Whether a champion serves, so that its absence from the evaluation means
            that it could not be evaluated.
        latency_milliseconds: Times of single predictions from request to answer, each its best, sorted.
        bundle_bytes: Size of the model's files.
        parity_difference: Largest difference of a probability between ONNX and scikit-learn.
        parity_rows: Rows that were compared.
        training_seconds: Wall-clock time of training.
        training_watt_hours: Energy of training.
    """

    data: list[Verdict]
    evaluation: Evaluation
    champion_expected: bool
    latency_milliseconds: list[float]
    bundle_bytes: int
    parity_difference: float | None
    parity_rows: int
    training_seconds: float | None
    training_watt_hours: float | None


def judge_gates(gates: Gates, measured: Measurements) -> list[Verdict]:
    """Return the verdict of every gate in the contract, and of the data tests."""
    verdicts = [_data_tests(measured.data)]
    for name, gate in _GATES.items():
        if getattr(gates, name) is not None:
            verdicts.extend(gate(gates, measured))
    return verdicts


def passes(verdicts: list[Verdict]) -> bool:
    """Return whether no gate failed; no verdict at all is a failure."""
    return worst(verdicts) is not Outcome.FAIL


def _data_tests(data: list[Verdict]) -> Verdict:
    failed = [verdict for verdict in data if verdict.outcome is Outcome.FAIL]
    return Verdict(
        check="data_tests",
        outcome=worst(data),
        value=float(len(failed)) if data else None,
        bound=0.0,
        message=f"Failed data tests, of {len(data)}.",
        evidence={"failed": [verdict.message for verdict in failed]},
    )


def _shown(interval: Interval) -> dict[str, float | None]:
    return interval.model_dump()


def _minimum_quality(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    gate = gates.minimum_quality
    interval = measured.evaluation.metrics[gate.metric]
    yield judge(
        "minimum_quality",
        interval.low,
        gate.minimum,
        better="higher",
        message=f"Lower end of the 95% interval of {gate.metric} on {measured.evaluation.rows:,} test rows.",
        evidence={gate.metric: _shown(interval)},
    )


def _champion(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    gate, champion = gates.champion, measured.evaluation.champion
    assert gate is not None
    if champion is None:
        unknown = measured.champion_expected
        yield Verdict(
            check="champion",
            outcome=Outcome.FAIL if unknown else Outcome.PASS,
            bound=-gate.tolerance if unknown else None,
            message="The champion could not be evaluated on the same rows."
            if unknown
            else "No model serves yet, so there is none to be worse than.",
        )
        return
    difference = champion.differences[gate.metric]
    yield judge(
        "champion",
        difference.high,
        -gate.tolerance,
        better="higher",
        message=f"Upper end of the 95% interval of the gain in {gate.metric} over the champion, same rows.",
        warn_at=0.0,
        evidence={
            "champion": champion.digest,
            "difference": _shown(difference),
            "challenger": _shown(measured.evaluation.metrics[gate.metric]),
            "champion_value": _shown(champion.metrics[gate.metric]),
        },
    )


def _worst_slice(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    gate = gates.worst_slice
    assert gate is not None
    judged = [s for s in measured.evaluation.slices if s.rows >= gate.minimum_rows]
    values = {f"{s.slice}={s.value}": s.metrics[gate.metric] for s in judged}
    known = {name: interval for name, interval in values.items() if interval.value is not None}
    lowest = min(known, key=lambda name: known[name].value or 0.0, default=None)
    uncomputed = sorted(set(values) - set(known))
    yield judge(
        "worst_slice",
        known[lowest].value if lowest and not uncomputed else None,
        gate.minimum,
        better="higher",
        message=f"{gate.metric} of the worst of {len(judged)} slices of at least {gate.minimum_rows:,} rows"
        f"{': ' + lowest if lowest else ''}.",
        evidence={
            "slices": {name: interval.value for name, interval in sorted(values.items())},
            "not computed": uncomputed,
        },
    )


def _calibration(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    assert gates.calibration is not None
    yield judge(
        "calibration",
        measured.evaluation.metrics["expected_calibration_error"].value,
        gates.calibration.maximum,
        better="lower",
        message="Expected calibration error on the test rows.",
        evidence={"bins": [point.model_dump() for point in measured.evaluation.calibration]},
    )


def _business_cost(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    assert gates.business_cost is not None
    metrics = measured.evaluation.metrics
    yield judge(
        "business_cost",
        metrics["cost_ratio"].value,
        gates.business_cost.maximum_ratio,
        better="lower",
        message="Cost of the model's mistakes, where doing nothing costs 1.",
        evidence={
            "cost_per_row": _shown(metrics["cost_per_row"]),
            "flag_none": measured.evaluation.cost.flag_none,
            "flag_all": measured.evaluation.cost.flag_all,
            "threshold": measured.evaluation.threshold,
        },
    )


def _latency(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    assert gates.latency is not None
    times = measured.latency_milliseconds
    at = {q: times[min(int(q * len(times)), len(times) - 1)] if times else None for q in (0.5, 0.9, 0.99)}
    yield judge(
        "latency",
        at[0.99],
        gates.latency.maximum_milliseconds,
        better="lower",
        unit="ms",
        message=f"99th percentile of {len(times):,} single predictions, features included, each its best of several.",
        evidence={f"p{q * 100:.0f}": value for q, value in at.items()},
    )


def _bundle_size(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    assert gates.bundle_size is not None
    yield judge(
        "bundle_size",
        measured.bundle_bytes / 1e6,
        gates.bundle_size.maximum_megabytes,
        better="lower",
        unit="MB",
        message="Size of the model's files.",
    )


def _parity(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    yield judge(
        "parity",
        measured.parity_difference if measured.parity_rows else None,
        gates.parity.maximum_difference,
        better="lower",
        message=f"Largest difference between the ONNX and the scikit-learn model on {measured.parity_rows:,} rows.",
    )


def _training_time(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    assert gates.training_time is not None
    seconds = measured.training_seconds
    yield judge(
        "training_time",
        None if seconds is None else seconds / 60,
        gates.training_time.maximum_minutes,
        better="lower",
        unit="min",
        message="Wall-clock time of training, tuning included.",
    )


def _training_energy(gates: Gates, measured: Measurements) -> Iterator[Verdict]:
    assert gates.training_energy is not None
    yield judge(
        "training_energy",
        measured.training_watt_hours,
        gates.training_energy.maximum_watt_hours,
        better="lower",
        unit="Wh",
        message="Energy of training, tuning included, as codecarbon measured or estimated it.",
    )


_GATES: dict[str, Callable[[Gates, Measurements], Iterator[Verdict]]] = {
    "minimum_quality": _minimum_quality,
    "champion": _champion,
    "worst_slice": _worst_slice,
    "calibration": _calibration,
    "business_cost": _business_cost,
    "latency": _latency,
    "bundle_size": _bundle_size,
    "parity": _parity,
    "training_time": _training_time,
    "training_energy": _training_energy,
}
