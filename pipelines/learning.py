"""From tested data to a signed bundle that serves if its gates pass: the part that training and monitoring share."""

from components.bundle.component import bundle
from components.evaluate.component import evaluate
from components.features.component import features
from components.gates.component import gates
from components.register.component import register
from components.report.component import report
from components.split.component import split
from components.train.component import train
from kfp import dsl


@dsl.pipeline(name="learning", display_name="Learn from valid data")
def learning(
    model: str,
    workspace: str,
    environment: str,
    as_of: str,
    versions: dsl.Input[dsl.Artifact],
    checks: dsl.Input[dsl.Artifact],
    profiles: dsl.Input[dsl.Artifact],
) -> bool:
    """Train a model on tested data, judge it, and let the environment serve it by rule or by a person's word.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment whose model is the champion, and that serves the new one.
        as_of: Instant of the run, as an ISO 8601 time; empty for now.
        versions: The versions of the valid tables.
        checks: What the data tests found.
        profiles: The tables' profiles.

    Returns:
        Whether the environment serves the new bundle.
    """
    place = {"model": model, "workspace": workspace}
    made = features(**place, as_of=as_of, versions=versions)
    parts = split(model=model, dataset=made.outputs["dataset"])
    rows = {name: parts.outputs[name] for name in ("training", "validation")}
    fitted = train(model=model, **rows).outputs["fitted"]
    seen = {"environment": environment, "fitted": fitted, "test": parts.outputs["test"], "versions": versions}
    judged = gates(
        **place,
        **seen,
        run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        as_of=as_of,
        checks=checks,
        profiles=profiles,
        evaluation=evaluate(**place, **seen).outputs["evaluation"],
    )
    found = judged.outputs["found"]
    digest = bundle(**place, fitted=fitted, found=found).output
    page = report(workspace=workspace, digest=digest, found=found)
    return register(
        **place, environment=environment, digest=digest, report=page.outputs["Output"], found=found
    ).output
