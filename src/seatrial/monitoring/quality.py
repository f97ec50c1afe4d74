"""How good the model is on live rows whose outcomes have arrived.

The figures come from the functions that measured the model in training, so a figure of the live
window and the bundle's figure on its test rows mean the same. A fall counts against the model
only where it is beyond the contract's bound and the live figure's 95% interval lies below the
bundle's figure: a few hundred outcomes alone can move ROC AUC by more than the usual bound.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from seatrial.bundle import Bundle
from seatrial.bundle.content import METRICS
from seatrial.evaluation.intervals import Interval, bootstrap_intervals
from seatrial.verdicts import Outcome, Verdict, judge

CHECK = "monitor.quality"
SEED = 0


def live_quality(bundle: Bundle, labels: ArrayLike, probabilities: ArrayLike) -> dict[str, Interval]:
    """Measure the live answers whose outcomes are known.

    Args:
        bundle: The bundle that answered; its threshold and costs are used.
        labels: Outcomes of shape (n_rows,), 0 or 1.
        probabilities: Answers of shape (n_rows,).

    Returns:
        Every figure of :data:`seatrial.evaluation.METRICS` with its 95% interval.
    """
    costs = bundle.contract.contract.costs
    return bootstrap_intervals(
        labels, probabilities, threshold=bundle.schema.threshold, costs=costs, seed=SEED
    )


def judge_quality(bundle: Bundle, quality: dict[str, Interval]) -> Verdict:
    """Judge the fall of live ROC AUC below the bundle's figure on its test rows.

    Args:
        bundle: The bundle that answered.
        quality: What :func:`live_quality` found.

    Returns:
        Fail beyond the contract's ``quality_drop``; a warning instead where the fall may be
        chance. A figure that is not defined, as with outcomes of one class only, fails.
    """
    bound = bundle.contract.contract.monitoring.quality_drop
    reference = _test_figure(bundle)
    live = quality["roc_auc"]
    drop = None if reference is None or live.value is None else reference - live.value
    evidence = {
        "judged": True,
        "reference": {"roc_auc": reference},
        "live": {name: figure.model_dump() for name, figure in quality.items()},
    }
    verdict = judge(CHECK, drop, bound, better="lower", message=_message(live, reference), evidence=evidence)
    chance = reference is not None and live.high is not None and live.high >= reference
    if verdict.outcome is Outcome.FAIL and drop is not None and chance:
        message = f"{verdict.message} The fall may be chance: the interval reaches the bundle's figure."
        return verdict.model_copy(update={"outcome": Outcome.WARN, "message": message})
    return verdict


def _test_figure(bundle: Bundle) -> float | None:
    metrics: dict[str, Any] = bundle.json(METRICS)
    value = metrics.get("test", {}).get("roc_auc", {}).get("value")
    return None if value is None else float(value)


def _message(live: Interval, reference: float | None) -> str:
    if live.value is None or live.low is None or live.high is None:
        return "Live ROC AUC is not defined for these outcomes."
    test = "unknown" if reference is None else f"{reference:.3f}"
    shown = f"{live.value:.3f} ({live.low:.3f} to {live.high:.3f})"
    return f"Live ROC AUC is {shown}; on the test rows it was {test}."
