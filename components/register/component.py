"""Register the bundle, and promote it where the contract says so."""

from kfp import dsl

from components import step


@step
def register(
    model: str, workspace: str, environment: str, digest: str, report: str, found: dsl.Input[dsl.Artifact]
) -> bool:
    """Register the bundle in MLflow; if its gates passed, let an automatic environment serve it.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment to serve it.
        digest: The bundle's digest.
        report: Address of the run's report, which is kept with the run.
        found: All that this run found.

    Returns:
        Whether the environment serves the bundle now.
    """
    from seatrial.steps.release import register_model

    return register_model(model, workspace, environment, digest, report, found.path)
