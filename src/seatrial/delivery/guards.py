"""Whether a candidate keeps to the guards of its roll-out, by what the servers recorded of it.

Servers write down what a candidate said beside what was answered (:mod:`seatrial.server.candidate`). So
several servers, and one that was killed meanwhile, count together, and each row counts once. Both bundles
were asked the same rows at the same time: what differs is the bundle. A guard is judged once enough rows
are there; one that cannot be kept any more, whatever the rows to come say, is not waited for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.metrics import roc_auc_score

from seatrial.contract.schema import Guards
from seatrial.feedback.joining import read_comparisons, read_outcomes, winning_outcomes
from seatrial.promotion import Stage
from seatrial.verdicts import Outcome, Verdict, judge
from seatrial.workspace import Workspace

PERCENTILE = 99
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Judged:
    """What the guards found in one step.

    Attributes:
        rows: Rows that the candidate was asked.
        verdicts: Of each guard that could be judged.
        waiting: What the others wait for, in words.
    """

    rows: int
    verdicts: list[Verdict]
    waiting: list[str]

    @property
    def failed(self) -> list[Verdict]:
        """The guards that tripped."""
        return [verdict for verdict in self.verdicts if verdict.outcome is Outcome.FAIL]


def read_step(workspace: Workspace, model: str, stage: Stage) -> pl.DataFrame:
    """Return what was recorded of a candidate in one step, each row once, with its outcome where it is known.

    Raises:
        TableError: if a table is damaged.
        StoreError: if the store failed.
    """
    rows = read_comparisons(workspace, model).filter(
        (pl.col("stage") == stage.number) & (pl.col("candidate") == stage.digest)
    )
    known = winning_outcomes(read_outcomes(workspace, model)).select("prediction_id", outcome="value")
    return rows.unique("prediction_id").collect().join(known.collect(), on="prediction_id", how="left")


def judge_guards(guards: Guards, rows: pl.DataFrame, *, minimum_rows: int) -> Judged:
    """Judge a candidate by the rows of one step.

    Args:
        guards: The bounds.
        rows: What :func:`read_step` returned.
        minimum_rows: Fewest rows by which a guard is judged.
    """
    answered = rows.filter(pl.col("candidate_probability").is_not_null())
    both = answered.filter(pl.col("probability").is_not_null())
    judged = [
        _errors(guards, rows, minimum_rows),
        _agreement(guards, both, minimum_rows),
        _latency(guards, both, minimum_rows),
        _shift(guards, both, minimum_rows),
    ]
    if guards.maximum_quality_drop is not None:
        judged.append(_quality(guards.maximum_quality_drop, both, guards.minimum_outcomes))
    return Judged(
        rows.height,
        [one for one in judged if isinstance(one, Verdict)],
        [one for one in judged if isinstance(one, str)],
    )


def _errors(guards: Guards, rows: pl.DataFrame, minimum: int) -> Verdict | str:
    failed = rows.filter(pl.col("candidate_probability").is_null())
    bound = guards.maximum_error_share
    if rows.height < minimum and failed.height <= bound * minimum:
        return _too_few("error_share", rows.height, minimum)
    return judge(
        "error_share",
        failed.height / rows.height,
        bound,
        better="lower",
        message=f"Share of {rows.height:,} rows that the candidate did not answer.",
        evidence=dict(Counter(str(error) for error in failed["error"]).most_common(SHOWN_ERRORS)),
    )


def _agreement(guards: Guards, both: pl.DataFrame, minimum: int) -> Verdict | str:
    other = both.filter(pl.col("flagged") != pl.col("candidate_flagged")).height
    bound = guards.minimum_agreement
    if both.height < minimum and other <= (1 - bound) * minimum:
        return _too_few("agreement", both.height, minimum)
    return judge(
        "agreement",
        1 - other / both.height,
        bound,
        better="higher",
        message=f"Share of {both.height:,} rows that both bundles flag, or neither.",
        evidence={
            "flagged": float(both["flagged"].mean() or 0),  # type: ignore[arg-type]
            "flagged by the candidate": float(both["candidate_flagged"].mean() or 0),  # type: ignore[arg-type]
        },
    )


def _latency(guards: Guards, both: pl.DataFrame, minimum: int) -> Verdict | str:
    timed = both.drop_nulls(["microseconds", "candidate_microseconds"])
    if timed.height < minimum:
        return _too_few("latency_ratio", timed.height, minimum)
    served, candidate = (
        float(np.percentile(timed[name].to_numpy(), PERCENTILE))
        for name in ("microseconds", "candidate_microseconds")
    )
    return judge(
        "latency_ratio",
        candidate / served if served else None,
        guards.maximum_latency_ratio,
        better="lower",
        message=f"The candidate's {PERCENTILE}th percentile of processor time over that of the bundle that serves, "
        f"for {timed.height:,} rows.",
        evidence={"microseconds": served, "candidate's microseconds": candidate},
    )


def _shift(guards: Guards, both: pl.DataFrame, minimum: int) -> Verdict | str:
    if both.height < minimum:
        return _too_few("probability_shift", both.height, minimum)
    served, candidate = (np.sort(both[name].to_numpy()) for name in ("probability", "candidate_probability"))
    return judge(
        "probability_shift",
        float(
            np.abs(served - candidate).mean()
        ),  # Of two samples of one size, that is the Wasserstein distance.
        guards.maximum_probability_shift,
        better="lower",
        message=f"How far the distribution of probabilities moves, for {both.height:,} rows.",
        evidence={"mean": float(served.mean()), "candidate's mean": float(candidate.mean())},
    )


def _quality(bound: float, both: pl.DataFrame, minimum: int) -> Verdict | str:
    known = both.drop_nulls("outcome")
    if known.height < minimum or known["outcome"].n_unique() < 2:  # noqa: PLR2004 -- both outcomes
        return f"quality_drop: {known.height:,} of {minimum:,} outcomes, of both kinds"
    served, candidate = (
        float(roc_auc_score(known["outcome"].to_numpy(), known[name].to_numpy()))
        for name in ("probability", "candidate_probability")
    )
    return judge(
        "quality_drop",
        served - candidate,
        bound,
        better="lower",
        message=f"Fall of live ROC AUC below that of the bundle that serves, on the same {known.height:,} rows.",
        evidence={"roc_auc": served, "candidate's roc_auc": candidate},
    )


def _too_few(guard: str, rows: int, minimum: int) -> str:
    return f"{guard}: {rows:,} of {minimum:,} rows"
