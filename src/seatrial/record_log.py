"""Append-only logs of numbered records, the root of every pointer in Seatrial.

A record is an object named by its number and written create-only, so of two writers who both saw
number *n* as the last, exactly one gets to write *n + 1* and the other is told. That is a
compare-and-swap on any store that has create-only writes, a plain disk included, and the history
of a pointer comes for free: the newest record is the pointer's value, the others its past. A
writer killed at any moment has written the record, whole, or has not (threats: P1 to P5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from seatrial.errors import PointerMovedError, StoreError
from seatrial.workspace import Workspace

_DIGITS = 10


@dataclass(frozen=True)
class Record:
    """One record of a log.

    Attributes:
        number: Its number, counted from 1.
        content: What it says.
    """

    number: int
    content: dict[str, Any]


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

    def append(self, content: dict[str, Any], *, after: int) -> Record:
        """Write the record that follows record ``after``.

        Args:
            content: What it says; JSON-serializable.
            after: Number of the newest record when the writer looked; 0 where there was none.

        Raises:
            PointerMovedError: if somebody else has written that record in the meantime, or there is
                no record ``after``: the writer looked at another log.
            StoreError: if the store failed.
        """
        if after and self.workspace.get(self._key(after)) is None:
            raise PointerMovedError(
                f"{self.prefix} has no record {after} to follow.",
                remedy="Look at what it says and try again.",
            )
        number = after + 1
        if not self.workspace.create(self._key(number), orjson.dumps(content, option=orjson.OPT_INDENT_2)):
            raise PointerMovedError(
                f"{self.prefix} moved on in the meantime: record {number} is there already.",
                remedy="Look at what it says now and try again.",
            )
        return Record(number, content)

    def _keys(self) -> list[str]:
        return [key for key in self.workspace.list(self.prefix) if key.endswith(".json")]

    def _key(self, number: int) -> str:
        return f"{self.prefix}/{number:0{_DIGITS}d}.json"

    def _read(self, key: str) -> Record:
        content = self.workspace.get(key)
        try:
            return Record(int(key.rsplit("/", 1)[1].removesuffix(".json")), orjson.loads(content or b""))
        except ValueError as error:
            raise StoreError(f"The record {key} is damaged: {error}.") from None
