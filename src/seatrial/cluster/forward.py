"""A port of the platform on this machine, through the API server: no service is open to the outside for it.

``kubectl port-forward`` ends when the pod behind it does, and also when a single connection through it fails, and
with it every client. Here a thread starts it anew at the same address for as long as it is wanted, so that an
open page or a long run outlives both.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from seatrial.cluster.commands import start
from seatrial.cluster.context import Cluster
from seatrial.errors import ClusterError, SeatrialError

READY_SECONDS = 20.0
"""How long kubectl may take to listen, or to end."""
_LOOK_SECONDS, _RETRY_SECONDS = 0.1, 1.0
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
SERVICES = {
    "kubeflow": ("ml-pipeline-ui", 80),
    "mlflow": ("mlflow", 5000),
    "minio": ("minio", 9000),
    "prometheus": ("prometheus", 9090),
    "pipelines-api": ("ml-pipeline", 8888),
}
"""What can be opened: its Service and the Service's port."""

Tell = Callable[[SeatrialError], None]
"""Is told why the service can't be reached just now, from another thread; once for each reason."""


class Forward:
    """A port on 127.0.0.1 that leads to a Service, as a context manager; it is kept up until that ends.

    Args:
        cluster: The cluster.
        service: Name of the Service.
        port: Its port.
        local_port: The port here; a free one if 0.
        tell: Is told when the service is away after it was reached once; nobody if None.

    Raises:
        ClusterError: on entering, if nothing answers behind the Service.
        ToolError: on entering, if kubectl is missing.
    """

    def __init__(
        self, cluster: Cluster, service: str, port: int, local_port: int = 0, tell: Tell | None = None
    ) -> None:
        self._cluster = cluster
        self._service = service
        self._port = port
        self._local_port = local_port
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="seatrial-forward-")
        self._one_at_a_time = threading.Lock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=f"forward-{service}", daemon=True)

    @property
    def host(self) -> str:
        """Where it listens, without a scheme, such as ``127.0.0.1:40123``."""
        return f"127.0.0.1:{self._local_port}"

    @property
    def address(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:40123``."""
        return f"http://{self.host}"

    def __enter__(self) -> Self:
        """Start it and return when it listens."""
        try:
            self.ensure()
            self._keeper.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.close()

    def close(self) -> None:
        """Stop it for good; no kubectl of it is left when this returns."""
        self._closing.set()
        with self._one_at_a_time:
            self._end()
        if self._keeper.is_alive():
            self._keeper.join()
        self._folder.cleanup()

    def ensure(self) -> None:
        """Return when it listens; it is started anew if it has ended, and left alone once it was closed.

        Raises:
            ClusterError: if nothing answers behind the Service.
            ToolError: if kubectl is missing.
        """
        with self._one_at_a_time:
            if self._closing.is_set() or (self._process is not None and self._process.poll() is None):
                return
            output = Path(self._folder.name) / "output"
            self._process = self._start(output)
            end = time.monotonic() + READY_SECONDS
            while time.monotonic() < end:
                if found := _FORWARDING.search(output.read_text(errors="replace")):
                    self._local_port = int(found[1])
                    return
                if self._process.poll() is not None or self._closing.wait(_LOOK_SECONDS):
                    break
            self._end()
            said = output.read_text(errors="replace").strip()
        raise ClusterError(
            f"The service {self._service} of {self._cluster} can't be reached: {said or 'no answer'}",
            remedy="Look what is wrong with it: seatrial status",
        )

    def _start(self, output: Path) -> subprocess.Popen[bytes]:
        cluster, target = self._cluster, f"{self._local_port or ''}:{self._port}"
        place = ("--context", cluster.context, "--namespace", cluster.namespace)
        where = ("--address", "127.0.0.1", f"service/{self._service}", target)
        return start("kubectl", "port-forward", *place, *where, output=output)

    def _end(self) -> None:
        """End kubectl, if it runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=READY_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _keep(self) -> None:
        """Start kubectl anew whenever it has ended, until it is closed; what is in the way is told."""
        told, pause = "", _LOOK_SECONDS
        while not self._closing.wait(pause):
            try:
                self.ensure()
            except SeatrialError as error:
                if self._tell is not None and error.message != told and not self._closing.is_set():
                    self._tell(error)
                told, pause = error.message, _RETRY_SECONDS
            else:
                told, pause = "", _LOOK_SECONDS


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
