"""The model card: what it says, and that no text from users or data changes its shape."""

from __future__ import annotations

import re

import pytest

from seatrial.card import escape, render_card
from seatrial.report import ReportFacts
from support.report_facts import HOSTILE, SCRIPT, facts, hostile_facts


def test_a_card_says_what_it_should() -> None:
    """Purpose, data, figures with intervals, weakest slices, gates, limits and how to make it again."""
    card = render_card(facts())
    titles = re.findall(r"^## (.*)$", card, re.MULTILINE)
    assert titles == [
        "What it answers",
        "Data",
        "Quality",
        "Where it is weakest",
        "Gates",
        "Training",
        "Limits",
        "How to make it again",
    ]
    area = facts().evaluation.metrics["roc_auc"]  # type: ignore[union-attr]
    assert f"| ROC AUC | {area.value:.3f} | {area.low:.3f} to {area.high:.3f} | 0.500 |" in card
    assert "| Minimum quality | **failed** | 0.55 | 0.6 |" in card
    assert "seatrial train flights --as-of 2013-07-01T00:00:00+00:00" in card
    assert "- Latency: 99th percentile." in card


def test_a_card_of_hostile_texts_has_no_tags_and_whole_tables() -> None:
    """Script tags, links, pipes and line breaks in texts neither become HTML nor break a table."""
    card = render_card(hostile_facts())
    assert not re.search(r"<[a-zA-Z/!]", card)
    assert "](javascript" not in re.sub(r"\\[\[\]]", "", card)
    for table in re.findall(r"(?:^\|.*\|$\n?)+", card, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


@pytest.mark.parametrize(
    "text", [*HOSTILE, "# title", "- item", "1. item", "---", "a_b*c`d", "[x](y)", "a\n\n# b"]
)
def test_escaped_texts_are_shown_as_they_are(text: str) -> None:
    """What a text says survives; every mark in it is defused."""
    shown = escape(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)[\\`*_\[\]|~$](?![\\`*_\[\]|~$])", re.sub(r"\\.", "", shown))
    assert not re.match(r"[-+#=]|\d+[.)](\s|$)", shown)
    assert "<" not in shown


def test_plain_texts_are_left_alone() -> None:
    """Ordinary sentences stay readable in the raw file."""
    for text in (
        "Says, two hours before a departure (from New York), whether it is late.",
        "1.5",
        "a-b@example.com",
    ):
        assert escape(text) == text


def test_a_card_needs_verdicts_only() -> None:
    """A card of a run without an evaluation says what there is."""
    card = render_card(ReportFacts(model="m", run="r", as_of=facts().as_of, environment="local", verdicts=[]))
    assert card.startswith("# m\n")
    assert "## Quality" not in card
    assert SCRIPT not in card
