"""The whole loop on real flights, from ingest to served, with the share of each stage.

    python benchmarks/data/loop.py    # the table alone, and build/benchmarks/loop.json

It ends when the server that was started for the new bundle has answered its first request with it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

from contenders import RESULTS, machine
from rich.console import Console
from rich.table import Table

from seatrial.demo import ENVIRONMENT, HISTORY_UNTIL, LIVE_MONTHS, MODEL, serving
from seatrial.local_runs import StepEvent, run_locally
from seatrial.model_check import check_model, load_features
from seatrial.promotion import read_pointer
from seatrial.replay import replay
from seatrial.sources import Period, read_source
from seatrial.workspace import Workspace

BETWEEN = "between the steps"
READY = "server ready"
FIRST_ANSWER = "first answer"


def seconds_of_stages(folder: Path) -> dict[str, float]:
    """Go from ingest to served in a new workspace.

    Args:
        folder: Where it goes; what is there is removed.

    Returns:
        Wall-clock seconds of each stage, in their order: the training pipeline's steps, what passes between
        them, the server's start until it is ready, and its first answer.

    Raises:
        SystemExit: if the new bundle does not serve, or does not give the first answer.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    workspace, loaded = Workspace.open(folder / "workspace"), check_model(MODEL)
    known_at = load_features(loaded).known_at
    assert known_at is not None
    live = Period.parse(LIVE_MONTHS[0])
    time_column = str(loaded.contract.tables[loaded.contract.prediction.table].time)
    rows = read_source(loaded, loaded.contract.prediction.table)
    first = rows.filter(rows[time_column].is_between(live.start, live.end)).sort(time_column).head(1)

    arguments = {
        "model": str(loaded.folder.resolve()),
        "environment": ENVIRONMENT,
        "as_of": Period.parse(HISTORY_UNTIL).end.isoformat(),
    }
    began = time.perf_counter()
    run = run_locally("training", arguments, workspace, tell=_silent)
    trained = time.perf_counter()
    digest = read_pointer(workspace, ENVIRONMENT, MODEL).digest
    with serving(workspace, MODEL, folder) as url:
        ready = time.perf_counter()
        answered = asyncio.run(replay(loaded.contract, first, url, known_at=known_at))
        ended = time.perf_counter()
    if digest is None or answered.failures or answered.bundles != {digest: 1}:
        raise SystemExit(f"The new bundle has not answered: {answered.errors or answered.bundles}.")
    between = max(trained - began - sum(run.seconds.values()), 0.0)
    return {**run.seconds, BETWEEN: between, READY: ready - trained, FIRST_ANSWER: ended - ready}


def _silent(_: StepEvent) -> None:
    """Say nothing of what steps do."""


def add_rows(table: Table, stages: dict[str, float]) -> None:
    """Add the seconds and the share of each stage to a table of six columns."""
    whole = sum(stages.values())
    for place, (stage, took) in enumerate(stages.items()):
        table.add_row("loop" if place == 0 else "", stage, f"{took:.3g}", f"{took / whole:.0%}", "", "")
    table.add_row("", "from ingest to served", f"{whole:.3g}", "100%", "", "")


def main() -> None:
    """Measure the loop alone."""
    stages = seconds_of_stages(RESULTS / "loop")
    table = Table(title="From ingest to served")
    for name in ("work", "stage", "seconds", "share", "", ""):
        table.add_column(name)
    add_rows(table, stages)
    (RESULTS / "loop.json").write_text(json.dumps({"machine": machine(), "loop": stages}, indent=2))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
