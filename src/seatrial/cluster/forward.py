"""A port of the platform on this machine, through the API server: no service is open to the outside for it.

``kubectl port-forward`` ends when the pod behind it does, and with it every client; here it is started anew at
the same address, so that an open page or a long run outlives a restart.
"""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from seatrial.cluster.commands import start
from seatrial.cluster.context import Cluster
from seatrial.errors import ClusterError

READY_SECONDS = 20.0
_LOOK_SECONDS = 0.1
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
SERVICES = {
    "kubeflow": ("ml-pipeline-ui", 80),
    "mlflow": ("mlflow", 5000),
    "minio": ("minio", 9000),
    "prometheus": ("prometheus", 9090),
    "pipelines-api": ("ml-pipeline", 8888),
}
"""What can be opened: its Service and the Service's port."""


class Forward:
    """A port on 127.0.0.1 that leads to a Service, as a context manager.

    Args:
        cluster: The cluster.
        service: Name of the Service.
        port: Its port.
        local_port: The port here; a free one if 0.

    Raises:
        ClusterError: on entering, if nothing answers behind the Service.
        ToolError: on entering, if kubectl is missing.
    """

    def __init__(self, cluster: Cluster, service: str, port: int, local_port: int = 0) -> None:
        self._cluster = cluster
        self._service = service
        self._port = port
        self._local_port = local_port
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="seatrial-forward-")

    @property
    def address(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:40123``."""
        return f"http://127.0.0.1:{self._local_port}"

    def __enter__(self) -> Self:
        """Start it and return when it listens."""
        try:
            self.ensure()
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
        """Stop it."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=READY_SECONDS)
        self._folder.cleanup()

    def ensure(self) -> bool:
        """Start it if it has ended, and return whether it had to be started.

        Raises:
            ClusterError: if nothing answers behind the Service.
            ToolError: if kubectl is missing.
        """
        if self._process is not None and self._process.poll() is None:
            return False
        output = Path(self._folder.name) / "output"
        target = f"{self._local_port or ''}:{self._port}"
        cluster = self._cluster
        place = ("--context", cluster.context, "--namespace", cluster.namespace)
        self._process = start(
            "kubectl",
            "port-forward",
            "--address",
            "127.0.0.1",
            *place,
            f"service/{self._service}",
            target,
            output=output,
        )
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            found = _FORWARDING.search(output.read_text(errors="replace"))
            if found:
                self._local_port = int(found[1])
                return True
            if self._process.poll() is not None:
                break
            time.sleep(_LOOK_SECONDS)
        said = output.read_text(errors="replace").strip()
        raise ClusterError(
            f"The service {self._service} of {cluster} can't be reached: {said or 'no answer'}",
            remedy="Look what is wrong with it: seatrial status",
        )


def is_free(port: int) -> bool:
    """Whether nothing listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
