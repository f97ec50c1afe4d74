"""Continuous training: from the sources to a signed bundle that serves if its gates pass."""

from components.bundle.component import bundle
from components.evaluate.component import evaluate
from components.features.component import features
from components.gates.component import gates
from components.ingest.component import ingest
from components.register.component import register
from components.report.component import report
from components.split.component import split
from components.train.component import train
from components.validate.component import validate
from kfp import dsl


@dsl.pipeline(name="training", display_name="Train a model")
def training(model: str, workspace: str, environment: str = "local", as_of: str = "") -> bool:
    """Train a model on all data that has arrived, judge it, and let an automatic environment serve it.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        environment: The environment whose model is the champion, and that serves the new one.
        as_of: Instant of the run, as an ISO 8601 time; empty for now.

    Returns:
        Whether the environment serves the new bundle.
    """
    run = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    place = {"model": model, "workspace": workspace}
    ingested = ingest(**place, as_of=as_of)
    valid = validate(**place, as_of=as_of, rows_ingested=ingested.outputs["Output"])
    versions = valid.outputs["versions"]
    made = features(**place, as_of=as_of, versions=versions)
    parts = split(model=model, dataset=made.outputs["dataset"])
    rows = {name: parts.outputs[name] for name in ("training", "validation")}
    fitted = train(model=model, **rows).outputs["fitted"]
    seen = {"environment": environment, "fitted": fitted, "test": parts.outputs["test"], "versions": versions}
    evaluated = evaluate(**place, **seen)
    judged = gates(
        **place,
        **seen,
        run=run,
        as_of=as_of,
        checks=valid.outputs["checks"],
        profiles=valid.outputs["profiles"],
        evaluation=evaluated.outputs["evaluation"],
    )
    found = judged.outputs["found"]
    digest = bundle(**place, fitted=fitted, found=found).output
    page = report(workspace=workspace, digest=digest, found=found)
    served = register(
        **place, environment=environment, digest=digest, report=page.outputs["Output"], found=found
    )
    return served.output
