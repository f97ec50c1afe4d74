"""Whether what a step left in the object store is still what it left.

The lineage records no digest of an artifact, but when it was told of it, which is after the artifact was stored. So
what was written later is not the step's own. A bucket that keeps versions also shows what was overwritten or deleted
at any time; one that keeps none shows what is younger, and what is gone as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from seatrial.cluster_setup.object_store import StoredVersion
from seatrial.kubeflow_driver.lineage import Artifact

_SCHEME = "minio://"
"""Of the one store whose keys the steps have; what is elsewhere cannot be looked at."""
CLOCKS_APART = timedelta(seconds=5)
"""What store and lineage may differ by about the time."""
WITHOUT_OBJECTS = frozenset(
    {"system.Metrics", "system.ClassificationMetrics", "system.SlicedClassificationMetrics"}
)
"""Types of artifacts that are in the lineage as a whole; an object is stored only where a step writes one."""

Listing = Callable[[str, str], Sequence[StoredVersion]]
"""Lists the versions of all objects of a bucket whose keys begin with a text."""


def why_not_again(artifacts: Sequence[Artifact], below: Listing) -> str:
    """Return why what a step left must not be taken again; empty if it may.

    Args:
        artifacts: All that the step left.
        below: Lists what is stored.
    """
    if not artifacts:
        return "it left nothing that could be looked at"
    ended = max(artifact.recorded for artifact in artifacts)
    for artifact in artifacts:
        bucket, _, key = artifact.uri.removeprefix(_SCHEME).partition("/")
        if not artifact.uri.startswith(_SCHEME) or not key.strip("/"):
            return f"{artifact.uri!r} is not in the steps' object store"
        if why := why_changed(key, artifact.kind, ended, below(bucket, key)):
            return f"{bucket}/{why}"
    return ""


def why_changed(key: str, kind: str, ended: datetime, found: Sequence[StoredVersion]) -> str:
    """Return how what is stored differs from what a step left; empty if nothing shows that it does.

    Args:
        key: Of the artifact: a file's, or what the keys of a folder's files begin with.
        kind: The artifact's type.
        ended: When the step had left all.
        found: The versions of all objects whose keys begin with ``key``, as a step would be handed them.
    """
    for one in sorted(found, key=lambda one: not one.deleted):
        if one.deleted:
            return f"{one.key} was deleted at {_said(one.modified)}"
        if not one.newest:
            return f"{one.key} was written more than once, the first time at {_said(one.modified)} or before"
        if one.modified > ended + CLOCKS_APART:
            return f"{one.key} was written at {_said(one.modified)}, and its step had ended at {_said(ended)}"
    its_own = any(one.key == key or one.key.startswith(f"{key.rstrip('/')}/") for one in found)
    return "" if its_own or kind in WITHOUT_OBJECTS else f"{key} is gone"


def _said(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
