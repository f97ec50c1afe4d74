"""Ten small steps in a row by kfp.local, as Seatrial runs its pipelines on one machine."""

# No postponed annotations here: kfp reads the types of components as they are.
from collections.abc import Callable

from kfp import dsl, local
from measure import Task, contend

STEPS = 10


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def add_one(value: int) -> int:
    """One small step."""
    return value + 1


@dsl.pipeline(name="ten-steps")
def ten_steps() -> int:
    """Ten of them, each waiting for the one before."""
    last = add_one(value=0)
    for _ in range(STEPS - 1):
        last = add_one(value=last.output)
    return last.output


def prepare(task: Task) -> Callable[[], int]:
    """Return a run of the pipeline."""
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(task.scratch / "outputs"),
        raise_on_error=True,
    )
    return lambda: int(ten_steps().output)


def write(result: int, _: Task) -> dict[str, int]:
    """Say what the last step gave."""
    return {"last": result}


if __name__ == "__main__":
    contend(prepare, libraries=("kfp",), write=write, parts=STEPS)
