"""Numbers and names as a person reads them: three digits, percent, words instead of codes."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from seatrial.evaluation import Interval

UNKNOWN = "not known"
METRIC_NAMES = {
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "brier_score": "Brier score",
    "log_loss": "Log loss",
    "expected_calibration_error": "Calibration error",
    "cost_per_row": "Cost per row",
    "cost_ratio": "Cost against doing nothing",
    "base_rate": "Base rate",
    "flagged_share": "Rows flagged",
    "precision": "Precision",
    "recall": "Recall",
}
_SHARES = frozenset({"cost_ratio", "base_rate", "flagged_share", "precision", "recall"})
_MINUS, _TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_GROUPED = 10_000  # Four digits stay together: they may be a year.
_KINDS = {
    "String": "text",
    "Boolean": "yes or no",
    "Datetime": "time",
    "Date": "time",
    "Float": "number",
    "Int": "whole number",
    "UInt": "whole number",
}


def number(value: float | None) -> str:
    """Write a number with three significant digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    if value == int(value) and size < 1e12:  # noqa: PLR2004 -- beyond it, digits say less than a power
        text = f"{int(value)}" if size < _GROUPED else f"{int(value):,}"
    elif size >= 1e6 or size < 1e-3:  # noqa: PLR2004
        digits, _, power = f"{value:.2e}".partition("e")
        text = f"{digits.rstrip('0').rstrip('.')} {_TIMES} 10{str(int(power)).translate(_SUPERSCRIPTS)}"
    else:
        text = f"{value:.3g}" if size < 1000 else f"{value:,.0f}" if size >= _GROUPED else f"{value:.0f}"  # noqa: PLR2004
    return _signed(text)


def percent(value: float | None) -> str:
    """Write a share as percent with one decimal, two below one percent."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value in (0, 1):
        return f"{value:.0%}"
    return _signed(f"{value:.2%}" if abs(value) < 0.01 else f"{value:.1%}")  # noqa: PLR2004


def decimals(value: float | None) -> str:
    """Write a figure of a model with three decimals."""
    return UNKNOWN if value is None or not math.isfinite(value) else _signed(f"{value:.3f}")


def _signed(text: str) -> str:
    return text.replace("-", _MINUS, 1) if text.startswith("-") else text


def metric_value(name: str, value: float | None) -> str:
    """Write a figure as its kind asks for."""
    return percent(value) if name in _SHARES else decimals(value)


def metric_name(name: str) -> str:
    """Return a figure's name for a person."""
    return METRIC_NAMES.get(name, name.replace("_", " "))


def interval_text(name: str, interval: Interval) -> str:
    """Write an interval's ends; empty where there are none."""
    if interval.low is None or interval.high is None:
        return ""
    return f"{metric_value(name, interval.low)} to {metric_value(name, interval.high)}"


def difference_word(interval: Interval) -> str:
    """Say what a paired difference means."""
    if interval.low is None or interval.high is None:
        return UNKNOWN
    if interval.low > 0:
        return "better"
    return "worse" if interval.high < 0 else "no clear difference"


def check_name(check: str) -> str:
    """Return a check's name for a person: ``data.missing.planes`` becomes ``Data: missing, planes``."""
    first, *rest = check.replace("_", " ").split(".")
    text = f"{first}: {', '.join(rest)}" if rest else first
    return text[:1].upper() + text[1:]


def quantity(value: float | None, unit: str) -> str:
    """Write a number with its unit."""
    return number(value) if value is None or not unit else f"{number(value)} {unit}"


def duration(seconds: float | None) -> str:
    """Write a length of time in seconds or minutes."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"  # noqa: PLR2004


def instant(value: datetime | str) -> str:
    """Write an instant, which is in UTC or has no zone, to the minute; any other text as it is."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        return str(value)
    return f"{at:%Y-%m-%d %H:%M}" + (" UTC" if at.tzinfo is not None else "")


def day(value: datetime | str) -> str:
    """Write the day of an instant."""
    return instant(value)[:10]


def short(text: Any, length: int = 40) -> str:
    """Cut a text that is longer than ``length`` characters."""
    plain = str(text)
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def kind(dtype: str) -> str:
    """Return a column's type in words."""
    return next((word for name, word in _KINDS.items() if dtype.startswith(name)), dtype)
