"""What the local tests share: which of them begin first, and which of the processes they start are measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.measured import measured, unmeasured

LONGEST = ("test_real_flights.py", "test_broken_runs.py", "test_init_trains.py", "test_interrupted_work.py")
"""Files that take far longer than the others. Side by side with them the others fill the time of all processes."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; pytest-xdist hands files out in this order (``--no-loadscope-reorder``)."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _few_processes_are_measured() -> Iterator[None]:
    with unmeasured():
        yield


@pytest.fixture(scope="module")
def measured_processes() -> Iterator[None]:
    """For files whose processes run lines that no other file's do, and are not killed: those tell nothing."""
    with measured():
        yield
