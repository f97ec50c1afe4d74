"""Step 8: make the signed bundle."""

from kfp import dsl

from components import step


@step
def bundle(model: str, workspace: str, fitted: dsl.Input[dsl.Model], found: dsl.Input[dsl.Artifact]) -> str:
    """Make the immutable, signed bundle: model, schema, features, data version, verdicts, baseline, card.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        fitted: The model.
        found: All that this run found.

    Returns:
        The bundle's digest, which names it from now on.
    """
    from seatrial.steps.release import bundle_model

    return bundle_model(model, workspace, fitted.path, found.path)
