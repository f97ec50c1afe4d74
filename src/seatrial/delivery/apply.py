"""Hand an environment's manifests to Kubernetes: `kubectl apply -k`, and nothing that it does not do.

What is applied is the folder as it is in the working tree, with the files of a change that git has on
a branch only, such as a roll-back's, in their places.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from seatrial.cluster.commands import run
from seatrial.promotion.environment import EnvironmentFolder

SECONDS = 120.0


def apply_manifests(
    environment: EnvironmentFolder, context: str, changed: dict[Path, bytes] | None = None
) -> str:
    """Apply an environment's manifests in a cluster and return what kubectl said.

    Args:
        environment: The environment.
        context: The cluster's context in the kubeconfig.
        changed: Files that take the place of those in the working tree, by their paths.

    Raises:
        ToolError: if kubectl is missing or failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / environment.folder.name
        shutil.copytree(environment.folder, copy)
        for path, content in (changed or {}).items():
            target = copy / path.relative_to(environment.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return run("kubectl", "--context", context, "apply", "-k", str(copy), seconds=SECONDS)
