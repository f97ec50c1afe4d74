"""Step 3: compute the features of every labelled row."""

from kfp import dsl

from components import step


@step
def features(
    model: str,
    workspace: str,
    as_of: str,
    versions: dsl.Input[dsl.Artifact],
    dataset: dsl.Output[dsl.Dataset],
) -> int:
    """Compute the features of every row whose label is known, as they were known at its time.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        as_of: Instant of the run, as an ISO 8601 time; empty for now.
        versions: The data version of this run.
        dataset: Features and labels, as Parquet.

    Returns:
        Number of rows.
    """
    from seatrial.steps.data import make_features

    return make_features(model, workspace, as_of, versions.path, dataset.path)
