"""A real MinIO server that can be killed and started again on its data, at the same address."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.minioadmin import MinioAdmin

from seatrial.cluster_setup.object_store import WRITE_OBJECT, Grant, policy_document
from support.minio_server import minio_command
from support.ports import free_port

START_SECONDS = 120
BUCKET = "seatrial"


class StoppableStore:
    """A MinIO server with one bucket; skips where there is no ``minio`` command.

    Args:
        folder: Where its data are; those of an earlier run are found again.
        drives: Over how many drives it spreads them, as ``minio.storage.drives`` of the chart.
    """

    def __init__(self, folder: Path, drives: int = 1) -> None:
        self._command = minio_command()
        self._folder = folder
        self.drives = [folder / "data"] if drives == 1 else [folder / f"drive{n + 1}" for n in range(drives)]
        self._address = f"127.0.0.1:{free_port()}"
        self._console = f"127.0.0.1:{free_port()}"
        folder.mkdir(parents=True, exist_ok=True)
        self._keys = folder / "root-keys"
        if not self._keys.exists():
            self._keys.write_text(f"{secrets.token_hex(8)} {secrets.token_hex(16)}")
        self._user, self._password = self._keys.read_text().split()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> dict[str, str]:
        """The variables by which a workspace in the bucket is used."""
        return {
            "AWS_ACCESS_KEY_ID": self._user,
            "AWS_SECRET_ACCESS_KEY": self._password,
            "AWS_ENDPOINT_URL": f"http://{self._address}",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._process is not None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [self._command, "server", *map(str, self.drives), "--address", self._address]
        command += ["--console-address", self._console]
        keys = {"MINIO_ROOT_USER": self._user, "MINIO_ROOT_PASSWORD": self._password}
        if len(self.drives) > 1:  # They are folders of one disk here, which it refuses otherwise.
            keys["MINIO_CI_CD"] = "1"
        log = self._folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **keys}
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://{self._address}/minio/health/ready", timeout=5).close()
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, f"MinIO did not answer: {log.read_text()}"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill it, in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make_bucket(self) -> None:
        """Make the bucket where it is not there."""
        client = self._client()
        if not client.bucket_exists(BUCKET):
            client.make_bucket(BUCKET)

    def upload(self, folder: Path, prefix: str) -> None:
        """Put the files of a folder into the bucket, which is made where it is not there."""
        self.make_bucket()
        client = self._client()
        for path in folder.rglob("*"):
            if path.is_file():
                client.fput_object(BUCKET, f"{prefix}/{path.relative_to(folder)}", str(path))

    def keys(self, prefix: str = "") -> dict[str, str]:
        """Return the ETags of the bucket's objects, by what follows ``prefix`` in their keys."""
        found = self._client().list_objects(BUCKET, prefix=prefix, recursive=True)
        return {str(each.object_name).removeprefix(prefix): str(each.etag) for each in found}

    def remove(self, key: str) -> None:
        """Remove an object of the bucket."""
        self._client().remove_object(BUCKET, key)

    def add_user(self, name: str, prefix: str, *, writes: bool = True) -> dict[str, str]:
        """Make a user who may use what is below a prefix alone, and not delete; return the settings of its own."""
        policy = policy_document([Grant(bucket=BUCKET, prefix=prefix, access="append")])
        if not writes:
            for statement in policy["Statement"]:
                statement["Action"] = sorted(set(statement["Action"]) - set(WRITE_OBJECT))
        root = StaticProvider(self._user, self._password)
        admin = MinioAdmin(endpoint=self._address, credentials=root, secure=False)
        keys = (f"{name}-{secrets.token_hex(4)}", secrets.token_hex(16))
        admin.policy_add(name, policy=policy)
        admin.user_add(*keys)
        admin.policy_set(name, user=keys[0])
        return {**self.settings, "AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}

    def clear(self) -> None:
        """Empty the bucket, which may not be there."""
        client = self._client()
        if client.bucket_exists(BUCKET):
            for key in self.keys():
                client.remove_object(BUCKET, key)

    def _client(self) -> Minio:
        return Minio(self._address, self._user, self._password, secure=False)
