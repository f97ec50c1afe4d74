"""A real MinIO with the filter in front of it, as in the chart's pod, for tests on this machine.

The server is the command ``minio``: ``$MINIO``, else on PATH. Where there is none, a test that asks
for it skips and says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from seatrial.cluster_setup.object_store import Credentials
from seatrial.cluster_setup.wait import wait_for
from seatrial.errors import StoreError
from support.ports import free_port

START_SECONDS = 60.0
REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectStore:
    """A running MinIO.

    Attributes:
        url: The filter's address, which clients use.
        unfiltered: MinIO's own.
        root: The administrator.
        log: What the filter has said.
    """

    url: str
    unfiltered: str
    root: Credentials
    log: Path


def minio_command() -> str:
    """Return the command; skips where there is none."""
    command = os.environ.get("MINIO") or shutil.which("minio")
    if command is None:
        pytest.skip("the server `minio` is not on PATH, and $MINIO does not name it")
    return command


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Run MinIO and the filter with their data below ``folder``; when the block ends, both have ended."""
    inner, console, outer = free_port(), free_port(), free_port()
    root = Credentials("root-" + "k" * 12, "s" * 40)
    store = ObjectStore(f"http://127.0.0.1:{outer}", f"http://127.0.0.1:{inner}", root, folder / "filter.log")
    settings = {"MINIO_ROOT_USER": root.access_key, "MINIO_ROOT_PASSWORD": root.secret_key}
    minio = [minio_command(), "server", "--address", f"127.0.0.1:{inner}"]
    minio += ["--console-address", f"127.0.0.1:{console}", str(folder / "data")]
    front = [sys.executable, "-m", "seatrial.cluster_setup.unsigned_trailer_filter"]
    front += [f"--listen=127.0.0.1:{outer}", f"--upstream={store.unfiltered}"]
    with (
        _running(minio, folder / "minio.log", settings),
        _running(front, store.log, {}),
    ):
        _await(f"{store.url}/minio/health/ready", folder / "minio.log")
        yield store


@contextmanager
def _running(command: list[str], log: Path, settings: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **settings}
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def _await(address: str, log: Path) -> None:
    try:
        wait_for([address], limit_seconds=START_SECONDS)
    except StoreError as error:
        pytest.fail(f"{error}\n{log.read_text()}")
