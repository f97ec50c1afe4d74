"""The object store's disk is full: that is said, what was there is read, and with room the work goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from seatrial.errors import StoreError
from seatrial.workspace import Workspace
from support.minio_server import minio_command
from support.stoppable_store import StoppableStore

SIZE = 64
"""Of its disk, in MiB."""
PIECE = bytes(4 * 1024 * 1024)


def _can_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _fill(workspace: Workspace, written: list[str]) -> None:
    """Write pieces until one is refused, and note those that were not."""
    for number in range(SIZE):
        workspace.put(f"pieces/{number:02d}", PIECE)
        written.append(f"pieces/{number:02d}")


@pytest.mark.skipif(not _can_mount(), reason="a small disk cannot be mounted here (that takes root)")
def test_a_full_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    running: Callable[[StoppableStore], AbstractContextManager[Workspace]],
) -> None:
    """A write is refused by name and with what to do, and leaves nothing; old objects are whole (O7)."""
    data = tmp_path / "store" / "data"
    data.mkdir(parents=True)
    command = tmp_path / "minio"
    mount = f'mount -t tmpfs -o size={SIZE}m tmpfs {data} && exec {minio_command()} "$@"'
    command.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{mount}' minio \"$@\"\n")
    command.chmod(0o700)
    monkeypatch.setenv("MINIO", str(command))
    monkeypatch.setattr(
        "seatrial.workspace.ATTEMPTS", 1
    )  # Else each write waits for a store that may recover.
    store = StoppableStore(tmp_path / "store")
    with running(store) as workspace:
        workspace.put("kept", b"kept")
        written: list[str] = []
        with pytest.raises(StoreError, match="failed while writing") as caught:
            _fill(workspace, written)

        assert "The object store's disk is full" in caught.value.remedy
        assert written
        assert workspace.list("pieces") == written
        assert (workspace.get("kept"), workspace.get(written[-1])) == (b"kept", PIECE)

        store.remove(f"trial/{written[0]}")
        store.remove(f"trial/{written[1]}")
        workspace.put("after", b"after")
        assert workspace.get("after") == b"after"
