"""Where reports lie in a workspace, and how to find one again."""

from __future__ import annotations

import obstore

from seatrial.errors import UsageError
from seatrial.workspace import Workspace, store_errors

_FILE = "report.html"


def report_key(model: str, run: str) -> str:
    """Return where a run's report lies in the workspace."""
    return f"runs/{model}/{run}/{_FILE}"


def find_report(workspace: Workspace, model: str, run: str | None = None) -> str:
    """Return the key of a run's report.

    Args:
        workspace: Where the runs lie.
        model: The model's name.
        run: The run's id, or the beginning of one; without it the newest report.

    Raises:
        UsageError: if there is no such report, or several runs begin so.
        StoreError: if the workspace cannot be read.
    """
    prefix = f"runs/{model}"
    with store_errors(f"listing {prefix}"):
        found = [meta for page in obstore.list(workspace.store, prefix=prefix) for meta in page]
    reports = sorted((m for m in found if m["path"].endswith(f"/{_FILE}")), key=lambda m: m["last_modified"])
    keys = [str(meta["path"]) for meta in reports]
    if run is None and keys:
        return keys[-1]
    same = [key for key in keys if key == report_key(model, run or "")]
    begun = same or [key for key in keys if run and key.startswith(f"{prefix}/{run}")]
    if len(begun) == 1:
        return begun[0]
    runs = [key.split("/")[-2] for key in begun or keys]
    if begun:
        raise UsageError(f"Several runs of {model!r} begin with {run!r}: {', '.join(runs)}.")
    raise UsageError(
        f"There is no report of {f'run {run!r} of ' if run else ''}{model!r} in {workspace.root}. "
        f"There are: {', '.join(runs[-10:]) or 'none'}.",
        remedy=f"Train the model first: seatrial train {model}",
    )
