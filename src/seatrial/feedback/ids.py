"""Identifiers of predictions: UUIDs of version 7, which sort by the time of their making.

They are ours, never the client's, so no client can overwrite another's prediction (threats: F10).
"""

from __future__ import annotations

import os
import re
import time
import uuid

_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_A = (1 << 12) - 1 << 64
_RANDOM_B = (1 << 62) - 1


def new_id() -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7) as text."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds << 80) | _VERSION | _VARIANT | (random & _RANDOM_A) | (random & _RANDOM_B)
    return str(uuid.UUID(int=value & ((1 << 128) - 1)))


def is_id(text: str) -> bool:
    """Return whether ``text`` has the form of a prediction's id."""
    return _PATTERN.fullmatch(text) is not None
