"""Append-only logs of numbered records, the root of every pointer in Seatrial.

A record is an object named by its number and written create-only, so of two writers who both saw
number *n* as the last, exactly one gets to write *n + 1* and the other is told. That is a
compare-and-swap on any store that has create-only writes, a plain disk included, and the history
of a pointer comes for free: the newest record is the pointer's value, the others its past. A
writer killed at any moment has written the record, whole, or has not (threats: P1 to P5).

Each record holds the SHA-256 of the bytes of the one before, so whoever knows the digest of one
record can tell whether anything before it was changed, taken out or put in (threats: E2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from seatrial.errors import PointerMovedError, StoreError
from seatrial.workspace import Workspace

CHAIN = "chain"
"""Key in a record's file for the digest of the record before; empty in the first."""
_DIGITS = 10


@dataclass(frozen=True)
class Record:
    """One record of a log.

    Attributes:
        number: Its number, counted from 1.
        content: What it says.
        sha256: Digest of its file's bytes, in hexadecimal.
        chain: What it says of the digest of the record before; empty where it is the first.
    """

    number: int
    content: dict[str, Any]
    sha256: str = field(default="", compare=False)
    chain: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class RecordLog:
    """A log of records under one prefix of a workspace."""

    workspace: Workspace
    prefix: str

    def last(self) -> Record | None:
        """Return the newest record, or None if there is none.

        Raises:
            StoreError: if the store failed or the record is damaged.
        """
        keys = self._keys()
        return self._read(keys[-1]) if keys else None

    def all(self) -> list[Record]:
        """Return every record, oldest first.

        Raises:
            StoreError: if the store failed or a record is damaged.
        """
        return [self._read(key) for key in self._keys()]

    def newest(self, wanted: Callable[[dict[str, Any]], bool]) -> Record | None:
        """Return the newest record whose content is wanted, or None if there is none.

        Raises:
            StoreError: if the store failed or a record is damaged.
        """
        records = (self._read(key) for key in reversed(self._keys()))
        return next((record for record in records if wanted(record.content)), None)

    def faults(self) -> list[str]:
        """Return what is wrong with the chain, in words; nothing where every record follows the one before.

        Raises:
            StoreError: if the store failed.
        """
        return list(self._faults())

    def _faults(self) -> Iterator[str]:
        number, digest = 0, ""
        for key in self._keys():
            number += 1
            try:
                record = self._read(key)
            except StoreError as error:
                yield error.message
                return
            if record.number != number:
                yield f"Record {number} of {self.prefix} is missing."
                number = record.number
            elif record.chain != digest:
                before = f"follow record {number - 1} as that is now" if digest else "begin its log"
                yield f"Record {number} of {self.prefix} does not {before}: it was changed, or what was before it."
            digest = record.sha256

    def append(self, content: dict[str, Any], *, after: int) -> Record:
        """Write the record that follows record ``after``.

        Args:
            content: What it says; JSON-serializable, without a key ``chain``.
            after: Number of the newest record when the writer looked; 0 where there was none.

        Raises:
            PointerMovedError: if somebody else has written that record in the meantime, or there is
                no record ``after``: the writer looked at another log.
            StoreError: if the store failed.
        """
        before = self.workspace.get(self._key(after)) if after else b""
        if before is None:
            raise PointerMovedError(
                f"{self.prefix} has no record {after} to follow.",
                remedy="Look at what it says and try again.",
            )
        number, chain = after + 1, _sha256(before) if after else ""
        written = orjson.dumps({**content, CHAIN: chain}, option=orjson.OPT_INDENT_2)
        if not self.workspace.create(self._key(number), written):
            raise PointerMovedError(
                f"{self.prefix} moved on in the meantime: record {number} is there already.",
                remedy="Look at what it says now and try again.",
            )
        return Record(number, content, _sha256(written), chain)

    def _keys(self) -> list[str]:
        return [key for key in self.workspace.list(self.prefix) if key.endswith(".json")]

    def _key(self, number: int) -> str:
        return f"{self.prefix}/{number:0{_DIGITS}d}.json"

    def _read(self, key: str) -> Record:
        written = self.workspace.get(key) or b""
        try:
            number, content = int(key.rsplit("/", 1)[1].removesuffix(".json")), orjson.loads(written)
        except ValueError as error:
            raise StoreError(f"The record {key} is damaged: {error}.") from None
        if not isinstance(content, dict):
            raise StoreError(f"The record {key} is damaged: it is no JSON object.")
        chain = content.pop(CHAIN, None)
        return Record(number, content, _sha256(written), chain)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
