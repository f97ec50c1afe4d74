"""What all tests share: levels by folder, from cheap to dear, and limits on their time.

A test's level is the folder it lies in, so nobody has to remember a marker, and plain ``pytest``
runs the cheap levels first: whatever can be wrong is said as early as it can be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

LEVELS = ("repository", "unit", "contracts", "charts", "local", "browser", "cluster")
UNIT_SECONDS = 2.0
"""A unit test that takes longer than this is named at the end of the run."""
UNIT_LIMIT_SECONDS = 60
"""A unit test that takes longer than this is stopped; on a busy machine an import alone may take ten."""

# In pytest-xdist's processes these name a terminal of 80 columns, as they may where a caller has one. What is printed
# would be broken into lines there, and a test could not say otherwise: rich reads them when it is imported.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# On a machine that is busy with something else an example may take any time: the limit on the test counts.
hypothesis.settings.register_profile("seatrial", deadline=None, print_blob=True)
hypothesis.settings.load_profile("seatrial")

_slow: list[tuple[float, str]] = []


def _level(path: Path) -> str | None:
    parts = path.relative_to(Path(__file__).parent).parts
    return parts[0] if parts[0] in LEVELS else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, give unit tests their limit, and order cheap to dear."""
    for item in items:
        if level := _level(item.path):
            item.add_marker(level)
            if level == "unit" and item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(UNIT_LIMIT_SECONDS))
    items.sort(key=lambda item: LEVELS.index(_level(item.path) or LEVELS[-1]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember the unit tests that are slower than they should be."""
    if report.when == "call" and "unit" in report.keywords and report.duration > UNIT_SECONDS:
        _slow.append((report.duration, report.nodeid))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the slow unit tests: each of them delays every later run."""
    if _slow:
        terminalreporter.section(f"unit tests over {UNIT_SECONDS:g} seconds")
        for seconds, test in sorted(_slow, reverse=True):
            terminalreporter.line(f"{seconds:6.1f} s  {test}")


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Take away the caller's settings; with them, a test would use the caller's workspace and keys."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "SEATRIAL_WORKSPACE",
            "SEATRIAL_MODELS",
            "SEATRIAL_SIGNING_KEY",
            "SEATRIAL_TRUST",
            "SEATRIAL_PRIVACY_KEY",
        ):
            patch.delenv(name, raising=False)
        yield
