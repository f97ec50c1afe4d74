"""Facts of a run for the report and the card: small, of every kind, and hostile on demand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from seatrial.contract.schema import Costs, Monitoring, Selection
from seatrial.data_tests import BatchCheck, profile
from seatrial.evaluation import ChampionAnswers, Evaluation, best_threshold, evaluate
from seatrial.features.encoding import FeatureSchema
from seatrial.monitoring import MonitorResult, compare, fit_baseline
from seatrial.monitoring.monitor import judge_drift
from seatrial.report import ReportFacts
from seatrial.verdicts import Outcome, Verdict, judge

COSTS = Costs(missed=5, false_alarm=1)
SCRIPT = "<script>alert(1)</script>"
IMAGE = "\"><img src=x onerror=alert(1)> $x_1$ ]]> --> [a](javascript:alert(1)) |\n# &lt;b&gt; '"
LONG = "x" * 5_000
HOSTILE = (SCRIPT, IMAGE, LONG)


def evaluation(
    rows: int = 600, *, slice_name: str = "carrier", values: tuple[str, ...] = ("AA", "UA")
) -> Evaluation:
    """An evaluation of simulated answers, with a champion."""
    generator = np.random.default_rng(3)
    answers = generator.beta(2, 5, rows)
    labels = generator.random(rows) < answers
    noisy = np.clip(answers + generator.normal(0, 0.2, rows), 0, 1)
    return evaluate(
        labels,
        answers,
        threshold=best_threshold(labels, answers, COSTS),
        costs=COSTS,
        training_base_rate=0.28,
        period=("2013-06-02 00:00:00+00:00", "2013-06-30 23:00:00+00:00"),
        seed=1,
        slices={slice_name: pl.Series([values[place % len(values)] for place in range(rows)])},
        minimum_slice_rows=50,
        champion=ChampionAnswers("4b" * 32, noisy, 0.2),
        repeats=20,
    )


def window(names: tuple[str, ...] = ("temperature", "carrier")) -> MonitorResult:
    """A window of live traffic in which every number has moved."""
    generator = np.random.default_rng(5)
    frame = pl.DataFrame({name: generator.normal(size=2_000) for name in names})
    schema = FeatureSchema.fit(frame)
    matrix, answers = schema.encode(frame), generator.random(2_000)
    rules = Monitoring()
    drift = compare(fit_baseline(matrix, schema, answers, answers > 0.5), matrix + 2, answers, rules)
    return MonitorResult(
        model="flights",
        bundle="9f" * 32,
        start=datetime(2013, 7, 1, tzinfo=UTC),
        end=datetime(2013, 8, 1, tzinfo=UTC),
        rows=2_000,
        other_rows=0,
        outcomes=0,
        outcome_rate=None,
        label_rate=0.5,
        verdicts=tuple(judge_drift(drift, rules)),
        drift=drift,
        quality=None,
    )


def verdicts(message: str = "Expected calibration error on the test rows.") -> list[Verdict]:
    """One verdict that passes, one that warns, one that fails, and one that was not computed."""
    return [
        judge("calibration", 0.0138, 0.1, better="lower", message=message, evidence={"bins": [{"rows": 40}]}),
        judge("latency", 7.5, 10, better="lower", unit="ms", warn_at=5, message="99th percentile."),
        judge("minimum_quality", 0.55, 0.6, better="higher", message="ROC AUC.", evidence={"roc_auc": 0.58}),
        Verdict(check="parity", outcome=Outcome.FAIL, bound=1e-4, message="It could not be computed."),
    ]


def facts(**changes: Any) -> ReportFacts:
    """Facts of a run with everything in them."""
    rows = pl.DataFrame({"carrier": ["AA", "UA", None, "UA"] * 20, "distance": [1.5, 2.5, 4.0, None] * 20})
    check = BatchCheck("flights", "2013-06", 80, 2, {"distance: is missing": 2}, verdicts()[:1])
    given: dict[str, Any] = {
        "model": "flights",
        "run": "20130701T000000-1a2b",
        "as_of": datetime(2013, 7, 1, tzinfo=UTC),
        "environment": "local",
        "description": "Says whether a flight will be late.",
        "owner": "operations@example.com",
        "verdicts": verdicts(),
        "decision": "Not promoted: gates failed.",
        "bundle": "9f" * 32,
        "candidates": [candidate("trees", chosen=True), candidate("logistic", chosen=False)],
        "selection": Selection(metric="average_precision", margin=0.005),
        "evaluation": evaluation(),
        "tables": {"flights": {"version": 3, "rows": 78, "digest": "ab" * 32}},
        "checks": [check],
        "profiles": {"flights": profile(rows)},
        "training": {"seconds": 61.0, "energy_watt_hours": 0.71, "co2_grams": 0.27},
        "windows": [window()],
    }
    return ReportFacts(**{**given, **changes})


def candidate(name: str, *, chosen: bool, **parameters: Any) -> dict[str, Any]:
    """A candidate as training tells of it."""
    metrics = {"roc_auc": 0.77, "average_precision": 0.54, "brier_score": 0.14, "cost_per_row": 0.6}
    return {
        "name": name,
        "complexity": 2,
        "metrics": metrics,
        "parameters": parameters or {"learning_rate": 0.0788},
        "trials": [{}, {}],
        "seconds": 34.1,
        "chosen": chosen,
    }


def hostile_facts() -> ReportFacts:
    """Facts in which every text from users or data is an attack on the page."""
    rows = pl.DataFrame({SCRIPT: [*HOSTILE, "b"] * 5, IMAGE: list(range(20))})
    bad = verdicts(SCRIPT + IMAGE)
    evidence = {
        SCRIPT: IMAGE,
        "list": [SCRIPT] * 500,
        "table": [{IMAGE: LONG}] * 500,
        "deep": {SCRIPT: {SCRIPT: [IMAGE]}},
    }
    bad[2] = bad[2].model_copy(update={"evidence": evidence, "message": LONG, "check": SCRIPT})
    return facts(
        run=SCRIPT,
        environment=IMAGE,
        description=IMAGE + SCRIPT,
        owner=SCRIPT,
        decision=SCRIPT,
        verdicts=bad,
        candidates=[candidate(SCRIPT, chosen=True, **{IMAGE: SCRIPT})],
        evaluation=evaluation(slice_name=SCRIPT, values=(*HOSTILE, "$\\frac{1}{$", "日本語", "a\x0bb\x00c")),
        tables={SCRIPT: {"version": 3, "rows": 78, "digest": IMAGE}},
        checks=[BatchCheck(SCRIPT, IMAGE, 80, 2, {SCRIPT: 2}, bad)],
        profiles={SCRIPT: profile(rows)},
        windows=[window((SCRIPT, IMAGE, LONG))],
    )
