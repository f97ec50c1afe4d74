"""The report: everything that it should say, in one page that nothing in the data can bend."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from seatrial.evaluation import Interval, evaluate
from seatrial.report import ReportFacts, formatting, render_report
from seatrial.report.page import MAXIMUM_ROWS, evidence_tables
from seatrial.verdicts import Outcome, Verdict
from support.report_facts import SCRIPT, evaluation, facts, hostile_facts, verdicts, window

MAXIMUM_BYTES = 1_500_000


class Page(HTMLParser):
    """A page as a browser's parser sees it: tags with attributes, and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def whole() -> str:
    """The page of a run with everything in it; drawing it takes a second."""
    return render_report(facts())


@pytest.fixture(scope="module")
def attacked() -> str:
    """The page of a run whose every text is an attack."""
    return render_report(hostile_facts())


def test_verdicts_come_first_and_failed_ones_before_others(whole: str) -> None:
    """The first section is the verdicts, ordered from failed over warnings to passed, each in words."""
    page = Page(whole)
    sections = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    assert sections == ["verdicts", "quality", "slices", "candidates", "live-traffic", "data"]
    part = whole[whole.index('id="verdicts"') : whole.index('id="quality"')]
    outcomes = re.findall(r'<details class="verdict (\w+)"', part)
    assert outcomes == ["fail", "fail", "warn", "pass"]
    assert len(re.findall(r"</span> (Failed|Warning|Passed)</span>", part)) == 4
    assert "2 of 4 checks failed" in page.text
    assert "Not promoted: gates failed." in page.text


def test_a_verdict_shows_value_bound_and_evidence(whole: str) -> None:
    """Value and bound carry their unit, what was not computed says so, and evidence is there to open."""
    text = Page(whole).text
    assert "7.5 ms 10 ms" in text
    assert "not computed 1 × 10⁻⁴" in text  # noqa: RUF001 -- the multiplication sign is meant
    assert "ROC AUC 0.58" in text


def test_the_page_needs_nothing_and_runs_nothing(whole: str, attacked: str) -> None:
    """No script, no address but the namespaces of SVG, no handler, and a policy that forbids them all."""
    for html in (whole, attacked):
        page = Page(html)
        policy = {"http-equiv": "Content-Security-Policy"}
        assert any(policy.items() <= attributes.items() for tag, attributes in page.tags if tag == "meta")
        assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
        assert not {"script", "img", "iframe", "object", "embed", "link", "b&gt;"} & {
            tag for tag, _ in page.tags
        }
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")], tag
            for name in ("href", "src", "xlink:href", "action"):
                assert (attributes.get(name) or "#").startswith("#")
        used = set(re.findall(r"https?://[^\"' <)]+", html))
        assert used <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert not re.search(r"url\((?!#)", html)


def test_a_hostile_name_stays_text(attacked: str) -> None:
    """A feature, slice, table, candidate or message that is a script tag is shown as that text."""
    text = Page(attacked).text
    assert text.count(SCRIPT) > 30
    assert "\x00" not in attacked


def test_hostile_amounts_stay_small(attacked: str) -> None:
    """Long texts are cut and long evidence is counted, so the page stays below its limit."""
    assert len(attacked.encode()) < MAXIMUM_BYTES
    assert "and 440 more" in Page(attacked).text


def test_a_large_run_stays_below_the_limit() -> None:
    """Sixty slices and a window of 150 features are still below 1.5 MB."""
    many = tuple(f"value {place}" for place in range(60))
    live = window(tuple(f"feature_{place}" for place in range(150)))
    page = render_report(facts(evaluation=evaluation(1_200, values=many), windows=[live]))
    assert len(page.encode()) < MAXIMUM_BYTES


def test_the_same_facts_give_the_same_page(whole: str) -> None:
    """No date and no random id is in the page, so it can be compared byte by byte."""
    assert render_report(facts()) == whole


def test_pictures_keep_their_texts_and_take_the_pages_colours(whole: str) -> None:
    """A picture's words are texts that can be searched, and no fixed colour of ours is left in it."""
    pictures = re.findall(r'<svg role="img".*?</svg>', whole, re.DOTALL)
    assert len(pictures) == 6
    assert all("<text" in picture and "var(--" in picture for picture in pictures)
    assert not re.search(r"#(1b2430|1d5fa6|b4530a)", "".join(pictures))


