"""The images that the charts name: which of them are there, which can't be pulled, which licence isn't free.

``charts/images.yaml`` is the one list; here it is held against a cluster's nodes, this machine's engine, and, for
what is in neither, the registry that would have to be asked.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Literal

from seatrial.cluster import kind
from seatrial.cluster.context import Cluster
from seatrial.images import DOCKER_HUB, DOCKER_HUB_HOST, ListedImage, read_images
from seatrial.local_runs import project_folder

Where = Literal["in the cluster", "on this machine", "can be pulled", "can't be pulled"]
_ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)
_SECONDS = 10.0
_UNAUTHORIZED = 401
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_LOCAL = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")


@dataclass(frozen=True)
class Checked:
    """Where an image is.

    Attributes:
        image: The image.
        where: Where it is.
        why: Why it can't be pulled; empty if it can, or need not be.
    """

    image: ListedImage
    where: Where
    why: str = ""


def listed_images() -> list[ListedImage]:
    """Return the images of ``charts/images.yaml``.

    Raises:
        UsageError: if this is no clone of the repository, or the list is wrong.
    """
    return read_images(project_folder() / "charts" / "images.yaml")


def check_images(images: list[ListedImage], cluster: Cluster | None, *, ask: bool = True) -> list[Checked]:
    """Return where each image is: the cluster is looked at first, then this machine, then its registry.

    Args:
        images: The images.
        cluster: The cluster; None to look at this machine and the registries alone.
        ask: Whether to ask the registry for what is in neither.

    Raises:
        ClusterError: if the cluster is away or refuses.
        ToolError: if kind or the container engine failed.
        UsageError: if this is no clone of the repository.
    """
    names = [image.reference for image in images]
    there = images_in(cluster) if cluster else set()
    here = kind.images_here(names)
    found = []
    for image in images:
        if image.reference in there:
            found.append(Checked(image, "in the cluster"))
        elif image.reference in here:
            found.append(Checked(image, "on this machine"))
        else:
            why = (
                why_not_pulled(image.reference) if ask else "it is in neither, and its registry was not asked"
            )
            found.append(Checked(image, "can't be pulled" if why else "can be pulled", why))
    return found


def images_in(cluster: Cluster) -> set[str]:
    """Return the images that a cluster's nodes have; a node that is not kind's tells of its 50 largest only.

    Raises:
        ClusterError: if the cluster is away or refuses.
        ToolError: if kind or the container engine failed.
        UsageError: if this is no clone of the repository.
    """
    name = kind.cluster_of(cluster.context)
    if name is not None:
        return kind.images_in(name)
    nodes = cluster.api.list("/api/v1/nodes")
    each = [
        {name for image in node["status"].get("images") or [] for name in image.get("names") or []}
        for node in nodes
    ]
    return set.intersection(*each) if each else set()


def why_not_pulled(reference: str) -> str:
    """Return why an image's registry would not give it to somebody without an account; empty if it would.

    Args:
        reference: Repository and tag.
    """
    registry, _, rest = reference.partition("/")
    repository, _, tag = rest.rpartition(":")
    host = DOCKER_HUB_HOST if registry == DOCKER_HUB else registry
    scheme = "http" if _LOCAL.fullmatch(host) else "https"
    address = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    try:
        _head(address, {})
    except urllib.error.HTTPError as error:
        if error.code != _UNAUTHORIZED:
            return f"{host} answers {error.code} {error.reason}"
        return _why_not_with_token(address, error.headers.get("WWW-Authenticate", ""), host)
    except OSError as error:
        return f"{host} can't be reached: {getattr(error, 'reason', error)}"
    return ""


def _why_not_with_token(address: str, challenge: str, host: str) -> str:
    """Ask again with the token that anybody is given, as the registry's challenge says."""
    facts = dict(_CHALLENGE.findall(challenge))
    realm = facts.pop("realm", "")
    if not realm:
        return f"{host} wants an account"
    try:
        query = urllib.parse.urlencode(facts)
        with _open(urllib.request.Request(f"{realm}?{query}")) as answer:  # noqa: S310 -- what the registry named
            given: dict[str, Any] = json.load(answer)
        _head(address, {"Authorization": f"Bearer {given.get('token') or given.get('access_token')}"})
    except urllib.error.HTTPError as error:
        return f"{host} answers {error.code} {error.reason}"
    except OSError as error:
        return f"{host} can't be reached: {getattr(error, 'reason', error)}"
    return ""


def _head(address: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(address, headers={"Accept": _ACCEPT, **headers}, method="HEAD")  # noqa: S310 -- built here
    _open(request).close()


def _open(request: urllib.request.Request) -> Any:
    if not request.full_url.startswith(("http://", "https://")):
        raise urllib.error.URLError(f"not an address of the web: {request.full_url}")
    return urllib.request.urlopen(request, timeout=_SECONDS)  # noqa: S310 -- checked above
