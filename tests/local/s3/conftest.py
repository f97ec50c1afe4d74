"""A real MinIO server, and a workspace of its own in it for each test."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from minio import Minio

from seatrial.bundle import open_signer
from seatrial.workspace import Workspace
from support.ports import free_port
from support.stoppable_store import BUCKET, StoppableStore

BUCKETS = ("seatrial", "mlflow")
START_SECONDS = 180
_numbers = itertools.count()


@dataclass(frozen=True)
class Store:
    """A running MinIO server.

    Attributes:
        address: Host and port.
        user: Name of its root user.
        password: That user's password.
    """

    address: str
    user: str
    password: str

    @property
    def settings(self) -> dict[str, str]:
        """The variables by which every S3 library finds it."""
        return {
            "AWS_ACCESS_KEY_ID": self.user,
            "AWS_SECRET_ACCESS_KEY": self.password,
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
            "MLFLOW_S3_ENDPOINT_URL": f"http://{self.address}",
        }


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an HTTP server answers; fail with its words if it ends before."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310 -- our own server
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{address} did not answer: {log.read_text()}"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A MinIO server with empty buckets; skips where there is no ``minio`` command."""
    program = os.environ.get("SEATRIAL_TEST_MINIO") or shutil.which("minio")
    if program is None:
        pytest.skip("no minio command on PATH, and SEATRIAL_TEST_MINIO names none")
    folder = tmp_path_factory.mktemp("minio")
    store = Store(f"127.0.0.1:{free_port()}", secrets.token_hex(8), secrets.token_hex(16))
    environment = {**os.environ, "MINIO_ROOT_USER": store.user, "MINIO_ROOT_PASSWORD": store.password}
    log = folder / "log"
    command = [program, "server", str(folder / "data"), "--address", store.address]
    command += ["--console-address", f"127.0.0.1:{free_port()}"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_for(f"http://{store.address}/minio/health/live", process, log)
        client = Minio(store.address, store.user, store.password, secure=False)
        for bucket in BUCKETS:
            client.make_bucket(bucket)
        yield store
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def settings(minio: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """Let this process and those that it starts use the store, with a key and a trust root of their own."""
    keys = Workspace.open(tmp_path / "keys-of")
    open_signer(keys)
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", str(keys.folder / "keys" / "signing-key.pem"))
    monkeypatch.setenv("SEATRIAL_TRUST", str(keys.folder / "keys" / "trusted"))
    for name, value in minio.settings.items():
        monkeypatch.setenv(name, value)
    return minio


@pytest.fixture
def workspace(settings: Store) -> Workspace:
    """An empty workspace in the store."""
    return Workspace.open(f"s3://seatrial/{next(_numbers)}")


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[[StoppableStore], AbstractContextManager[Workspace]]:
    """Run a store within a block, which gets an empty workspace in it, below ``trial/``."""

    @contextmanager
    def run(store: StoppableStore) -> Iterator[Workspace]:
        for name, value in store.settings.items():
            monkeypatch.setenv(name, value)
        store.start()
        try:
            store.make_bucket()
            yield Workspace.open(f"s3://{BUCKET}/trial")
        finally:
            store.kill()

    return run