def test_all_but_the_verdicts_is_optional() -> None:
    """A run that stopped early, or watched only, gets a page of what there is."""
    base = {"model": "m", "run": "r", "as_of": facts().as_of, "environment": "local"}
    bare = render_report(ReportFacts(**base, verdicts=[]))
    assert "Nothing was judged" in bare
    assert 'id="quality"' not in bare
    live = window()
    watched = render_report(ReportFacts(**base, verdicts=list(live.verdicts), windows=[live]))
    assert "monitoring report" in Page(watched).text
    assert watched.count('class="verdict ') == len(live.verdicts)


def test_an_evaluation_that_could_not_measure_is_shown() -> None:
    """With one class only there is no curve; the page says what is not known instead of failing."""
    one_class = evaluate(
        [0] * 40,
        [0.2] * 40,
        threshold=0.5,
        costs=evaluation().costs,
        training_base_rate=0.1,
        period=("0", "39"),
        seed=1,
    )
    page = render_report(facts(evaluation=one_class))
    assert "not known" in page
    assert "ROC curve" not in page


def test_facts_survive_json() -> None:
    """Facts can be handed from one step to the next as JSON."""
    given = facts()
    assert ReportFacts.model_validate_json(given.model_dump_json()) == given


def test_evidence_becomes_tables() -> None:
    """Plain values share a table, a dict has a row an item, a list of records a column a field."""
    made = evidence_tables(
        {
            "rows": 40,
            "drifted": ["a", "b"],
            "largest": {"wind_gust": 0.5},
            "bins": [{"low": 1, "high": 2}] * (MAXIMUM_ROWS + 5),
            "live": {"roc_auc": {"value": 0.71234}},
            "empty": {},
        }
    )
    by_name = {table.name: table for table in made}
    assert by_name[""].rows == [["rows", "40"], ["drifted", "a, b"]]
    assert by_name["largest"].rows == [["wind_gust", "0.5"]]
    assert by_name["bins"].header == ["low", "high"]
    assert by_name["bins"].omitted == 5
    assert by_name["live"].header == ["", "value"]
    assert by_name["live"].rows == [["ROC AUC", "0.712"]]
    assert "empty" not in by_name


def test_the_summary_counts_outcomes() -> None:
    """The headline says how many failed, or how many warn, or that nothing was judged."""
    passed = verdicts()[:1]
    assert facts(verdicts=passed).summary == "The only check passed"
    assert facts(verdicts=verdicts()[:2]).summary == "All 2 checks passed, 1 with a warning"
    assert facts().summary == "2 of 4 checks failed: Minimum quality, Parity"
    assert facts(verdicts=verdicts()[2:] * 4).summary.endswith("and 4 more")
    assert facts().outcome is Outcome.FAIL
    assert [v.outcome for v in facts().ordered_verdicts][:2] == [Outcome.FAIL, Outcome.FAIL]
    assert isinstance(facts().verdicts[0], Verdict)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not known"),
        (float("nan"), "not known"),
        (0, "0"),
        (2013, "2013"),
        (25353, "25,353"),
        (0.013765, "0.0138"),
        (-0.005, "−0.005"),  # noqa: RUF001
        (2.4e-7, "2.4 × 10⁻⁷"),  # noqa: RUF001
        (1e-4, "1 × 10⁻⁴"),  # noqa: RUF001
        (123456.7, "123,457"),
        (1234.5, "1234"),
        (3.2e9 + 0.5, "3.2 × 10⁹"),  # noqa: RUF001
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    """A number is written with three significant digits, grouped from five digits on."""
    assert formatting.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.31002, "31.0%"), (0.00123, "0.12%"), (1.0, "100%"), (0, "0%"), (1.473, "147.3%")]
)
def test_shares_are_percent(value: float, text: str) -> None:
    """A share is written as percent."""
    assert formatting.percent(value) == text


def test_a_difference_is_told_in_words() -> None:
    """Above zero is better, below worse, around zero neither."""
    words = [formatting.difference_word(Interval(value=0, low=low, high=low + 1)) for low in (0.1, -2, -0.5)]
    assert words == ["better", "worse", "no clear difference"]
    assert formatting.difference_word(Interval(value=None)) == "not known"
