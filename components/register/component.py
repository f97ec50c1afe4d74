"""Register the bundle, and promote it where the contract or a person says so."""

from kfp import dsl

from components import step


@step
def register(
    model: str, workspace: str, environment: str, digest: str, report: str, found: dsl.Input[dsl.Artifact]
) -> bool:
    """Register the bundle in MLflow; let an automatic environment serve it, or wait for a person's word.

    Only a bundle whose gates passed is served or asked about, and only a contract that says so lets a run ask; the
    log says what the step waits for. No answer in time is a no.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment to serve it.
        digest: The bundle's digest.
        report: Address of the run's report, which is kept with the run, and which the person is to look at.
        found: All that this run found.

    Returns:
        Whether the environment serves the bundle now.
    """
    from seatrial.steps.approval import wait_for_approval
    from seatrial.steps.release import register_model

    release = (model, workspace, environment, digest, report, found.path)
    return register_model(*release) or wait_for_approval(*release)
