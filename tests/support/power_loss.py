"""A disk that loses what nobody asked it to keep, for tests of what survives a loss of power.

It stands between the feedback log and the operating system (in the place of its module ``os``): all calls
are made, and noted too. :meth:`Disk.crash` then writes down what a machine may find after its power
was cut at this moment: of each file what was synced last, of each folder the names that it had when it was
synced, and of all later writes none, all, or any of their sectors (threats: F3, Z10).
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any, Literal

SECTOR = 512
Kept = Literal["nothing", "sectors", "everything"]
"""What is kept of writes that were not synced."""


class Disk:
    """Looks like the module ``os`` to the log of one folder.

    Attributes:
        fail_sync: How many of the next syncs of a file fail. As on Linux, a failed sync drops what it should have
            kept, and the next one succeeds.
        torn: Writes that a crash has cut so far.
    """

    def __init__(self) -> None:
        self.fail_sync = 0
        self.torn = 0
        self._paths: dict[int, Path] = {}
        self._folders: dict[int, Path] = {}
        self._named: set[Path] = set()
        self._synced: dict[Path, bytes] = {}
        self._written: dict[Path, list[tuple[int, bytes | None]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path | str, flags: int, mode: int = 0o777) -> int:
        """Open a file or a folder."""
        descriptor = os.open(path, flags, mode)
        place = Path(path)
        if flags & os.O_DIRECTORY:
            self._folders[descriptor] = place
        else:
            self._paths[descriptor] = place
            if flags & os.O_TRUNC:
                self._write(place, 0, None)
            self._synced.setdefault(place, b"")
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close it."""
        self._paths.pop(descriptor, None)
        self._folders.pop(descriptor, None)
        os.close(descriptor)

    def pwrite(self, descriptor: int, content: bytes, place: int) -> int:
        """Write, for now."""
        written = os.pwrite(descriptor, content, place)
        self._write(self._paths[descriptor], place, bytes(content)[:written])
        return written

    def ftruncate(self, descriptor: int, size: int) -> None:
        """Cut, for now."""
        os.ftruncate(descriptor, size)
        self._write(self._paths[descriptor], size, None)

    def fdatasync(self, descriptor: int) -> None:
        """Keep what was written to a file."""
        path = self._paths[descriptor]
        writes = self._written.pop(path, [])
        if self.fail_sync:
            self.fail_sync -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._synced[path] = _applied(self._synced[path], writes)

    def fsync(self, descriptor: int) -> None:
        """Keep a folder's names, or a file."""
        folder = self._folders.get(descriptor)
        if folder is None:
            self.fdatasync(descriptor)
            return
        self._named = {path for path in self._named if path.parent != folder} | set(folder.iterdir())

    def crash(self, target: Path, kept: Kept, chance: random.Random) -> None:
        """Write what a machine finds after a loss of power into a new folder."""
        target.mkdir(parents=True)
        named = set(self._synced) if kept == "everything" else self._named
        for path in named & set(self._synced):
            writes = {"nothing": [], "everything": self._written.get(path, [])}.get(kept)
            if writes is None:
                writes = self._some_sectors(path, chance)
            (target / path.name).write_bytes(_applied(self._synced[path], writes))

    def _write(self, path: Path, place: int, content: bytes | None) -> None:
        self._written.setdefault(path, []).append((place, content))

    def _some_sectors(self, path: Path, chance: random.Random) -> list[tuple[int, bytes | None]]:
        found: list[tuple[int, bytes | None]] = []
        for place, content in self._written.get(path, []):
            if content is None:
                found += [(place, None)] if chance.random() < 0.5 else []
                continue
            parts = _sectors(place, content)
            chosen = [part for part in parts if chance.random() < 0.5]
            self.torn += 0 < len(chosen) < len(parts)
            found += chosen
        return found


def _sectors(place: int, content: bytes) -> list[tuple[int, bytes | None]]:
    parts: list[tuple[int, bytes | None]] = []
    start = 0
    while start < len(content):
        end = min(start + SECTOR - (place + start) % SECTOR, len(content))
        parts.append((place + start, content[start:end]))
        start = end
    return parts


def _applied(content: bytes, writes: list[tuple[int, bytes | None]]) -> bytes:
    """Apply writes, and cuts, to a file's content; None is a cut."""
    made = bytearray(content)
    for place, part in writes:
        if part is None:
            del made[place:]
            made += bytes(max(place - len(made), 0))
        else:
            made += bytes(max(place - len(made), 0))
            made[place : place + len(part)] = part
    return bytes(made)
