"""Continuous training: from the sources to a signed bundle that serves if its gates pass."""

from components.ingest.component import ingest
from components.validate.component import validate
from kfp import dsl

from pipelines.learning import learning


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
    place = {"model": model, "workspace": workspace}
    ingested = ingest(**place, as_of=as_of)
    valid = validate(**place, as_of=as_of, rows_ingested=ingested.outputs["Output"])
    tested = {name: valid.outputs[name] for name in ("versions", "checks", "profiles")}
    return learning(**place, environment=environment, as_of=as_of, **tested).output
