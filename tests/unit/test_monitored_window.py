"""Which window of live traffic a monitoring run judges, by what it was told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seatrial.errors import UsageError
from seatrial.steps.watching import window_of

END = datetime(2013, 8, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("2013-07-31T06:00:00+00:00", datetime(2013, 7, 31, 6, tzinfo=UTC)),
        ("2013-07-31T06:00:00", datetime(2013, 7, 31, 6, tzinfo=UTC)),
        ("2013-07-31", datetime(2013, 7, 31, tzinfo=UTC)),
        ("2013-07", datetime(2013, 7, 1, tzinfo=UTC)),
        ("7d", datetime(2013, 7, 25, tzinfo=UTC)),
        ("12h", datetime(2013, 7, 31, 12, tzinfo=UTC)),
    ],
)
def test_a_window_has_a_beginning_or_a_length(start: str, first: datetime) -> None:
    """A time is its first instant, a period begins where the period does, and a length ends with the window."""
    assert window_of(start, "2013-08-01T00:00:00Z") == (first, END)


def test_a_window_with_a_length_moves_with_the_clock() -> None:
    """So a recurring run, which is told the same each time, judges the newest traffic each time."""
    before = datetime.now(UTC)
    since, until = window_of("7d", "")

    assert before <= until <= datetime.now(UTC)
    assert until - since == timedelta(days=7)


@pytest.mark.parametrize("start", ["2013-08-02", "2013-08-01T00:00:00Z", "yesterday", "0d", ""])
def test_a_window_that_is_none_is_refused(start: str) -> None:
    """One that is empty, or a text that is neither a time nor a length."""
    with pytest.raises(UsageError):
        window_of(start, "2013-08-01T00:00:00Z")
