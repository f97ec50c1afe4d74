"""Judge a window of live traffic by the contract: drift, missing and unseen values, outliers, quality.

Only predictions that this very bundle answered are compared with its baseline: another model's
rows have other features, and its probabilities another distribution. A window that is too small
is not judged, and says so; a figure that cannot be computed fails (threats: D6). A failed verdict
that rests on one client's predictions says that too (:mod:`seatrial.monitoring.clients`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from seatrial.bundle import Bundle
from seatrial.bundle.content import BASELINE
from seatrial.contract.schema import Monitoring
from seatrial.errors import FeedbackError
from seatrial.evaluation.intervals import Interval
from seatrial.monitoring import quality as live
from seatrial.monitoring.baseline import Baseline
from seatrial.monitoring.clients import mark_one_client
from seatrial.monitoring.drift import ColumnDrift, Drift, compare
from seatrial.verdicts import Outcome, Verdict, judge, worst

OUTCOME = "outcome"
WORST_SHOWN = 5


class MonitorResult(BaseModel):
    """What was found in a window of live traffic.

    Attributes:
        model: The model's name.
        bundle: Digest of the bundle that was watched.
        start: First instant of the window (included).
        end: The first instant after it (not included).
        rows: Predictions that the bundle answered.
        other_rows: Predictions in the window that another bundle answered; they are left out.
        outcomes: Predictions of ``rows`` whose outcome has arrived.
        outcome_rate: Share of those outcomes that are 1; None without an outcome.
        label_rate: Share of the training rows whose label was 1.
        verdicts: What was judged, in a fixed order.
        drift: How far each feature and the prediction have moved; None where too few rows came.
        quality: The figures of live quality; None where too few outcomes came.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    bundle: str
    start: datetime
    end: datetime
    rows: int
    other_rows: int
    outcomes: int
    outcome_rate: float | None
    label_rate: float
    verdicts: tuple[Verdict, ...]
    drift: Drift | None
    quality: dict[str, Interval] | None

    @property
    def outcome(self) -> Outcome:
        """The worst of the verdicts."""
        return worst(list(self.verdicts))

    def verdict(self, check: str) -> Verdict:
        """Return the verdict of one check.

        Raises:
            KeyError: if there is no such check.
        """
        return {verdict.check: verdict for verdict in self.verdicts}[check]


def monitor(bundle: Bundle, joined: pl.DataFrame, *, start: datetime, end: datetime) -> MonitorResult:
    """Judge a window of live traffic.

    Args:
        bundle: The bundle to watch.
        joined: The window's predictions with their outcomes, as
            :func:`seatrial.feedback.joining.join_outcomes` gives them.
        start: First instant of the window (included).
        end: The first instant after it (not included).

    Returns:
        Verdicts and what they rest on.

    Raises:
        FeedbackError: if a prediction's features are not those of the bundle.
        BundleError: if the bundle has no usable baseline or metrics.
    """
    rules = bundle.contract.contract.monitoring
    baseline = Baseline.model_validate(bundle.json(BASELINE))
    own = joined.filter(pl.col("bundle") == bundle.digest)
    known = own.filter(pl.col(OUTCOME).is_not_null())
    judge_rows = _Judge(bundle, baseline, rules)
    drift, quality = judge_rows.drift(own), judge_rows.quality(known)
    return MonitorResult(
        model=bundle.manifest.model,
        bundle=bundle.digest,
        start=start,
        end=end,
        rows=own.height,
        other_rows=joined.height - own.height,
        outcomes=known.height,
        outcome_rate=float(np.mean(known[OUTCOME].to_numpy())) if known.height else None,
        label_rate=baseline.label_rate,
        verdicts=(
            *mark_one_client(drift.verdicts, own, lambda rows: judge_rows.drift(rows).verdicts),
            *mark_one_client(quality.verdicts, known, lambda rows: judge_rows.quality(rows).verdicts),
        ),
        drift=drift.found,
        quality=quality.found,
    )


Found = TypeVar("Found")


@dataclass(frozen=True)
class _Judged(Generic[Found]):
    """Verdicts, and what they rest on; None where too few rows were there to judge."""

    found: Found | None
    verdicts: list[Verdict]


@dataclass(frozen=True)
class _Judge:
    """Judges any rows of a window by one bundle."""

    bundle: Bundle
    baseline: Baseline
    rules: Monitoring

    def drift(self, rows: pl.DataFrame) -> _Judged[Drift]:
        """Judge how far predictions have moved from the baseline."""
        if rows.height < self.rules.minimum_rows:
            return _Judged(None, _too_few_rows(rows.height, self.rules))
        matrix, probabilities = features_matrix(rows, self.bundle), rows["probability"].to_numpy()
        found = compare(self.baseline, matrix, probabilities, self.rules)
        return _Judged(found, judge_drift(found, self.rules))

    def quality(self, rows: pl.DataFrame) -> _Judged[dict[str, Interval]]:
        """Judge how good the answers of predictions with an outcome were."""
        if rows.height < self.rules.minimum_outcomes:
            return _Judged(None, [_too_few_outcomes(rows.height, self.rules)])
        found = live.live_quality(self.bundle, rows[OUTCOME].to_numpy(), rows["probability"].to_numpy())
        return _Judged(found, [live.judge_quality(self.bundle, found)])


