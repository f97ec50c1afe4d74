"""Step 7: judge the model by the contract's gates."""

from kfp import dsl

from components import step


@step
def gates(
    model: str,
    workspace: str,
    environment: str,
    run: str,
    as_of: str,
    fitted: dsl.Input[dsl.Model],
    test: dsl.Input[dsl.Dataset],
    versions: dsl.Input[dsl.Artifact],
    checks: dsl.Input[dsl.Artifact],
    profiles: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    found: dsl.Output[dsl.Artifact],
    verdicts: dsl.Output[dsl.Markdown],
) -> bool:
    """Judge the model by the contract's gates: each a verdict with value, bound and evidence.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment whose model is the champion.
        run: Name of the run.
        as_of: Instant of the run, as an ISO 8601 time; empty for now.
        fitted: The model.
        test: The test rows.
        versions: The data version of this run.
        checks: What the data tests found.
        profiles: The tables' profiles.
        evaluation: The evaluation.
        found: All that this run found, with the verdicts, for bundle, report and registry.
        verdicts: The verdicts as a table.

    Returns:
        Whether every gate passed.
    """
    from seatrial.steps.judging import RunFiles, judge_model

    files = RunFiles(fitted.path, test.path, versions.path, checks.path, profiles.path, evaluation.path)
    return judge_model(model, workspace, environment, run, as_of, files, found.path, verdicts.path)
