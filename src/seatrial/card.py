"""The model card: what a model is for, how good it is and where it must not be trusted, as Markdown.

It travels in the bundle, so it is there wherever the model is (Mitchell et al., "Model cards for
model reporting", FAT* 2019). It says the same as the report, from the same facts. Texts from the
contract and from data are escaped, for Markdown and for HTML (threats: A14).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from seatrial.evaluation import Evaluation, SliceMetrics
from seatrial.report.facts import ReportFacts
from seatrial.report.formatting import (
    check_name,
    day,
    difference_word,
    duration,
    instant,
    interval_text,
    metric_name,
    metric_value,
    number,
    percent,
    quantity,
)
from seatrial.verdicts import Outcome

_MARKS = re.compile(r"([\\`*_\[\]|~$])")
_AT_THE_START = re.compile(r"^(\d+(?=[.)](\s|$))|(?=[-+#=]))(.)")
_WORDS = {Outcome.PASS: "passed", Outcome.WARN: "warning", Outcome.FAIL: "**failed**"}
_WORST_SLICES = 5


def escape(text: object) -> str:
    """Return a text that Markdown, and the HTML made of it, shows as it is.

    Line breaks become spaces; what could begin a tag or a link becomes an entity, because not every
    reader of Markdown knows a backslash before it, and other marks get a backslash.
    """
    plain = html.escape(" ".join(str(text).split()), quote=False)
    marked = _MARKS.sub(r"\\\1", plain).replace("://", "&#58;//")
    return _AT_THE_START.sub(r"\1\\\3", marked)


def render_card(facts: ReportFacts) -> str:
    """Return a model's card as Markdown.

    Args:
        facts: What the run found.
    """
    parts = [_head(facts), _use(facts), _data(facts)]
    if facts.evaluation:
        parts += [_quality(facts.evaluation), _slices(facts.evaluation)]
    parts += [_gates(facts), _training(facts), _limits(facts), _reproduce(facts)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _digest(text: str) -> str:
    """Return how a digest begins, as code; there nothing can be escaped, so it is hexadecimal or nothing."""
    return f"`{re.sub('[^0-9a-f]', '', text)[:16]}`"


def _head(facts: ReportFacts) -> str:
    chosen = next((one["name"] for one in facts.candidates if one.get("chosen")), "")
    kind = f" ({escape(chosen)})" if chosen else ""
    return (
        f"# {escape(facts.model)}{kind}\n\n{escape(facts.description)}\n\n"
        f"Owner: {escape(facts.owner)}. Run {escape(facts.run)}, as of {instant(facts.as_of)}. "
        f"{escape(facts.summary)}."
    )


def _use(facts: ReportFacts) -> str:
    if not facts.evaluation:
        return ""
    costs = facts.evaluation.costs
    return (
        "## What it answers\n\n"
        "A probability between 0 and 1 for each row, and whether the row is flagged: from "
        f"{metric_value('roc_auc', facts.evaluation.threshold)} (inclusive) on. That threshold was the cheapest "
        f"on the validation rows, where a missed positive costs {number(costs.missed)} and a false alarm "
        f"{number(costs.false_alarm)}. With other costs, another threshold is right."
    )


def _data(facts: ReportFacts) -> str:
    if not facts.tables:
        return ""
    quarantined = {name: sum(c.quarantined for c in facts.checks if c.table == name) for name in facts.tables}
    rows = [
        [
            escape(name),
            str(one["version"]),
            f"{one['rows']:,}",
            f"{quarantined[name]:,}",
            _digest(one["digest"]),
        ]
        for name, one in facts.tables.items()
    ]
    table = _table(["Table", "Version", "Rows", "In quarantine", "SHA-256 of its content"], rows)
    return f"## Data\n\n{table}\n\nRows in quarantine broke a rule of the contract and were not learned from."


def _quality(found: Evaluation) -> str:
    rows = []
    for name, interval in found.metrics.items():
        line = [metric_name(name), metric_value(name, interval.value), interval_text(name, interval)]
        line.append(metric_value(name, found.constant.metrics[name].value))
        if found.champion:
            gain = found.champion.differences.get(name)
            line.append(metric_value(name, found.champion.metrics[name].value))
            line.append(f"{interval_text(name, gain)}, {difference_word(gain)}" if gain else "")
        rows.append(line)
    header = ["Figure", "This model", "95% interval", "Constant answer"]
    header += ["Champion", "95% interval of the gain"] if found.champion else []
    champion = f" The champion is bundle {_digest(found.champion.digest)}." if found.champion else ""
    return (
        f"## Quality\n\nOn {found.rows:,} test rows from {day(found.start)} to {day(found.end)}, later than all "
        f"that it has learned from. The constant answer is the share of positives in training, "
        f"{percent(found.constant.probability)}.{champion}\n\n{_table(header, rows)}"
    )


def _slices(found: Evaluation) -> str:
    judged = [one for one in found.slices if one.judged and one.metrics["roc_auc"].value is not None]
    if not judged:
        return ""

    def area(one: SliceMetrics) -> float:
        return one.metrics["roc_auc"].value or 0.0

    rows = [
        [
            f"{escape(one.slice)} = {escape(one.value)}",
            f"{one.rows:,}",
            metric_value("base_rate", one.metrics["base_rate"].value),
            metric_value("roc_auc", area(one)),
            interval_text("roc_auc", one.metrics["roc_auc"]),
        ]
        for one in sorted(judged, key=area)[:_WORST_SLICES]
    ]
    table = _table(["Slice", "Rows", "Base rate", "ROC AUC", "95% interval"], rows)
    return f"## Where it is weakest\n\nThe lowest of {len(judged)} slices with enough rows.\n\n{table}"


def _gates(facts: ReportFacts) -> str:
    rows = [
        [
            escape(check_name(one.check)),
            _WORDS[one.outcome],
            quantity(one.value, one.unit),
            "" if one.bound is None else quantity(one.bound, one.unit),
            escape(one.message),
        ]
        for one in facts.ordered_verdicts
    ]
    return (
        f"## Gates\n\n{_table(['Gate', 'Outcome', 'Value', 'Bound', 'What it measures'], rows)}"
        if rows
        else ""
    )


def _training(facts: ReportFacts) -> str:
    lines = []
    if facts.candidates and facts.selection:
        metric = facts.selection.metric
        rows = [
            [
                escape(one["name"]),
                metric_value(metric, one["metrics"][metric]),
                str(one["complexity"]),
                duration(one["seconds"]),
                "chosen" if one.get("chosen") else "",
                ", ".join(f"{escape(key)} = {_parameter(value)}" for key, value in one["parameters"].items()),
            ]
            for one in facts.candidates
        ]
        header = [
            "Candidate",
            f"{metric_name(metric)} (validation)",
            "Complexity",
            "Time",
            "",
            "Tuned parameters",
        ]
        lines.append(_table(header, rows))
    if facts.training:
        took = facts.training
        lines.append(
            f"Training took {duration(took.get('seconds'))}, {quantity(took.get('energy_watt_hours'), 'Wh')} and "
            f"{quantity(took.get('co2_grams'), 'g')} of CO₂, tuning included, as codecarbon measured or estimated it."
        )
    return "## Training\n\n" + "\n\n".join(lines) if lines else ""


def _parameter(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return escape(value)


def _limits(facts: ReportFacts) -> str:
    lines = ["It has learned from the tables above and knows nothing of what they do not show."]
    if facts.evaluation:
        rate = facts.evaluation.metrics["base_rate"].value
        lines.append(
            f"Its figures hold for rows like the test rows, of which {percent(rate)} were positive: "
            "in another season, place or population they must be measured anew."
        )
        small = sorted({f"{one.slice} = {one.value}" for one in facts.evaluation.slices if not one.judged})
        if small:
            named = ", ".join(escape(name) for name in small[:20]) + (" and more" if len(small) > 20 else "")  # noqa: PLR2004
            lines.append(f"Too few test rows to judge it by: {named}.")
    lines.append(
        "Its intervals tell the noise of the test rows as if these were independent of each other: rows that share a "
        "cause, such as a day's weather, make them too narrow, and training again is a noise of its own."
    )
    lines += [
        f"{escape(check_name(v.check))}: {escape(v.message)}"
        for v in facts.verdicts
        if v.outcome is Outcome.WARN
    ]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _reproduce(facts: ReportFacts) -> str:
    model = re.sub(r"[^A-Za-z0-9_]", "", facts.model)  # Within a block of code nothing can be escaped.
    return (
        "## How to make it again\n\n"
        "The same data, code and contract give the same model; this bundle holds the code and the contract, and "
        "the table above the data's versions.\n\n"
        f"```\nseatrial train {model} --as-of {facts.as_of.isoformat()}\n```"
    )
