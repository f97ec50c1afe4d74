"""Steps whose image has Kubeflow's launcher need no container that hands it to them.

A driver patches a step's pod so that the step's command is the launcher's, which a container of its own copies
into the pod first. That container costs a second of each step: its start, the copy, and the kubelet's next look.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

HANDED = "/kfp-launcher/launch"
"""Where the container puts the launcher."""
_DELETED = {"name": "kfp-launcher", "$patch": "delete"}


def with_own_launcher(patch: str, launchers: Mapping[str, str]) -> str:
    """Return the patch of a step's pod, for the launcher that the step's image has itself, where it has one.

    Args:
        patch: The patch as the driver made it: a strategic merge patch, as JSON.
        launchers: Where the launcher is in an image, by the image's reference.
    """
    if not patch or not launchers:
        return patch
    pod = orjson.loads(patch)
    for container in pod.get("containers") or []:
        own = launchers.get(container.get("image", ""))
        if own and (container.get("command") or [""])[0] == HANDED:
            container["command"][0] = own
            pod["initContainers"] = [*(pod.get("initContainers") or []), _DELETED]
            return orjson.dumps(pod).decode()
    return patch
