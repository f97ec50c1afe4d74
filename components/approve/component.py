"""Wait for a person's word where the contract wants one."""

from kfp import dsl

from components import step


@step
def approve(
    model: str, workspace: str, environment: str, digest: str, report: str, found: dsl.Input[dsl.Artifact]
) -> bool:
    """Wait until a person says whether the environment may serve the bundle; no answer in time is a no.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment to serve it.
        digest: The bundle's digest.
        report: Address of the run's report, which the person is to look at.
        found: All that this run found.

    Returns:
        Whether the environment serves the bundle now.
    """
    from seatrial.steps.approval import wait_for_approval

    return wait_for_approval(model, workspace, environment, digest, report, found.path)
