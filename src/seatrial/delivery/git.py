"""Git: how it is run, and a commit on a branch without touching what a person works on.

The commit is made from objects and an index of its own, and the branch moves by one compare-and-swap
of git's. So the working tree, its index and the branch that is checked out stay as they are, and a
kill at any moment leaves the old branch or the new one.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from seatrial.errors import ToolError

SECONDS = 60.0
_ABSENT = "0" * 40
_IN_A_CLONE = (
    "A change is proposed on a branch of the repository that manifests/environments lies in: run it in a clone with a "
    "commit, and with user.name and user.email set."
)
_AT_A_REMOTE = "See whether the remote is there, and whether you may write branches there; then run it again."


@dataclass(frozen=True)
class Branch:
    """A branch that holds a proposal.

    Attributes:
        name: Its name.
        commit: The commit at its end.
        new: Whether it was written just now; False where it said this already.
    """

    name: str
    commit: str
    new: bool


def repository_of(path: Path) -> Path:
    """Return the repository's folder that a path lies in.

    Raises:
        ToolError: if it lies in none, or git is missing.
    """
    return Path(git(path if path.is_dir() else path.parent, "rev-parse", "--show-toplevel"))


def write_branch(repository: Path, branch: str, files: dict[Path, bytes], message: str) -> Branch:
    """Commit files, upon what is checked out, on a branch of their own.

    Args:
        repository: The repository's folder.
        branch: The branch's name. One that is there is moved, unless it has these files already.
        files: The files' new content, by their paths in the repository's folder.
        message: The commit's message.

    Raises:
        ToolError: if git is missing, fails, or somebody else moved the branch in the meantime.
    """
    head = git(repository, "rev-parse", "--verify", "HEAD^{commit}")
    tree = _tree(repository, head, files)
    before = git(repository, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")
    if before and git(repository, "rev-parse", f"{before}^{{tree}}") == tree:
        return Branch(branch, before, new=False)
    commit = git(repository, "commit-tree", tree, "-p", head, text=message)
    git(repository, "update-ref", f"refs/heads/{branch}", commit, before or _ABSENT)
    return Branch(branch, commit, new=True)


def fetch_branch(repository: Path, remote: str, branch: str) -> str:
    """Take a branch over as a remote has it, and return the commit at its end; empty where the remote has none.

    Args:
        repository: The repository's folder.
        remote: Name or address of the remote.
        branch: The branch's name, which must not be checked out.

    Raises:
        ToolError: if git is missing, or the remote cannot be read.
    """
    place = f"refs/heads/{branch}"
    if not git(repository, "ls-remote", remote, place, remedy=_AT_A_REMOTE):
        return ""
    git(repository, "fetch", "--quiet", remote, f"+{place}:{place}", remedy=_AT_A_REMOTE)
    return git(repository, "rev-parse", place)


def push_branch(repository: Path, remote: str, branch: Branch, *, before: str) -> None:
    """Let a remote have a branch, where it has what was found there before.

    Args:
        repository: The repository's folder.
        remote: Name or address of the remote.
        branch: The branch.
        before: The commit at its end there; empty: there is none. It need not be one that the branch follows.

    Raises:
        ToolError: if git is missing, the remote refuses, or somebody else moved the branch there in the meantime.
    """
    place = f"refs/heads/{branch.name}"
    lease = f"--force-with-lease={place}:{before}"
    git(repository, "push", "--quiet", lease, remote, f"{branch.commit}:{place}", remedy=_AT_A_REMOTE)


def _tree(repository: Path, head: str, files: dict[Path, bytes]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        git(repository, "read-tree", head, **index)
        for path, content in sorted(files.items()):
            name = path.resolve().relative_to(repository.resolve()).as_posix()
            blob = git(repository, "hash-object", "-w", "--stdin", text=content.decode())
            git(repository, "update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", **index)
        return git(repository, "write-tree", **index)


def git(
    folder: Path, *arguments: str, text: str | None = None, remedy: str = _IN_A_CLONE, **environment: str
) -> str:
    """Run git and return what it printed, without the line's end.

    Args:
        folder: Where it runs.
        arguments: What it is to do.
        text: What it reads from standard input.
        remedy: What to do where it fails.
        environment: Variables beside those of this process.

    Raises:
        ToolError: if git is missing or fails.
    """
    try:
        done = subprocess.run(  # noqa: S603 -- the arguments are ours
            ["git", "-C", str(folder), *arguments],  # noqa: S607 -- the user's own git
            input=text,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, **environment},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"git cannot be run: {error}.", remedy="Install git, and run it again.") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise ToolError(
            f"`git {' '.join(arguments[:2])}` failed in {folder}: {said}",
            remedy=remedy,
        )
    return done.stdout.rstrip("\n")  # A name may end with a blank.
