"""The release: what Helm knows of it, what it would install, and installing it.

Helm runs beside us, so that what the pods wait for can be told while it works. Nothing here waits for
pods by ``helm --wait``: it says only that time is up, never why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from seatrial.cluster.commands import run, run_beside
from seatrial.errors import ToolError
from seatrial.local_runs import project_folder

RELEASE, CHART = "seatrial", "platform"
_GRACE_SECONDS = 30.0


@dataclass(frozen=True)
class Release:
    """What Helm knows of a release.

    Attributes:
        revision: Counts its upgrades, from 1.
        status: ``deployed``, ``failed``, ``pending-install`` or another of Helm's words.
        chart: Chart and version, such as ``platform-0.1.0``.
    """

    revision: int
    status: str
    chart: str


@dataclass(frozen=True)
class Chart:
    """A chart of this repository and the values that it is installed with.

    Attributes:
        name: Its folder in ``charts/``.
        files: Files of values, the last one counts.
        values: More values, over those of the files, by dotted path.
    """

    name: str = CHART
    files: tuple[Path, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it lies.

        Raises:
            UsageError: if this is no clone of the repository.
        """
        return project_folder() / "charts" / self.name

    def arguments(self) -> list[str]:
        """The values as arguments of Helm's."""
        files = [argument for path in self.files for argument in ("--values", str(path))]
        pairs = [f"{key}={orjson.dumps(value).decode()}" for key, value in self.values.items()]
        return files + [argument for pair in pairs for argument in ("--set-json", pair)]

    def digest(self) -> str:
        """SHA-256 of the chart's files and of the values: of all that an installation is made from.

        Raises:
            UsageError: if this is no clone of the repository.
        """
        total = hashlib.sha256()
        inside = sorted(path for path in self.folder.rglob("*") if path.is_file())
        for path in [*inside, *self.files]:
            name = str(path.relative_to(self.folder)) if path in inside else ""
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
        total.update(orjson.dumps(self.values, option=orjson.OPT_SORT_KEYS))
        return total.hexdigest()


def release(context: str, namespace: str, name: str = RELEASE) -> Release | None:
    """Return what Helm knows of a release; None if there is none.

    Raises:
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    for found in releases(context, namespace):
        if found["name"] == name:
            return Release(int(found["revision"]), found["status"], found["chart"])
    return None


def releases(context: str, namespace: str) -> list[dict[str, Any]]:
    """Return all releases in a namespace, as Helm lists them.

    Raises:
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    listed = run("helm", "list", "--all", "--output", "json", *_place(context, namespace))
    return list(orjson.loads(listed or "[]"))


def render(context: str, namespace: str, chart: Chart) -> list[dict[str, Any]]:
    """Return the objects that an installation would make, hooks included.

    Raises:
        ToolError: if Helm is missing, or the chart refuses the values.
        UsageError: if this is no clone of the repository.
    """
    from ruamel.yaml import YAML

    arguments = ["template", RELEASE, str(chart.folder), *_place(context, namespace), *chart.arguments()]
    text = run("helm", *arguments)
    return [document for document in YAML(typ="safe").load_all(text) if document]


def install(
    context: str, namespace: str, chart: Chart, *, seconds: float, meanwhile: Callable[[], None]
) -> None:
    """Install the release or upgrade it, and return when Helm has handed all objects over.

    Args:
        context: Context of the kubeconfig.
        namespace: Where to install.
        chart: What to install.
        seconds: How long its hooks may take.
        meanwhile: Called about once a second while Helm works.

    Raises:
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    arguments = (
        "upgrade",
        "--install",
        RELEASE,
        str(chart.folder),
        *_place(context, namespace),
        *chart.arguments(),
    )
    # Helm that is ended by a Ctrl-C marks the release as failed, and the next upgrade goes on.
    limit = ("--timeout", f"{seconds:.0f}s")
    run_beside("helm", *arguments, *limit, meanwhile=lambda _: meanwhile())


def uninstall(context: str, namespace: str, *, seconds: float) -> bool:
    """Take the release away and return whether it was there; what the charts keep stays.

    Raises:
        ToolError: if Helm is missing or failed.
        UsageError: if this is no clone of the repository.
    """
    try:
        limit = f"{seconds:.0f}s"
        arguments = ["uninstall", RELEASE, "--wait", "--timeout", limit, *_place(context, namespace)]
        run("helm", *arguments, seconds=seconds + _GRACE_SECONDS)
    except ToolError as error:
        if "not found" in error.message:
            return False
        raise
    return True


def _place(context: str, namespace: str) -> list[str]:
    return ["--kube-context", context, "--namespace", namespace]
