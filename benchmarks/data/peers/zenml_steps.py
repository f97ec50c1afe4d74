"""Ten small steps in a row by ZenML: its local orchestrator and its store in SQLite."""

from __future__ import annotations

from collections.abc import Callable

from measure import Task, contend
from zenml import pipeline, step
from zenml.client import Client

STEPS = 10


@step(enable_cache=False)
def add_one(value: int) -> int:
    """One small step."""
    return value + 1


@pipeline(enable_cache=False)
def ten_steps() -> None:
    """Ten of them, each waiting for the one before."""
    last = add_one(0)
    for _ in range(STEPS - 1):
        last = add_one(last)


def prepare(_: Task) -> Callable[[], None]:
    """Return a run of the pipeline; the store is made here."""
    Client()
    return lambda: ten_steps() and None


def write(_: None, __: Task) -> dict[str, int]:
    """Say what the last step gave."""
    run = Client().get_pipeline("ten_steps").last_successful_run
    return {"last": int(run.steps[f"add_one_{STEPS}"].output.load())}


if __name__ == "__main__":
    contend(prepare, libraries=("zenml",), write=write, parts=STEPS)
