"""Parts of the platform that go away for a while, as a cluster loses and gets back what it has no room for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Command = Callable[..., str]
NOBODY = "away"
"""A label that no pod has."""


@dataclass(frozen=True)
class Part:
    """A part that can go away.

    Attributes:
        workload: What its pods belong to, such as ``deployment/mlflow``, which is scaled to none.
        service: Its Service, which leads nowhere meanwhile; for a part that some builds keep in memory, so that
            its pod stays. Who asks it is refused the same way, since no pod is behind its address.
    """

    workload: str = ""
    service: str = ""

    @contextmanager
    def away(self, kubectl: Command, namespace: str) -> Iterator[None]:
        """Let it be away within the block; afterwards it is ready again, whatever happened in it."""
        self._goes(kubectl, namespace)
        try:
            yield
        finally:
            self._comes(kubectl, namespace)

    def _goes(self, kubectl: Command, namespace: str) -> None:
        if self.service:
            _select(kubectl, namespace, self.service, NOBODY)
            return
        kubectl("-n", namespace, "scale", self.workload, "--replicas=0")
        selector = "app.kubernetes.io/name=" + self.workload.partition("/")[2]
        # At once, with no time to finish, so that it is away from the moment that a test chose.
        kubectl("-n", namespace, "delete", "pod", "-l", selector, "--grace-period=0", "--force")

    def _comes(self, kubectl: Command, namespace: str) -> None:
        if self.service:
            _select(kubectl, namespace, self.service, None)
            return
        kubectl("-n", namespace, "scale", self.workload, "--replicas=1")
        kubectl("-n", namespace, "rollout", "status", self.workload, "--timeout=240s", timeout=250)


def _select(kubectl: Command, namespace: str, service: str, label: str | None) -> None:
    """Let a Service ask its pods for one more label, or for none more."""
    patch = json.dumps({"spec": {"selector": {"away.seatrial.io/test": label}}})
    kubectl("-n", namespace, "patch", "service", service, "--type=merge", "--patch", patch)
