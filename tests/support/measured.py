"""Which of the processes that tests start are measured for coverage.

Measuring one makes it half as slow again, and most of them run lines that another one runs as well. So
tests/local measures those alone that a test starts within ``measured``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

VARIABLE = "COVERAGE_PROCESS_CONFIG"
"""With it in its environment, a process measures itself (coverage's ``patch = ["subprocess"]``)."""
_settings: list[str] = []


@contextmanager
def unmeasured() -> Iterator[None]:
    """Let no process that is started within the block be measured, but for those within ``measured``."""
    with pytest.MonkeyPatch.context() as patch:
        if VARIABLE in os.environ:
            _settings[:] = [os.environ[VARIABLE]]
            patch.delenv(VARIABLE)
        yield


@contextmanager
def measured() -> Iterator[None]:
    """Measure the processes that are started within the block, if anything is measured at all."""
    with pytest.MonkeyPatch.context() as patch:
        for found in _settings:
            patch.setenv(VARIABLE, found)
        yield
