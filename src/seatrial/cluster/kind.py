"""Local clusters made by kind, and the images that are put into them.

kind's own ``load docker-image`` asks Docker alone; an archive that the engine saved works with podman too.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson

from seatrial.cluster.commands import QUICK, find, run, run_beside
from seatrial.errors import ToolError
from seatrial.images import DOCKER_HUB
from seatrial.local_runs import project_folder

CONFIG = "kind-config.yaml"
NAME_VARIABLE = "KIND_CLUSTER_NAME"
"""kind's own variable for the name of a cluster, over what the configuration says."""
PREPARING = "Preparing nodes"
"""The step of kind's from which on there is something of a cluster that is being made."""
_ENGINE_VARIABLE = "KIND_EXPERIMENTAL_PROVIDER"
_STEP = re.compile(r"^ [•✓] ([\x20-\x7e≤]+)(.*)$", re.MULTILINE)
CREATE_SECONDS, LOAD_SECONDS, BUILD_SECONDS = 600.0, 600.0, 1800.0
_CONTEXT = "kind-"


def configured_name() -> str:
    """Return the name of the cluster that ``kind-config.yaml`` describes, or the one that kind's variable names.

    Raises:
        UsageError: if this is no clone of the repository.
    """
    from ruamel.yaml import YAML

    named = os.environ.get(NAME_VARIABLE)
    return named or str(YAML(typ="safe").load(project_folder() / CONFIG).get("name", "kind"))


def context_of(cluster: str) -> str:
    """Return the name of the context that kind writes into the kubeconfig."""
    return f"{_CONTEXT}{cluster}"


def cluster_of(context: str) -> str | None:
    """Return the name of the kind cluster that a context leads to; None if it is none of kind's.

    Raises:
        ToolError: if kind failed.
        UsageError: if this is no clone of the repository.
    """
    name = context.removeprefix(_CONTEXT)
    if name == context or shutil.which("kind") is None or not engines():
        return None
    return name if name in clusters() else None


def clusters() -> list[str]:
    """Return the names of the kind clusters on this machine.

    Raises:
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    return _kind("get", "clusters").split()


def nodes(cluster: str) -> list[str]:
    """Return the names of a cluster's nodes, which are containers of the engine.

    Raises:
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    return _kind("get", "nodes", "--name", cluster).split()


def create(cluster: str, node_image: str | None, tell: Callable[[str, bool], None]) -> None:
    """Make the cluster that ``kind-config.yaml`` describes, and its context in the kubeconfig.

    Args:
        cluster: Its name.
        node_image: Image of its nodes, from a mirror or built; the one that the configuration names if None.
        tell: Is told each step of kind's: when it begins, and with True when it is done.

    Raises:
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    told: set[tuple[str, bool]] = set()

    def meanwhile(printed: str) -> None:
        for step in steps_of(printed):
            if step not in told:
                told.add(step)
                tell(*step)

    image = ["--image", node_image] if node_image else []
    config = str(project_folder() / CONFIG)
    run_beside(
        "kind",
        *("create", "cluster", "--name", cluster, "--config", config, "--wait", "180s", *image),
        seconds=CREATE_SECONDS,
        meanwhile=meanwhile,
        variables=_variables(),
    )


def steps_of(printed: str) -> list[tuple[str, bool]]:
    """Return the steps that ``kind create`` has printed, without its pictures, each with whether it is done."""
    return [(what.strip(" ."), not (what + rest).endswith("...")) for what, rest in _STEP.findall(printed)]


def delete(cluster: str) -> None:
    """Delete a cluster with all that is in it, and its context.

    Raises:
        ToolError: if kind or the container engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    _kind("delete", "cluster", "--name", cluster, seconds=CREATE_SECONDS)


def _kind(*arguments: str, seconds: float = QUICK) -> str:
    """Run kind, with the engine that we use ourselves."""
    find("kind")  # It is told before an engine is missed.
    return run("kind", *arguments, seconds=seconds, variables=_variables())


