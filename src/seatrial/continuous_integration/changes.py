"""Which models a change touches, as git sees it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from seatrial.errors import ToolError, UsageError

MODELS = "models"
SHARED = ("components", "pipelines", "src", "requirements/pipeline.txt", "images/pipeline")
"""What every model is made with: a change there touches all of them."""


@dataclass(frozen=True)
class Changes:
    """What has changed since a commit.

    Attributes:
        since: The commit that is compared with: where the two lines of work parted.
        paths: Files that were added, changed or removed since, committed or not, relative to the project.
    """

    since: str
    paths: tuple[str, ...]


def changes_since(project: Path, reference: str) -> Changes:
    """Return what has changed since this line of work left another.

    Args:
        project: The project's folder, in a git repository.
        reference: A branch, tag or commit, such as ``origin/main``.

    Raises:
        UsageError: if there is no such commit here.
        ToolError: if git is missing, or this is no repository.
    """
    base = git(project, "merge-base", reference, "HEAD", unknown=reference)
    changed = git(project, "diff", "--name-only", "--no-renames", "--relative", "-z", base)
    new = git(project, "ls-files", "--others", "--exclude-standard", "-z")
    return Changes(base, tuple(sorted({path for path in (changed + new).split("\0") if path})))


def affected_models(project: Path, changes: Changes) -> list[str]:
    """Return the names of the models that a change touches, of those that are there."""
    there = sorted(path.parent.name for path in (project / MODELS).glob("*/model.yaml"))
    if any(path == shared or path.startswith(f"{shared}/") for path in changes.paths for shared in SHARED):
        return there
    touched = {path.split("/")[1] for path in changes.paths if path.startswith(f"{MODELS}/")}
    return [name for name in there if name in touched]


def git(project: Path, *arguments: str, unknown: str = "") -> str:
    """Run git in the project and return what it printed, without the line's end.

    Args:
        project: The project's folder.
        arguments: What git is to do.
        unknown: What a person named that git may not know.

    Raises:
        UsageError: if git does not know what was named.
        ToolError: if git is missing or failed.
    """
    found = shutil.which("git")
    if found is None:
        raise ToolError("The command 'git' is not on PATH.", remedy="Install git.")
    command = [found, "-C", str(project), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- ours
    if done.returncode == 0:
        return done.stdout.rstrip("\n")
    said = " ".join(done.stderr.split())
    if unknown and "not a git repository" not in said:
        raise UsageError(
            f"Git does not know {unknown!r} here: {said or 'it has no commit in common with this one'}.",
            remedy="Fetch it, with enough history: git fetch origin main. Or name another with --since.",
        )
    raise ToolError(f"git {' '.join(arguments)} failed: {said}", remedy="Run it in a clone of the project.")
