"""Drives of the object store rot and are lost: what was stored is read all the same, and new drives are filled."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from seatrial.workspace import Workspace
from support.cluster_world import wait_until
from support.stoppable_store import BUCKET, StoppableStore

pytestmark = pytest.mark.long
HEAL_SECONDS = 120
SIZE = 300_000
"""Of an object, in bytes: one that is small has no file of its own to rot."""


def _parts(drive: Path) -> list[Path]:
    """The files of a drive with what objects hold, next to what it says of them."""
    return sorted((drive / BUCKET).rglob("part.1"))


def _is_filled(drive: Path, objects: int) -> bool:
    return len(_parts(drive)) == objects


def _rot(path: Path) -> None:
    """Turn some bits in the middle of a file, whose size and time stay."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_lost_and_rotten_drives(
    tmp_path: Path, running: Callable[[StoppableStore], AbstractContextManager[Workspace]]
) -> None:
    """One of four drives rots, and each in turn is replaced by an empty one: nothing is lost (O6)."""
    store = StoppableStore(tmp_path, drives=4)
    with running(store) as workspace:
        draw = random.Random(6)
        contents = {f"objects/{number:02d}": draw.randbytes(SIZE) for number in range(12)}
        for key, content in contents.items():
            workspace.put(key, content)

        for path in _parts(store.drives[1]):
            _rot(path)
        for drive in store.drives:
            store.kill()
            shutil.rmtree(drive)
            store.start()
            assert {key: workspace.get(key) for key in workspace.list("objects")} == contents, drive.name
            wait_until(partial(_is_filled, drive, len(contents)), f"{drive.name} to be filled", HEAL_SECONDS)
