"""Where reports lie in a workspace, and how to find one again."""

from __future__ import annotations

from seatrial.errors import UsageError
from seatrial.workspace import Workspace

REPORT = "report.html"
MONITORING = "monitoring.html"
DRIFT = "drift.html"


def report_key(model: str, run: str) -> str:
    """Return where a run's report lies in the workspace."""
    return f"runs/{model}/{run}/{REPORT}"


def monitor_key(model: str, run: str) -> str:
    """Return where a monitoring run's report lies in the workspace."""
    return f"runs/{model}/{run}/{MONITORING}"


def drift_key(model: str, run: str) -> str:
    """Return where evidently's drift report of a monitoring run lies in the workspace."""
    return f"runs/{model}/{run}/{DRIFT}"


def find_report(workspace: Workspace, model: str, run: str | None = None) -> str:
    """Return the key of a run's report.

    Args:
        workspace: Where the runs lie.
        model: The model's name.
        run: The run's id, or the beginning of one, of a training or a monitoring run; without it
            the newest report of a training run.

    Raises:
        UsageError: if there is no such report, or several runs begin so.
        StoreError: if the workspace cannot be read.
    """
    keys = _stored(workspace, model)
    if run is None:
        found = [key for key in keys if key.endswith(f"/{REPORT}")][-1:]
    else:
        exact = [key for key in keys if _run(key) == run]
        found = exact or [key for key in keys if _run(key).startswith(run)]
    if not found:
        raise UsageError(
            f"There is no report of {f'run {run!r} of ' if run else ''}{model!r} in {workspace.root}. "
            f"There are: {_named(keys)}.",
            remedy=f"Train the model first: seatrial train {model}",
        )
    if len({_run(key) for key in found}) > 1:
        raise UsageError(f"Several runs of {model!r} begin with {run!r}: {_named(found)}.")
    return found[-1]


def _stored(workspace: Workspace, model: str) -> list[str]:
    """Return the keys of all reports of a model, the newest last."""
    keys = workspace.list(f"runs/{model}", by_age=True)
    return [key for key in keys if key.endswith((f"/{REPORT}", f"/{MONITORING}"))]


def _run(key: str) -> str:
    return key.split("/")[-2]


def _named(keys: list[str]) -> str:
    return ", ".join(dict.fromkeys(_run(key) for key in keys[-10:])) or "none"
