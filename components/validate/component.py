"""Step 2: test every batch, and set aside what breaks a rule."""

from kfp import dsl

from components import step


@step
def validate(
    model: str,
    workspace: str,
    as_of: str,
    rows_ingested: int,
    checks: dsl.Output[dsl.Artifact],
    versions: dsl.Output[dsl.Artifact],
    profiles: dsl.Output[dsl.Artifact],
    figures: dsl.Output[dsl.Metrics],
) -> int:
    """Test every batch by the contract's rules; bad rows go to quarantine, too many of them stop the run.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        as_of: Instant of the run, as an ISO 8601 time; empty for now.
        rows_ingested: Rows that the step before added.
        checks: What the data tests found, batch by batch.
        versions: Version, rows and digest of each valid table: the data version of this run.
        profiles: A profile of each table.
        figures: Rows ingested and in quarantine.

    Returns:
        Number of rows in quarantine.
    """
    from seatrial.steps.data import validate_data

    quarantined = validate_data(model, workspace, as_of, checks.path, versions.path, profiles.path)
    figures.log_metric("rows_ingested", rows_ingested)
    figures.log_metric("rows_in_quarantine", quarantined)
    return quarantined
