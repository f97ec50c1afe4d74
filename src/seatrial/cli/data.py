"""``seatrial data``: ingest periods, and look at the tables and their versions."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from seatrial.cli.app import AsOf, Json, Model, WorkspaceOption, app, console, print_json

data = typer.Typer(help="Ingest data and look at tables and their versions.", no_args_is_help=True)
app.add_typer(data, name="data")

TableName = Annotated[str, typer.Argument(help="Name of a table of the contract.", show_default=False)]


@data.command()
def ingest(
    model: Model,
    period: Annotated[
        list[str] | None,
        typer.Option(
            help="A year, a month or a day; may be given more than once. "
            "[default: every month that has ended]",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(help="Only this table; may be given more than once.", show_default=False),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write a period whose rows changed anew.")
    ] = False,
    as_of: AsOf = "",
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Append periods of the sources to the model's raw tables. The same period twice adds nothing.

    Example: `seatrial data ingest flights --period 2013-07`
    """
    from seatrial import sources
    from seatrial.data_tests import as_of_or_now
    from seatrial.model_check import check_model
    from seatrial.workspace import Workspace

    results = sources.ingest(
        check_model(model),
        Workspace.open(workspace),
        periods=period or None,
        tables=table or None,
        until=as_of_or_now(as_of),
        replace=replace,
    )
    if as_json:
        print_json(results)
        return
    shown = Table("table", "batch", "what", "rows", "version", "digest")
    for result in results:
        shown.add_row(
            result.table,
            result.batch,
            result.status,
            f"{result.rows:,}",
            str(result.version),
            result.digest[:12],
        )
    console.print(shown)


@data.command()
def validate(
    model: Model, as_of: AsOf = "", workspace: WorkspaceOption = None, as_json: Json = False
) -> None:
    """Test what was ingested, and put the rows that pass where training and serving read them.

    Exits with 5 if a batch failed.

    Example: `seatrial data validate flights --as-of 2013-07`
    """
    from seatrial import data_tests
    from seatrial.errors import DataTestError
    from seatrial.model_check import check_model
    from seatrial.verdicts import Outcome
    from seatrial.workspace import Workspace

    as_of_time = data_tests.as_of_or_now(as_of)
    checks = data_tests.validate(check_model(model), Workspace.open(workspace), as_of=as_of_time)
    if as_json:
        print_json([{**vars(c), "verdicts": [v.model_dump(mode="json") for v in c.verdicts]} for c in checks])
    else:
        shown = Table("table", "batch", "verdict", "rows", "quarantined")
        for check in checks:
            cells = (check.table, check.batch, check.outcome, f"{check.rows:,}", f"{check.quarantined:,}")
            shown.add_row(*(Text(cell) for cell in cells))
        console.print(shown)
    failed = [v.message for c in checks for v in c.verdicts if v.outcome is Outcome.FAIL]
    if failed:
        raise DataTestError("The data tests failed: " + " ".join(failed))


@data.command()
def log(model: Model, table: TableName, workspace: WorkspaceOption = None, as_json: Json = False) -> None:
    """Show the versions of a raw table, newest first: when, what was written, from where.

    Example: `seatrial data log flights weather`
    """
    from seatrial.contract import load_contract
    from seatrial.tables import Tables
    from seatrial.workspace import Workspace

    contract = load_contract(model).contract
    _refuse_unknown(table, list(contract.tables))
    commits = Tables(Workspace.open(workspace), contract.name, "raw").history(table)
    if as_json:
        print_json(commits)
        return
    shown = Table("version", "time", "operation", "batch", "rows", "digest", "source")
    for commit in commits:
        texts = [str(commit.get(key, ""))[:60] for key in ("version", "time", "operation", "batch", "rows")]
        shown.add_row(*texts, str(commit.get("digest", ""))[:12], Text(str(commit.get("source", ""))))
    console.print(shown if commits else f"The table {table!r} is empty: nothing was ingested yet.")


@data.command()
def show(
    model: Model,
    table: TableName,
    version: Annotated[
        int | None, typer.Option(help="An earlier version.", min=0, show_default=False)
    ] = None,
    layer: Annotated[
        Literal["raw", "valid", "quarantine"],
        typer.Option(help="As it came, what passed the data tests, or what was set aside."),
    ] = "raw",
    rows: Annotated[int, typer.Option(help="Rows to show.", min=0)] = 10,
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Show rows of a table, at any of its versions.

    Example: `seatrial data show flights weather --layer quarantine`
    """
    from seatrial.contract import load_contract
    from seatrial.tables import Tables
    from seatrial.workspace import Workspace

    contract = load_contract(model).contract
    _refuse_unknown(table, list(contract.tables))
    frame = Tables(Workspace.open(workspace), contract.name, layer).read(table, version).head(rows).collect()
    if as_json:
        print_json(frame.to_dicts())
        return
    shown = Table(*(escape(name) for name in frame.columns))
    for row in frame.iter_rows():
        shown.add_row(*(Text(str(value)) for value in row))
    console.print(shown)


def _refuse_unknown(table: str, tables: list[str]) -> None:
    from seatrial.errors import UsageError

    if table not in tables:
        raise UsageError(f"There is no table {table!r} in the contract. It has: {', '.join(tables)}.")
