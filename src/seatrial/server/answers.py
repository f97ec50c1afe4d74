"""What a handler returns, whatever protocol it speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the server answers.

    Attributes:
        content: The body: JSON-serializable, or bytes as they are.
        status: The HTTP status.
        content_type: What the body is.
        headers: Further headers.
    """

    content: Any
    status: int = 200
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
