"""The format of a log segment: records that can be found again in a damaged file.

A record is ``magic (4) | length (4) | CRC-32 (4) | payload``, integers little-endian; the CRC
covers length and payload. A payload is JSON, so it is UTF-8, and the first byte of the magic never
occurs in UTF-8: a payload cannot hold something that looks like a record, whatever a client sends.
So whoever has lost the way finds the next record by its magic, and believes it only if its CRC
checks (threats: F4). The idea of resynchronizing is that of LevelDB's log and of Avro's marker.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

MAGIC = b"\xf5SL1"
HEADER = struct.Struct("<4sII")
MAXIMUM_PAYLOAD = 128 * 1024 * 1024
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Scan:
    """What was found in a segment.

    Attributes:
        payloads: The payload of each record that checks, in their order.
        damaged: Bytes that belong to no record, but stand before one.
        torn: Bytes after the last record that checks: what a writer was killed in, mostly.
    """

    payloads: list[bytes]
    damaged: int
    torn: int


def frame(payload: bytes) -> bytes:
    """Return the record of a payload.

    Args:
        payload: UTF-8 text of at most ``MAXIMUM_PAYLOAD`` bytes.
    """
    length = _LENGTH.pack(len(payload))
    return HEADER.pack(MAGIC, len(payload), zlib.crc32(payload, zlib.crc32(length))) + payload


def scan(content: bytes) -> Scan:
    """Find every record of a segment that checks; what is damaged is skipped and counted."""
    payloads: list[bytes] = []
    damaged = 0
    lost_since: int | None = None
    place = 0
    while 0 <= place < len(content):
        payload = _record_at(content, place)
        if payload is None:
            lost_since = place if lost_since is None else lost_since
            place = content.find(MAGIC, place + 1)
            continue
        damaged += place - lost_since if lost_since is not None else 0
        lost_since = None
        payloads.append(payload)
        place += HEADER.size + len(payload)
    return Scan(payloads, damaged, len(content) - lost_since if lost_since is not None else 0)


def _record_at(content: bytes, place: int) -> bytes | None:
    if len(content) - place < HEADER.size:
        return None
    magic, length, checksum = HEADER.unpack_from(content, place)
    start = place + HEADER.size
    if magic != MAGIC or length > len(content) - start:
        return None
    payload = content[start : start + length]
    return payload if zlib.crc32(payload, zlib.crc32(_LENGTH.pack(length))) == checksum else None
