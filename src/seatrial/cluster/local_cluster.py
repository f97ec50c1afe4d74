"""The local cluster of ``--kind``: made where there is none, given this machine's images, deleted if we made it.

What is not ours stays: a cluster of the same name that somebody else made is used when a person says so, and never
deleted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from seatrial.cluster import kind
from seatrial.cluster.context import Ask, Cluster, connect, mark_made, was_made
from seatrial.cluster.health import Finding
from seatrial.errors import ClusterError, NotOurClusterError, ToolError
from seatrial.images import OWN_IMAGES, own_image
from seatrial.kubernetes_api import Kubernetes


def reach(
    context: str | None,
    namespace: str,
    node_image: str | None,
    *,
    stage: Callable[[str], None],
    finding: Callable[[Finding], None],
) -> Cluster:
    """Return the local cluster; it is made if it is not there.

    Args:
        context: The context that a person named besides; None if none.
        namespace: Where the platform is, or is to be.
        node_image: Image of its nodes; that of ``kind-config.yaml`` if None.
        stage: Is told that it is made.
        finding: Is told each step of that.

    Raises:
        ClusterError: if another context was named, or the cluster is there and does not answer.
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    name = kind.configured_name()
    own = kind.context_of(name)
    if context not in {None, own}:
        raise ClusterError(
            f"--kind is about the cluster {name!r} of {kind.CONFIG}, whose context is {own}. "
            f"Got --context {context} instead.",
            remedy=f"Leave one of the two away, or name the cluster with {kind.NAME_VARIABLE}.",
        )
    if name not in kind.clusters():
        stage(f"Making the local cluster {name} with kind ({kind.engine()})")
        _make(name, node_image, finding)
    try:
        return connect(own, namespace)
    except ClusterError as error:
        nodes = " ".join(kind.nodes(name))
        raise ClusterError(
            f"kind has a cluster {name}, but it can't be reached. {error.message}",
            remedy=f"If it was stopped: {kind.engine()} start {nodes}. If the kubeconfig has lost it: "
            f"kind export kubeconfig --name {name}. If it is of no use any more: kind delete cluster --name {name}",
        ) from error


def _make(name: str, node_image: str | None, finding: Callable[[Finding], None]) -> None:
    """Make the cluster, with the note that it is ours; what was begun and not ended is taken away again."""
    begun: set[str] = set()

    def tell(step: str, done: bool) -> None:
        begun.add(step)
        finding(Finding(step, "healthy" if done else "waiting"))

    try:
        kind.create(name, node_image, tell)
        mark_made(Kubernetes(kind.context_of(name)), name)
    except BaseException:
        if kind.PREPARING in begun:  # Before that, nodes of this name would be another's.
            with contextlib.suppress(ToolError):
                kind.delete(name)
        raise


def provide_images(context: str, images: Iterable[str], tell: Callable[[str], None]) -> None:
    """Put those images into a local cluster that it lacks, or has older, and that this machine has.

    Those of ours that are nowhere are built. What is missing then, the cluster pulls itself, as a cluster that is
    not kind's pulls all.

    Args:
        context: Context of the cluster.
        images: Their references.
        tell: Is told what is done.

    Raises:
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    name = kind.cluster_of(context)
    if name is None:
        return
    ours, wanted = {own_image(part): part for part in OWN_IMAGES}, set(images)
    there, here = kind.images_in(name), kind.images_here(sorted(wanted))
    for image in sorted((wanted & ours.keys()) - there - here):
        tell(f"Building the image {image}, which takes some minutes the first time")
        kind.build(ours[image])
        here.add(image)
    # An image that was built anew has its old name; a pod would go on with the old one.
    stale = {image for image in here & there & ours.keys() if not kind.is_current(name, image)}
    for image in sorted((here - there) | stale):
        tell(f"Loading {image} into the cluster {name}")
        try:
            kind.load(name, [image])
        except ToolError as error:
            if image in ours:
                raise
            tell(f"That failed, so the cluster pulls it. {error.message}")


def delete(ask: Ask | None, tell: Callable[[str], None]) -> bool:
    """Delete the local cluster, if Seatrial made it, and return whether it was there.

    Args:
        ask: Asks a person, always; None where there is nobody to ask.
        tell: Is told what is done.

    Raises:
        NotOurClusterError: if Seatrial did not make it, the answer is no, or there is nobody to ask.
        ClusterError: if its API server is away, so that nobody knows who made it.
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    name = kind.configured_name()
    if name not in kind.clusters():
        return False
    by_hand = f"Delete it yourself: kind delete cluster --name {name}"
    try:
        made = was_made(Kubernetes(kind.context_of(name)), name)
    except ClusterError as error:
        why = f"Whether `seatrial up --kind` made the kind cluster {name} can't be known, so it stays. {error.message}"
        raise ClusterError(why, remedy=by_hand) from error
    if not made:
        raise NotOurClusterError(
            f"The kind cluster {name} was not made by `seatrial up --kind`, so it stays.", remedy=by_hand
        )
    question = f"This deletes the kind cluster {name} and all data in it. Go on?"
    if ask is None:
        raise NotOurClusterError(
            f"This would delete the kind cluster {name} and all data in it.", remedy="Say --yes."
        )
    if not ask(question):
        raise NotOurClusterError(f"The kind cluster {name} stays.")
    tell(f"Deleting the kind cluster {name}")
    kind.delete(name)
    return True
