"""The report in headless Chromium: it shows what it should, and nothing in it runs."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from seatrial.report import render_report
from support.report_facts import SCRIPT, facts, hostile_facts

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1200,2000",
)
PROOF = "a script ran here"


def browse(page: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in Chromium with a profile of its own and let it finish."""
    assert CHROMIUM is not None
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *options, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


def as_script(page: str) -> str:
    """Put a script into a page that would leave a proof if it ran."""
    return page.replace("</main>", f"<script>document.title = {PROOF!r}</script></main>")


def test_the_page_shows_the_verdicts(tmp_path: Path) -> None:
    """What the browser makes of the page holds each verdict with its outcome, value and bound."""
    dom = browse(render_report(facts()), tmp_path, "--dump-dom").stdout
    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", dom)))
    assert "2 of 4 checks failed" in text
    for words in (
        "Failed Minimum quality ROC AUC. 0.55 0.6",
        "Warning Latency 99th percentile. 7.5 ms 10 ms",
    ):
        assert words in text
    assert dom.count('<svg role="img"') == 6


def test_the_policy_stops_a_script_that_got_in(tmp_path: Path) -> None:
    """Even a script that is in the page does not run; without the policy the same one does."""
    page = as_script(render_report(facts()))
    assert f"<title>{PROOF}</title>" not in browse(page, tmp_path, "--dump-dom").stdout
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    assert f"<title>{PROOF}</title>" in browse(bare, tmp_path, "--dump-dom").stdout


def test_hostile_texts_stay_texts_without_the_policy(tmp_path: Path) -> None:
    """With the policy taken away, texts that are tags, handlers and links still do nothing: they are escaped."""
    page = render_report(hostile_facts()).replace("alert(1)", f"document.title='{PROOF}'")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    dom = browse(bare, tmp_path, "--dump-dom").stdout
    assert PROOF in dom
    assert f"<title>{PROOF}</title>" not in dom
    assert not re.search(r"<(script|img)\b", dom)
    assert html.escape(SCRIPT.replace("alert(1)", f"document.title='{PROOF}'"), quote=False) in dom


def test_the_page_fits_the_window(tmp_path: Path) -> None:
    """At 1200 pixels nothing of the page is wider than the window."""
    probe = "<script>document.title = 'width ' + document.documentElement.scrollWidth</script></main>"
    for given in (facts(), hostile_facts()):
        page = render_report(given).replace("</main>", probe)
        bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
        dom = browse(bare, tmp_path, "--dump-dom").stdout
        found = re.search(r"<title>width (\d+)</title>", dom)
        assert found
        assert int(found[1]) <= 1200
