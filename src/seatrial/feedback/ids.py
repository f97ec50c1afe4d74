"""Identifiers of predictions: UUIDs of version 7, which sort by the time of their making.

They are ours, never the client's, so no client can overwrite another's prediction (threats: F10).
"""

from __future__ import annotations

import os
import re
import time
from datetime import datetime

_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_A = (1 << 12) - 1 << 64
_RANDOM_B = (1 << 62) - 1


def new_id() -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7) as text."""
    return new_ids(1)[0]


def new_ids(count: int) -> list[str]:
    """Return so many new UUIDs of version 7."""
    milliseconds = (time.time_ns() // 1_000_000 << 80) & ((1 << 128) - 1) | _VERSION | _VARIANT
    random = os.urandom(10 * count)
    found = []
    for first in range(0, 10 * count, 10):
        number = int.from_bytes(random[first : first + 10], "big") & (_RANDOM_A | _RANDOM_B)
        text = f"{milliseconds | number:032x}"
        found.append(f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}")
    return found


def first_id_at(instant: datetime) -> str:
    """Return what sorts before every id made at ``instant`` or later, and after every earlier one.

    Args:
        instant: An instant, UTC; ids know it to the millisecond.
    """
    text = f"{max(int(instant.timestamp() * 1000), 0):012x}"
    return f"{text[:8]}-{text[8:]}"


def is_id(text: str) -> bool:
    """Return whether ``text`` has the form of a prediction's id."""
    return _PATTERN.fullmatch(text) is not None
