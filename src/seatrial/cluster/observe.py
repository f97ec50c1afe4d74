"""Look at the platform in a cluster, and wait until it is healthy, saying what is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from seatrial.cluster.context import Cluster
from seatrial.cluster.health import Finding, Object, Observation, judge
from seatrial.errors import ClusterError

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 150.0
"""How long a part may be broken, with nothing changing, before waiting for it is given up."""
_KINDS = (
    ("Deployment", "deployments", "apps/v1"),
    ("StatefulSet", "statefulsets", "apps/v1"),
    ("DaemonSet", "daemonsets", "apps/v1"),
    ("Job", "jobs", "batch/v1"),
)

Tell = Callable[[Finding], None]
"""Is told each finding that is new or has changed."""


def workloads(cluster: Cluster) -> list[Object]:
    """Return what runs pods in the namespace: Deployments, StatefulSets, DaemonSets and Jobs.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    return [
        {"kind": kind, **item}
        for kind, plural, api in _KINDS
        for item in cluster.api.list(cluster.path(plural, api))
    ]


def storage_classes(cluster: Cluster) -> list[Object]:
    """Return the cluster's storage classes.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    return cluster.api.list("/apis/storage.k8s.io/v1/storageclasses")


def observe(cluster: Cluster) -> Observation:
    """Return the objects that tell how the namespace is.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    return Observation(
        workloads(cluster),
        cluster.api.list(cluster.path("pods")),
        cluster.api.list(cluster.path("persistentvolumeclaims")),
        cluster.api.list(cluster.path("events"), fieldSelector="type=Warning"),
        storage_classes(cluster),
    )


def findings(cluster: Cluster) -> list[Finding]:
    """Return how each part of the platform is.

    Raises:
        ClusterError: if the API server is away or refuses.
    """

    def read_log(pod: str, container: str, previous: bool) -> str:
        return cluster.api.log(cluster.namespace, pod, container, lines=5, previous=previous)

    return judge(observe(cluster), read_log)


def unhealthy(cluster: Cluster) -> str:
    """Return in words which parts of the platform are not healthy, for an error that they may be the cause of.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    return sentence([finding for finding in findings(cluster) if finding.state != "healthy"])


def sentence(found: list[Finding]) -> str:
    """Return findings as lines of a message."""
    return "\n".join(f"{finding.name}: {finding.why}" for finding in found)


class Progress:
    """Watches the platform come up, tells what changed, and gives up on what stays broken.

    Args:
        cluster: The cluster.
        tell: Is told each finding that is new or has changed.
    """

    def __init__(self, cluster: Cluster, tell: Tell) -> None:
        self._cluster = cluster
        self._tell = tell
        self._told: dict[str, Finding] = {}
        self._changed = time.monotonic()

    def look(self) -> list[Finding]:
        """Look once, tell what changed, and return how each part is.

        Raises:
            ClusterError: if something is broken and nothing has changed for a while, or the API server is away.
        """
        found = findings(self._cluster)
        for finding in found:
            if self._told.get(finding.name) != finding:
                self._told[finding.name] = finding
                self._changed = time.monotonic()
                self._tell(finding)
        broken = [finding for finding in found if finding.state == "broken"]
        if broken and time.monotonic() - self._changed > PATIENCE_SECONDS:
            raise broken_error(broken)
        return found

    def wait(self, seconds: float) -> list[Finding]:
        """Return when every part is healthy.

        Args:
            seconds: How long that may take.

        Raises:
            ClusterError: if it takes longer, something stays broken, or the API server is away.
        """
        end = time.monotonic() + seconds
        while True:
            found = self.look()
            open_ends = [finding for finding in found if finding.state != "healthy"]
            if not open_ends:
                return found
            if time.monotonic() > end:
                raise broken_error(open_ends, f"The platform was not healthy after {seconds:.0f} s.")
            time.sleep(POLL_SECONDS)


def broken_error(found: list[Finding], what: str = "The platform does not come up.") -> ClusterError:
    """The error for parts that are not healthy, with what to do about each."""
    remedies = dict.fromkeys(finding.remedy for finding in found if finding.remedy)
    return ClusterError(
        f"{what}\n{sentence(found)}", remedy="\n".join(remedies) or "Look again with: seatrial status"
    )
