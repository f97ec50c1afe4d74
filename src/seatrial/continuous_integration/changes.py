"""Which models a change touches, as git sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seatrial.delivery.git import git, repository_of
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
    repository_of(project)  # What fails after this is not for want of one.
    try:
        base = git(project, "merge-base", reference, "HEAD")
    except ToolError as error:
        raise UsageError(
            f"Git does not know {reference!r} here, or it has no commit in common with this one: {error.message}",
            remedy="Fetch it, with enough history: git fetch origin main. Or name another with --since.",
        ) from None
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
