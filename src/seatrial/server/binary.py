"""Tensors as bytes: the binary tensor extension over REST, and raw contents over gRPC, have the same form.

Elements follow each other, little-endian and without padding; a text is its length, of four bytes, and
its UTF-8. A missing value has no such form: an input that has none for any row is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from seatrial.errors import RequestError

_TYPES = {
    "BOOL": np.dtype("?"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_LENGTH = 4
BYTES = "BYTES"
DATATYPES = (*_TYPES, BYTES)
"""The datatypes that any input or output has."""


def read_elements(content: bytes, datatype: str, count: int, place: str) -> list[Any]:
    """Return a tensor's elements.

    Args:
        content: The elements' bytes.
        datatype: One of :data:`DATATYPES`.
        count: How many elements there must be.
        place: Where in the request they are, for the message.

    Raises:
        RequestError: if these bytes are not so many elements.
    """
    if datatype == BYTES:
        return [text(item, f"{place}[{row}]") for row, item in enumerate(_pieces(content, count, place))]
    kind = _TYPES[datatype]
    if len(content) != count * kind.itemsize:
        raise RequestError(
            f"{place} must have {count * kind.itemsize:,} bytes: {count:,} times {datatype}. "
            f"Got {len(content):,} instead."
        )
    if datatype == "BOOL":
        return [byte != 0 for byte in content]
    found: list[Any] = np.frombuffer(content, kind).tolist()
    return found


def write_elements(values: Sequence[Any], datatype: str) -> bytes:
    """Return the bytes of a tensor's elements."""
    if datatype == BYTES:
        return b"".join(len(item).to_bytes(_LENGTH, "little") + item for item in map(str.encode, values))
    return np.asarray(values, _TYPES[datatype]).tobytes()


def text(content: bytes, place: str) -> str:
    """Return a text that was sent as bytes.

    Raises:
        RequestError: if it is no UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RequestError(f"{place} must be a text in UTF-8. Got {content[:20]!r} instead.") from None


def _pieces(content: bytes, count: int, place: str) -> list[bytes]:
    pieces, at = [], 0
    for row in range(count):
        size = int.from_bytes(content[at : at + _LENGTH], "little")
        at += _LENGTH
        if at + size > len(content):
            raise RequestError(
                f"{place}[{row}] must have as many bytes as its length says. There are too few."
            )
        pieces.append(content[at : at + size])
        at += size
    if at != len(content):
        raise RequestError(f"{place} must have {count:,} texts. Got {len(content) - at:,} bytes more.")
    return pieces
