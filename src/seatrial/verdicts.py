"""A verdict: what one check found, as data.

Data tests, gates and monitors all end in verdicts, so that one report, one exit code and one
manifest can hold them. A value that could not be computed is a failure, never a pass
(threats: P9, D6), which is why :func:`judge` takes ``None`` and NaN and answers ``fail``.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MARKUP = re.compile(r"[\\`*\[\]<>|]")
_NAME = re.compile(r"\w*_\w*")


class Outcome(StrEnum):
    """What a check found, from best to worst."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


class Verdict(BaseModel):
    """What one check found.

    A verdict that has a bound and no value is a failure; there is no other such verdict.

    Attributes:
        check: Name of the check, such as ``calibration``.
        outcome: Pass, warn or fail.
        value: What was measured, in ``unit``, finite; None where it could not be computed.
        bound: The contract's bound for the value, finite; None where there is none.
        unit: Unit of value and bound, empty for a plain number.
        evidence: Facts that a person can look at, JSON-serializable.
        message: One sentence for a person.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    outcome: Outcome
    value: float | None = Field(None, strict=True, allow_inf_nan=False)
    bound: float | None = Field(None, strict=True, allow_inf_nan=False)
    unit: str = ""
    message: str = ""
    evidence: dict[str, Any] = {}

    @model_validator(mode="after")
    def _nothing_passes_unmeasured(self) -> Verdict:
        if self.bound is not None and self.value is None and self.outcome is not Outcome.FAIL:
            raise ValueError(f"{self.check} has a bound and no value, so it must fail")
        return self


def judge(
    check: str,
    value: float | None,
    bound: float,
    *,
    better: Literal["higher", "lower"],
    message: str,
    unit: str = "",
    warn_at: float | None = None,
    evidence: dict[str, Any] | None = None,
) -> Verdict:
    """Compare a measured value with its bound.

    Args:
        check: Name of the check.
        value: What was measured. None, NaN and infinity fail.
        bound: The worst value that passes (inclusive).
        better: Whether a higher or a lower value is better.
        message: One sentence for a person.
        unit: Unit of value and bound.
        warn_at: The worst value that passes without a warning (inclusive).
        evidence: Facts that a person can look at.

    Returns:
        The verdict.
    """
    if value is None or not math.isfinite(value):
        outcome, value = Outcome.FAIL, None
        message = f"{message} It could not be computed."
    else:
        sign = 1.0 if better == "higher" else -1.0
        outcome = Outcome.PASS if sign * value >= sign * bound else Outcome.FAIL
        if outcome is Outcome.PASS and warn_at is not None and sign * value < sign * warn_at:
            outcome = Outcome.WARN
    return Verdict(
        check=check,
        outcome=outcome,
        value=value,
        bound=bound,
        unit=unit,
        message=message,
        evidence=evidence or {},
    )


def worst(verdicts: list[Verdict]) -> Outcome:
    """Return the worst outcome of ``verdicts``; no verdict at all is a failure."""
    if not verdicts:
        return Outcome.FAIL
    order = [Outcome.PASS, Outcome.WARN, Outcome.FAIL]
    return max((v.outcome for v in verdicts), key=order.index)


def verdicts_table(verdicts: list[Verdict]) -> list[str]:
    """Return verdicts as the lines of a Markdown table, failed ones first."""
    order = [Outcome.FAIL, Outcome.WARN, Outcome.PASS]
    lines = ["| verdict | gate | value | bound | what |", "| --- | --- | ---: | ---: | --- |"]
    for verdict in sorted(verdicts, key=lambda v: order.index(v.outcome)):
        outcome = verdict.outcome if verdict.outcome is Outcome.PASS else f"**{verdict.outcome}**"
        value, bound = (
            "" if n is None else f"{n:.4g} {verdict.unit}".strip() for n in (verdict.value, verdict.bound)
        )
        cells = (outcome, _plain(verdict.check), value, bound, _plain(verdict.message))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _plain(text: str) -> str:
    """Text as it stands in a cell: a message comes from a bundle, and may neither end the row nor mark anything up."""
    escaped = _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))
    return _NAME.sub(r"`\g<0>`", escaped)
