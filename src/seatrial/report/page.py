"""From facts to the page: templates with autoescape, filled with what a person wants to see first."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import seatrial
from seatrial.evaluation import Evaluation, SliceMetrics
from seatrial.monitoring import MonitorResult
from seatrial.report import formatting, pictures
from seatrial.report.facts import ReportFacts
from seatrial.verdicts import Outcome, Verdict

MAXIMUM_ROWS = 60
"""Rows of a table of evidence or batches; what is left out is counted."""

MAXIMUM_FIELDS = 12
"""Columns of a table of evidence."""

MAXIMUM_COLUMNS = 150
"""Columns of a table's profile; what is left out is counted."""

MAXIMUM_TEXT = 400
"""Characters of one text in the evidence."""

SHOWN_REASONS = 6
NAMES_SHARE = 0.9
"""A text column with a larger share of distinct values names its rows: it has no distribution."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Characters that HTML does not allow; data can hold them."""


@dataclass(frozen=True)
class EvidenceTable:
    """A part of a verdict's evidence, as a table.

    Attributes:
        name: Its name in the evidence.
        header: Names of the columns; empty for a plain value.
        rows: The cells, as text.
        omitted: Rows that are not shown.
    """

    name: str
    header: list[str]
    rows: list[list[str]]
    omitted: int = 0


@dataclass(frozen=True)
class TableView:
    """What the page says of one table.

    Attributes:
        name: The table's name.
        version: Its version, rows and digest, where known.
        batches: Number of batches that were tested.
        span: The first and the last of them.
        rows: Rows that arrived in them.
        quarantined: Rows that broke a rule.
        reasons: The most frequent reasons and their rows.
        problems: Verdicts that did not pass.
        profile: The columns of its profile, each with the heights of its bars.
        omitted: Columns that are not shown.
    """

    name: str
    version: dict[str, Any] | None
    batches: int
    span: str
    rows: int
    quarantined: int
    reasons: list[tuple[str, int]]
    problems: list[Verdict]
    profile: list[dict[str, Any]]
    omitted: int


def render_report(facts: ReportFacts) -> str:
    """Return a run's report: one HTML page that needs nothing else.

    Args:
        facts: What the run found; sections without facts are left out.
    """
    page = _environment().get_template("page.html")
    text = page.render(
        facts=facts,
        version=seatrial.__version__,
        evidence=evidence_tables,
        tables=_tables(facts),
        pictures=_pictures(facts.evaluation) if facts.evaluation else {},
        slices=_slices(facts.evaluation) if facts.evaluation else [],
        drift_picture=_drift,
    )
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


@cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        formatting.number,
        formatting.percent,
        formatting.decimals,
        formatting.metric_name,
        formatting.metric_value,
        formatting.check_name,
        formatting.duration,
        formatting.instant,
        formatting.day,
        formatting.short,
        formatting.difference_word,
        formatting.kind,
    ):
        environment.filters[function.__name__] = function
    environment.globals |= {
        "quantity": formatting.quantity,
        "interval_text": formatting.interval_text,
        "words": {Outcome.PASS: "Passed", Outcome.WARN: "Warning", Outcome.FAIL: "Failed"},
    }
    return environment


def _pictures(evaluation: Evaluation) -> dict[str, Markup]:
    made = {"cost": pictures.cost_picture(evaluation)}
    if evaluation.calibration:
        made["calibration"] = pictures.calibration_picture(evaluation)
    if evaluation.roc.x:
        made["roc"] = pictures.roc_picture(evaluation)
        made["precision_recall"] = pictures.precision_recall_picture(evaluation)
    return made


def _slices(evaluation: Evaluation) -> list[tuple[str, list[SliceMetrics], Markup]]:
    overall = evaluation.metrics["roc_auc"].value
    limits = pictures.slice_limits(evaluation.slices, overall)
    grouped = [(name, list(found)) for name, found in groupby(evaluation.slices, key=lambda one: one.slice)]
    return [(name, found, pictures.slice_picture(found, overall, limits)) for name, found in grouped]


def _drift(window: MonitorResult) -> Markup | None:
    if window.drift is None:
        return None
    bounds = [v.evidence.get("psi") for v in window.verdicts if v.check == "monitor.drift"]
    return pictures.drift_picture(window.drift, bounds[0] if bounds else None)


