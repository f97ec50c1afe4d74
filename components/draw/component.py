"""Step 11, for people: what evidently draws of the window that was judged."""

from kfp import dsl

from components import step


@step
def draw(
    model: str,
    workspace: str,
    run: str,
    result: dsl.Input[dsl.Artifact],
    drift: dsl.Output[dsl.HTML],
) -> None:
    """Draw the drift of a window with evidently; nothing is decided by it.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        run: Name of the run.
        result: What the monitor found.
        drift: Evidently's drift report of a sample.
    """
    from seatrial.steps.watching import draw_drift

    draw_drift(model, workspace, run, result.path, drift.path)
