"""Step 11: judge a window of live traffic."""

from kfp import dsl

from components import step


@step
def monitor(
    model: str,
    workspace: str,
    environment: str,
    run: str,
    start: str,
    as_of: str,
    quarantined: int,
    result: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    figures: dsl.Output[dsl.Metrics],
) -> bool:
    """Judge a window of live traffic against the bundle's own baseline, and live quality by its outcomes.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment that serves.
        run: Name of the run.
        start: First instant of the window (included), as an ISO 8601 time; or its length, such as 7d.
        as_of: End of the window (not included), as an ISO 8601 time; empty for now.
        quarantined: Rows of the newest data that are in quarantine.
        result: Verdicts, drift column by column, and live quality.
        page: The report.
        figures: The verdicts' values.

    Returns:
        Whether a verdict failed.
    """
    from seatrial.steps.watching import monitor_model

    found = monitor_model(model, workspace, environment, run, start, as_of, result.path, page.path)
    for verdict in found.verdicts:
        if verdict.value is not None:
            figures.log_metric(verdict.check, verdict.value)
    figures.log_metric("rows_in_quarantine", quarantined)
    return found.outcome == "fail"
