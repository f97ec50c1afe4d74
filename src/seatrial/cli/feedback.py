"""``seatrial feedback``: how predictions and outcomes fit together, and both joined in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from seatrial.cli.app import Json, Model, WorkspaceOption, app, console, print_json

feedback = typer.Typer(help="Look at what was answered and what became of it.", no_args_is_help=True)
app.add_typer(feedback, name="feedback")


@feedback.command()
def stats(model: Model, workspace: WorkspaceOption = None, as_json: Json = False) -> None:
    """Count predictions and outcomes, and say how they fit together.

    What a server has not shipped yet is not counted.

    Example: `seatrial feedback stats flights`
    """
    from seatrial.contract import load_contract
    from seatrial.feedback import count_outcomes
    from seatrial.workspace import Workspace

    counts = count_outcomes(Workspace.open(workspace), load_contract(model).contract.name)
    if as_json:
        print_json(counts)
        return
    console.print(f"{counts.predictions:,} predictions, {counts.joined:,} of them with an outcome")
    console.print(
        f"{counts.outcomes:,} outcomes; {counts.conflicts:,} predictions have outcomes that differ, and "
        f"{counts.unknown:,} outcomes no prediction"
    )


@feedback.command()
def export(
    model: Model,
    file: Annotated[
        Path, typer.Argument(help="Parquet file to write; it must not be there.", show_default=False)
    ],
    workspace: WorkspaceOption = None,
) -> None:
    """Write all predictions to a Parquet file, each with the outcome that counts.

    The columns are explained in docs/reference/feedback-log.md.

    Example: `seatrial feedback export flights feedback.parquet`
    """
    from seatrial.contract import load_contract
    from seatrial.errors import UsageError
    from seatrial.feedback import join_outcomes
    from seatrial.workspace import Workspace

    name = load_contract(model).contract.name
    rows = join_outcomes(Workspace.open(workspace), name)
    try:
        with file.open("xb") as opened:
            rows.write_parquet(opened)
    except OSError as error:
        raise UsageError(
            f"The file {file} cannot be written: {error.strerror}.", remedy="Name another one."
        ) from None
    console.print(f"{rows.height:,} predictions written: {escape(str(file))}", soft_wrap=True)
