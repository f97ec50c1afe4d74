"""``seatrial init``: a new model from a CSV or Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.cli.app import Json, app, console, print_json

if TYPE_CHECKING:
    from seatrial.init_model import Created


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="The new model's name: small letters, digits and _.")],
    data: Annotated[Path, typer.Option(help="CSV (also zipped) or Parquet file to learn from.")],
    label: Annotated[
        str | None, typer.Option(help="Column to learn, of two values. [default: found]", show_default=False)
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Column that says when a row happened. [default: found]", show_default=False),
    ] = None,
    no_time: Annotated[
        bool, typer.Option("--no-time", help="No column says when a row happened: go by the rows' order.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over the files of a model of that name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a new model from a data file: contract, features and README, ready to train.

    The file is not copied: the contract refers to it by a path relative to the model's folder.

    Example: `seatrial init churn --data data/customers.csv --label churned`
    """
    from seatrial.errors import UsageError
    from seatrial.init_model import init_model

    if no_time and time:
        raise UsageError("--time and --no-time exclude each other.", remedy="Give one of them.")
    made = init_model(name, data, label=label, time=time, no_time=no_time, force=force)
    if as_json:
        print_json(_facts(made))
    else:
        _show(made)


def _facts(made: Created) -> dict[str, object]:
    roles = made.proposal.roles
    return {
        "model": made.proposal.name,
        "files": [str(path) for path in made.files],
        "label": {"column": roles.label.name, "yes": roles.positive, "no": roles.negative},
        "time": roles.time.name if roles.time else None,
        "key": roles.key,
        "features": [column.name for column in roles.features],
        "inputs_only": roles.inputs_only,
        "table_only": roles.table_only,
        "left_out": roles.left_out,
        "rows": made.rows._asdict(),
        "waiting": made.waiting,
        "train": made.proposal.train,
    }


def _here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _show(made: Created) -> None:
    from rich.markup import escape

    proposal, roles = made.proposal, made.proposal.roles
    added = " (a number that prepare.py adds)" if roles.row_number else ""
    lines = {
        "label": f"{roles.label.name}: whether it is {roles.positive}, not {roles.negative}",
        "time": roles.time.name if roles.time else "none: the rows' order counts",
        "key": f"{', '.join(roles.key)}{added}",
        "features": ", ".join(column.name for column in roles.features),
        "rows": f"{made.rows.training:,} to train, {made.rows.validation:,} to validate, {made.rows.test:,} to test",
    }
    files = ", ".join(path.name for path in made.files)
    console.print(f"[green]✓[/] {escape(str(_here(made.folder)))}: {files}")
    for what, shown in lines.items():
        console.print(f"  [bold]{what:9}[/]{escape(shown)}")
    if proposal.shuffled:
        console.print("  The file is sorted by the label: prepare.py brings its rows into a random order.")
    if made.waiting:
        console.print(f"  {made.waiting:,} rows are of a month that has not ended: they wait until it has.")
    for name, reason in {**roles.inputs_only, **roles.table_only, **roles.left_out}.items():
        console.print(f"  [yellow]no feature:[/] {escape(name)} {escape(reason)}")
    console.print(f"Next: seatrial check {proposal.name}, then {proposal.train}")
