"""What a report or a card is made from: facts that the steps found, and nothing that is measured here.

All but the verdicts is optional, so that a training run, a run that stopped half-way and a
monitoring run get the same page.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from seatrial.contract.schema import Selection
from seatrial.data_tests import BatchCheck
from seatrial.evaluation import Evaluation
from seatrial.monitoring import MonitorResult
from seatrial.report.formatting import check_name
from seatrial.verdicts import Outcome, Verdict, worst

_NAMED = 4


class ReportFacts(BaseModel):
    """The facts of one run.

    Attributes:
        model: The model's name.
        run: The run's id.
        as_of: Instant of the run.
        environment: Name of the environment.
        description: What the model says, about what, and when.
        owner: Who answers for it.
        verdicts: The run's verdicts.
        decision: What was decided, in a sentence, such as ``Promoted to local.``
        bundle: Digest of the run's bundle.
        candidates: What was tried, each as :class:`seatrial.training.tuning.CandidateResult` has it.
        selection: The contract's rule by which one was chosen.
        evaluation: How good the model is.
        tables: By table, its version, rows and digest.
        checks: What the data tests found.
        profiles: By table, what :func:`seatrial.data_tests.profile` says of it.
        training: What the training took: ``seconds``, ``energy_watt_hours``, ``co2_grams``.
        windows: Live windows that were watched, oldest first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    run: str
    as_of: datetime
    environment: str
    description: str = ""
    owner: str = ""
    verdicts: list[Verdict]
    decision: str = ""
    bundle: str | None = None
    candidates: list[dict[str, Any]] = []
    selection: Selection | None = None
    evaluation: Evaluation | None = None
    tables: dict[str, dict[str, Any]] = {}
    checks: list[BatchCheck] = []
    profiles: dict[str, list[dict[str, Any]]] = {}
    training: dict[str, float] = {}
    windows: list[MonitorResult] = []

    @property
    def outcome(self) -> Outcome:
        """The worst of the verdicts."""
        return worst(self.verdicts)

    @property
    def ordered_verdicts(self) -> list[Verdict]:
        """The verdicts, failed ones first, then the warnings."""
        order = [Outcome.FAIL, Outcome.WARN, Outcome.PASS]
        return sorted(self.verdicts, key=lambda verdict: order.index(verdict.outcome))

    @property
    def summary(self) -> str:
        """The verdicts in a sentence."""
        count = {outcome: sum(v.outcome is outcome for v in self.verdicts) for outcome in Outcome}
        total = len(self.verdicts)
        if not total:
            return "Nothing was judged"
        if count[Outcome.FAIL]:
            failed = [check_name(v.check) for v in self.verdicts if v.outcome is Outcome.FAIL]
            more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            return f"{len(failed)} of {total} checks failed: {', '.join(failed[:_NAMED])}{more}"
        warned = f", {count[Outcome.WARN]} with a warning" if count[Outcome.WARN] else ""
        return f"{f'All {total} checks' if total > 1 else 'The only check'} passed{warned}"