def _variables() -> dict[str, str]:
    return {_ENGINE_VARIABLE: engine()}


def engines() -> list[str]:
    """Return the container engines of this machine that answer, the one that kind uses first."""
    wanted = os.environ.get(_ENGINE_VARIABLE, "docker")
    return sorted(
        (name for name in ("docker", "podman", "nerdctl") if _answers(name)), key=lambda name: name != wanted
    )


@functools.cache
def _answers(engine: str) -> bool:
    """Whether an engine works: a docker without its daemon is there and does not."""
    if shutil.which(engine) is None:
        return False
    try:
        run(engine, "version")
    except ToolError:
        return False
    return True


def engine() -> str:
    """Return the container engine that kind uses.

    Raises:
        ToolError: if there is none.
    """
    found = engines()
    if not found:
        raise ToolError(
            "No container engine answers: neither docker nor podman.",
            remedy="Install one, or start it; kind runs its nodes in it, and images of ours are built with it.",
        )
    return found[0]


def images_in(cluster: str) -> set[str]:
    """Return the names of all images that every node of a kind cluster has.

    Raises:
        ToolError: if kind or the engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    found: set[str] | None = None
    for node in nodes(cluster):
        # Both crictl and ctr are in kind's own nodes; ctr is what kind itself lists and loads images with.
        names = set(
            run(engine(), "exec", node, "ctr", "--namespace", "k8s.io", "images", "list", "--quiet").split()
        )
        found = names if found is None else found & names
    return found or set()


def is_current(cluster: str, image: str) -> bool:
    """Whether every node of a kind cluster has the very image that this machine's engine has under its name.

    Args:
        cluster: Name of the cluster.
        image: Name of an image that both have.

    Raises:
        ToolError: if kind or the engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    here = run(engine(), "image", "inspect", "--format", "{{.Id}}", image).strip().removeprefix("sha256:")
    return all(here in _ids(node, image) for node in nodes(cluster))


def _ids(node: str, image: str) -> set[str]:
    """What an engine may call an image of a node: the digest of its manifest or of its configuration."""
    ctr = ("exec", node, "ctr", "--namespace", "k8s.io")
    lines = run(engine(), *ctr, "images", "list", f"name=={image}").splitlines()
    digests = {word for line in lines for word in line.split() if word.startswith("sha256:")}
    manifests = [orjson.loads(run(engine(), *ctr, "content", "get", digest)) for digest in digests]
    configurations = {manifest.get("config", {}).get("digest", "") for manifest in manifests}
    return {digest.removeprefix("sha256:") for digest in digests | configurations}


def images_here(names: list[str]) -> set[str]:
    """Return those of the images that the engine of this machine has; none without an engine.

    Raises:
        ToolError: if the engine failed.
        UsageError: if this is no clone of the repository.
    """
    if not engines():
        return set()
    listed = set(run(engine(), "images", "--format", "{{.Repository}}:{{.Tag}}").split())
    return {name for name in names if name in listed or familiar(name) in listed}


def familiar(image: str) -> str:
    """The short name that Docker lists an image of its own registry under."""
    return image.removeprefix(f"{DOCKER_HUB}/").removeprefix("library/")


def load(cluster: str, images: list[str]) -> None:
    """Put images of this machine's engine into every node of a kind cluster.

    Raises:
        ToolError: if kind or the engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    with tempfile.TemporaryDirectory(prefix="seatrial-images-") as folder:
        archive = str(Path(folder) / "images.tar")
        several = ["--multi-image-archive"] if engine() == "podman" else []
        run(engine(), "save", *several, "--output", archive, *images, seconds=LOAD_SECONDS)
        _kind("load", "image-archive", archive, "--name", cluster, seconds=LOAD_SECONDS)


def build(part: str) -> None:
    """Build an image of ours from its Dockerfile.

    Args:
        part: Its folder in ``images/``.

    Raises:
        ToolError: if the engine is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    script = str(project_folder() / "tools" / "build_images.py")
    run(sys.executable, script, "--engine", engine(), part, seconds=BUILD_SECONDS)