def _tables(facts: ReportFacts) -> list[TableView]:
    names = dict.fromkeys([*facts.tables, *(check.table for check in facts.checks), *facts.profiles])
    return [_table(name, facts) for name in names]


def _table(name: str, facts: ReportFacts) -> TableView:
    checks = [check for check in facts.checks if check.table == name]
    reasons: Counter[str] = Counter()
    for check in checks:
        reasons.update(check.reasons)
    batches = sorted(check.batch for check in checks)
    profile = facts.profiles.get(name, [])
    return TableView(
        name=name,
        version=facts.tables.get(name),
        batches=len(batches),
        span=" to ".join(dict.fromkeys(batches[:1] + batches[-1:])),
        rows=sum(check.rows for check in checks),
        quarantined=sum(check.quarantined for check in checks),
        reasons=reasons.most_common(SHOWN_REASONS),
        problems=[v for check in checks for v in check.verdicts if v.outcome is not Outcome.PASS],
        profile=[_column(column) for column in profile[:MAXIMUM_COLUMNS]],
        omitted=max(0, len(profile) - MAXIMUM_COLUMNS),
    )


def _column(facts: dict[str, Any]) -> dict[str, Any]:
    """Add to a column's profile what its line needs: bars, and whether nearly every value is another."""
    present = facts["rows"] * (1 - facts["missing_share"])
    distinct = facts["distinct"] - (facts["missing_share"] > 0)
    is_name = "top" in facts and distinct > NAMES_SHARE * present
    return {**facts, "distinct": distinct, "is_name": is_name, "bars": [] if is_name else _bars(facts)}


def _bars(column: dict[str, Any]) -> list[float]:
    """Return the heights of a column's small histogram, from 0 to 1."""
    counts = column.get("histogram", {}).get("counts") or [count for _, count in column.get("top", [])]
    highest = max(counts, default=0)
    return [round(count / highest, 3) for count in counts] if highest else []


def evidence_tables(evidence: dict[str, Any]) -> list[EvidenceTable]:
    """Return a verdict's evidence as tables; plain values first, as one of their own."""
    plain = {key: value for key, value in evidence.items() if _is_plain(value)}
    rows = [[_words(key), _cell(value)] for key, value in plain.items()]
    made = [EvidenceTable("", [], rows)] if rows else []
    return made + [
        _evidence_table(_words(key), value) for key, value in evidence.items() if key not in plain and value
    ]


def _is_plain(value: Any) -> bool:
    """Return whether a value is told in one cell: a scalar, or a list of them."""
    if isinstance(value, list):
        return not any(isinstance(one, (dict, list)) for one in value)
    return not isinstance(value, dict)


def _evidence_table(name: str, value: dict[str, Any] | list[Any]) -> EvidenceTable:
    """Return a dict or a list as a table: a row an item, a column a field where the items have fields."""
    items = list(value.values()) if isinstance(value, dict) else value
    shown, omitted = items[:MAXIMUM_ROWS], max(0, len(items) - MAXIMUM_ROWS)
    fields = list(dict.fromkeys(field for one in shown if isinstance(one, dict) for field in one))
    fields = fields[:MAXIMUM_FIELDS]
    header = [_words(field) for field in fields]
    rows = [_cells(one, fields) for one in shown]
    if isinstance(value, dict):
        header = ["", *header] if header else []
        rows = [[_named(key), *row] for key, row in zip(value, rows, strict=False)]
    return EvidenceTable(name, header, rows, omitted)


def _cells(one: Any, fields: list[str]) -> list[str]:
    if not isinstance(one, dict):
        return [_cell(one)]
    return [_cell(one.get(field)) for field in fields]


def _named(key: Any) -> str:
    """Return the name of an item: a figure's in words, any other, such as a feature's, as it is."""
    return formatting.METRIC_NAMES.get(str(key), formatting.short(key, 80))


def _words(key: Any) -> str:
    return formatting.METRIC_NAMES.get(str(key), formatting.short(str(key).replace("_", " "), 80))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, (int, float)):
        return formatting.number(value)
    if isinstance(value, list):
        more = f" and {len(value) - MAXIMUM_ROWS} more" if len(value) > MAXIMUM_ROWS else ""
        return (", ".join(_cell(one) for one in value[:MAXIMUM_ROWS]) or "none") + more
    return formatting.short(value, MAXIMUM_TEXT)
