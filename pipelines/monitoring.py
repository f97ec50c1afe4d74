"""Continuous monitoring: what is new, what live traffic shows, and training again when it is due."""

from components.draw.component import draw
from components.ingest.component import ingest
from components.monitor.component import monitor
from components.trigger.component import trigger
from components.validate.component import validate
from kfp import dsl

from pipelines.learning import learning


@dsl.pipeline(name="monitoring", display_name="Monitor a model")
def monitoring(
    model: str,
    workspace: str,
    start: str,
    environment: str = "local",
    as_of: str = "",
    draw_drift: bool = True,
) -> None:
    """Take in new data, judge a window of live traffic, and train again if a rule of the contract asks for it.

    Args:
        model: Name of the model, whose contract is in the image.
        workspace: Address of the workspace that holds tables, bundles and pointers.
        start: First instant of the window (included), as an ISO 8601 time; or its length, such as 7d.
        environment: The environment that serves.
        as_of: End of the window (not included) and instant of the run; empty for now.
        draw_drift: Whether evidently draws the drift too, which takes some seconds and decides nothing.
    """
    run = dsl.PIPELINE_JOB_NAME_PLACEHOLDER
    place = {"model": model, "workspace": workspace}
    ingested = ingest(**place, as_of=as_of)
    valid = validate(**place, as_of=as_of, rows_ingested=ingested.outputs["Output"])
    watched = monitor(
        **place,
        environment=environment,
        run=run,
        start=start,
        as_of=as_of,
        quarantined=valid.outputs["Output"],
    )
    due = trigger(**place, environment=environment, run=run, as_of=as_of, result=watched.outputs["result"])
    with dsl.If(due.outputs["Output"] == True, name="training is due"):  # noqa: E712 -- a KFP condition
        tested = {name: valid.outputs[name] for name in ("versions", "checks", "profiles")}
        learning(**place, environment=environment, as_of=as_of, **tested)
    with dsl.If(draw_drift == True, name="the drift is to be drawn"):  # noqa: E712 -- a KFP condition
        draw(**place, run=run, result=watched.outputs["result"])
