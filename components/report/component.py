"""The run's report, for people."""

from kfp import dsl

from components import step


@step
def report(workspace: str, digest: str, found: dsl.Input[dsl.Artifact], page: dsl.Output[dsl.HTML]) -> str:
    """Write the run's report: verdicts first, then pictures.

    Args:
        workspace: Address of the workspace that holds tables, bundles and pointers.
        digest: The bundle's digest.
        found: All that this run found.
        page: The report.

    Returns:
        The report's address in the workspace.
    """
    from seatrial.steps.release import write_report

    return write_report(workspace, digest, found.path, page.path)
