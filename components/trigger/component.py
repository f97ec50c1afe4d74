"""Step 12: decide whether to train again."""

from kfp import dsl

from components import step


@step
def trigger(
    model: str,
    workspace: str,
    environment: str,
    run: str,
    as_of: str,
    result: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
) -> bool:
    """Decide by the contract's rules whether to train again; one run for one cause, with a cool-down.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment that serves.
        run: Name of the run that asks.
        as_of: Instant of the decision, as an ISO 8601 time; empty for now.
        result: What the monitor found.
        decision: Every rule with value and bound, and what held it back.

    Returns:
        Whether to train again now.
    """
    from seatrial.steps.watching import decide_retraining

    return decide_retraining(model, workspace, environment, run, as_of, result.path, decision.path)
