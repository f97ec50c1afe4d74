"""A kubeconfig whose only context names a server of a test."""

from __future__ import annotations

import json
from pathlib import Path


def write_kubeconfig(path: Path, context: str, server: str) -> None:
    """Write a kubeconfig.

    Args:
        path: The file.
        context: Name of its only context, the current one.
        server: Address of the API server.
    """
    said = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "current-context": context,
    }
    path.write_text(json.dumps(said))
