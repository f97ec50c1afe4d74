"""Periods: the spans of time that rows arrive in, and that batches are named by."""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from seatrial.errors import UsageError


@dataclass(frozen=True)
class Period:
    """A span of time that a batch covers.

    Attributes:
        name: ``2013``, ``2013-07`` or ``2013-07-15``.
        start: Its first instant (included), UTC.
        end: The first instant after it (not included), UTC.
    """

    name: str
    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read a year, a month or a day.

        Raises:
            UsageError: if the text is none of them.
        """
        found = re.fullmatch(r"([0-9]{4})(?:-([0-9]{2}))?(?:-([0-9]{2}))?", text)
        try:
            if not found:
                raise ValueError
            year, month, day = (int(part or 1) for part in found.groups())
            start = datetime(year, month, day, tzinfo=UTC)
            days = 1 if found[3] else monthrange(year, month)[1] if found[2] else 365 + isleap(year)
            return cls(text, start, start + timedelta(days=days))
        except (ValueError, OverflowError):
            raise UsageError(
                f"A period must be a year, a month or a day, such as 2013-07. Got {text!r} instead."
            ) from None


def as_of_or_now(text: str) -> datetime:
    """Read the instant of a run: a period (its end is meant) or an ISO 8601 time; now if the text is empty.

    Raises:
        UsageError: if it is neither.
    """
    if not text:
        return datetime.now(UTC)
    try:
        return Period.parse(text).end
    except UsageError:
        with suppress(ValueError):
            instant = datetime.fromisoformat(text)
            return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    raise UsageError(
        f"An instant must be an ISO 8601 time, such as 2013-07-01T00:00:00Z, or a period. Got {text!r} instead."
    )
