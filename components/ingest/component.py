"""Step 1: append what has arrived to the raw tables."""

from kfp import dsl

from components import step


@step
def ingest(model: str, workspace: str, as_of: str, batches: dsl.Output[dsl.Artifact]) -> int:
    """Append every period of the sources that has ended to the raw tables; the same period twice adds nothing.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        as_of: Instant of the run, as an ISO 8601 time; empty for now.
        batches: The batches with version, rows, digest and source.

    Returns:
        Number of rows that were added or replaced.
    """
    from seatrial.steps.data import ingest_data

    return ingest_data(model, workspace, as_of, batches.path)
