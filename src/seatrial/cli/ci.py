"""``seatrial ci``: what a change does to the models, in one command for any CI service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from seatrial.cli.app import Json, app, console, errors, print_json
from seatrial.cli.platform import NamespaceOption

if TYPE_CHECKING:
    from seatrial.cluster.context import Cluster
    from seatrial.continuous_integration import Stage

_MARKS = {"passed": "[green]✓[/]", "failed": "[bold red]✗[/]", "skipped": "[dim]-[/]"}


Models = Annotated[
    list[str] | None,
    typer.Argument(help="Names of models. [default: those that the change touches]", show_default=False),
]
Context = Annotated[
    str | None,
    typer.Option(
        help="Run the sample on the platform of this cluster. [default: on this machine]", show_default=False
    ),
]
Since = Annotated[str, typer.Option(help="Branch or commit that the change is compared with.")]
Images = Annotated[bool, typer.Option("--images", help="Also build the images whose inputs have changed.")]
Compiled = Annotated[str, typer.Option("--env", help="Environment that the pipelines are compiled for.")]
Kept = Annotated[str, typer.Option("--workspace", "-w", help="Keeps what came out of earlier sample runs.")]


@app.command()
def ci(
    models: Models = None,
    since: Since = "origin/main",
    images: Images = False,
    context: Context = None,
    namespace: NamespaceOption = "seatrial",
    environment: Compiled = "test",
    workspace: Kept = "build/ci/workspace",
    output: Annotated[Path, typer.Option(help="Folder for summary and reports.")] = Path("build/ci"),
    as_json: Json = False,
) -> int:
    """Check what a change does to models: lint, contract, pipelines, images, and a run on a sample.

    The sample is the model's own contract as of its `continuous_integration.as_of`. A model that the change leaves
    as it was is not run again. `summary.md` in the output folder is for the change's discussion. Exits with 0 if
    everything passed, else with the code of the first that failed: 9 if it was a gate.

    Example: `seatrial ci --since origin/main`
    """
    from seatrial.cli.run_view import RunView
    from seatrial.continuous_integration import (
        Place,
        affected_models,
        changes_since,
        integrate,
        write_summary,
    )
    from seatrial.local_runs import project_folder
    from seatrial.workspace import Workspace

    project = project_folder()
    changes = changes_since(project, since)
    chosen = models or affected_models(project, changes)
    target = errors if as_json else console
    view = RunView(target)
    place = Place(
        project, Workspace.open(workspace), output, environment, _cluster(context, namespace), images
    )

    def tell(stage: Stage) -> None:
        view.stop()
        target.print(f"{_MARKS[stage.status]} {escape(stage.name)}: {escape(stage.message)}", soft_wrap=True)

    try:
        found = integrate(chosen, changes.since, place, tell=tell, follow_run=view)
    finally:
        view.stop()
    page = write_summary(found, output)
    if as_json:
        print_json(found)
    elif not chosen:
        console.print(f"No model is touched by what has changed since {since}.")
    target.print(f"Summary: {page}", soft_wrap=True)
    return found.failed[0].exit_code if found.failed else 0


def _cluster(context: str | None, namespace: str) -> Cluster | None:
    from seatrial.cluster.context import connect, require_platform

    if context is None:
        return None
    cluster = connect(context, namespace)
    require_platform(cluster)
    return cluster