def features_matrix(predictions: pl.DataFrame, bundle: Bundle) -> NDArray[np.float32]:
    """Return the encoded rows of predictions, of shape (n_rows, n_features).

    Raises:
        FeedbackError: if a row has not as many features as the bundle.
    """
    width = len(bundle.schema.features.columns)
    lengths = predictions["features"].list.len()
    if wrong := predictions.filter(lengths.fill_null(0) != width).height:
        raise FeedbackError(
            f"Each prediction of bundle {bundle.digest[:12]} must have {width} features. "
            f"Got {wrong} predictions with another number."
        )
    return predictions["features"].explode().cast(pl.Float32).to_numpy().reshape(-1, width)


def judge_drift(drift: Drift, rules: Monitoring) -> list[Verdict]:
    """Judge how far a window has moved by the contract's bounds."""
    return [
        _features_verdict(drift.columns, rules),
        _prediction_verdict(drift.prediction, rules),
        _worst_column("missing", "missing_rise", "missing values", drift.columns, rules.missing_increase),
        _worst_column("unseen", "unseen_rise", "unseen categories", drift.columns, rules.unseen_share),
        judge(
            "monitor.outliers",
            drift.outlier_share,
            rules.outlier_share,
            better="lower",
            message=f"{drift.outlier_share:.1%} of the rows have a number beyond all of the training rows.",
            evidence={"judged": True, **_largest(drift.columns, "outside_share")},
        ),
    ]


def _features_verdict(features: tuple[ColumnDrift, ...], rules: Monitoring) -> Verdict:
    drifted = [column.name for column in features if column.drifted]
    share = len(drifted) / len(features) if features else None
    named = f": {', '.join(drifted)}" if drifted else ""
    evidence = {
        "judged": True,
        "drifted": drifted,
        "psi": rules.psi,
        "ks": rules.ks,
        **_largest(features, "psi"),
    }
    return judge(
        "monitor.drift",
        share,
        rules.drifted_share,
        better="lower",
        message=f"{len(drifted)} of {len(features)} features have drifted{named}.",
        evidence=evidence,
    )


def _prediction_verdict(column: ColumnDrift, rules: Monitoring) -> Verdict:
    """Judge the prediction by the measure that is the nearer to its bound, or the further beyond it."""
    evidence: dict[str, Any] = {"judged": True, **column.model_dump()}
    if column.ks is None or column.missing_share > 0:
        message = f"{column.missing_share:.1%} of the predictions are no numbers."
        return judge(
            "monitor.prediction_drift", None, rules.psi, better="lower", message=message, evidence=evidence
        )
    by_psi = column.psi / rules.psi >= column.ks / rules.ks
    name, value, bound = ("PSI", column.psi, rules.psi) if by_psi else ("KS", column.ks, rules.ks)
    return Verdict(
        check="monitor.prediction_drift",
        outcome=Outcome.FAIL if column.drifted else Outcome.PASS,
        value=value,
        bound=bound,
        message=f"The predictions have moved by {value:.3f} ({name}) from those of the training rows.",
        evidence=evidence,
    )


def _worst_column(
    check: str, field: str, what: str, features: tuple[ColumnDrift, ...], bound: float
) -> Verdict:
    worst_one = max(features, key=lambda column: _of(column, field), default=None)
    value = _of(worst_one, field) if worst_one else None
    named = (
        f"{worst_one.name} has {value:+.1%} {what}" if worst_one else f"There is no feature to have {what}"
    )
    return judge(
        f"monitor.{check}",
        value,
        bound,
        better="lower",
        message=f"{named} against the training rows, the most of all features.",
        evidence={"judged": True, **_largest(features, field)},
    )


def _largest(features: tuple[ColumnDrift, ...], field: str) -> dict[str, Any]:
    ordered = sorted(features, key=lambda column: _of(column, field), reverse=True)
    return {"largest": {column.name: _of(column, field) for column in ordered[:WORST_SHOWN]}}


def _of(column: ColumnDrift, field: str) -> float:
    return float(getattr(column, field))


def _too_few_rows(rows: int, rules: Monitoring) -> list[Verdict]:
    checks = ("drift", "prediction_drift", "missing", "unseen", "outliers")
    message = f"Not judged: {rows} predictions in the window, at least {rules.minimum_rows} are needed."
    return [_not_judged(f"monitor.{check}", message) for check in checks]


def _too_few_outcomes(outcomes: int, rules: Monitoring) -> Verdict:
    message = f"Not judged: {outcomes} outcomes in the window, at least {rules.minimum_outcomes} are needed."
    return _not_judged(live.CHECK, message)


def _not_judged(check: str, message: str) -> Verdict:
    return Verdict(check=check, outcome=Outcome.PASS, message=message, evidence={"judged": False})
