"""``seatrial feedback``: what was answered and what became of it, as figures and files, and how long it is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from seatrial.cli.app import AsOf, Json, Model, WorkspaceOption, app, console, place_of, print_json

if TYPE_CHECKING:
    import polars as pl

    from seatrial.contract.schema import Contract
    from seatrial.feedback.upkeep import Deleted
    from seatrial.workspace import Workspace

feedback = typer.Typer(
    help="Look at what was answered and what became of it, and keep it as long as it should be.",
    no_args_is_help=True,
)
app.add_typer(feedback, name="feedback")

LogFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--log-folder",
        help="A server's log that must be empty first; may be given more than once. "
        "[default: serving/MODEL/feedback-log in the workspace, where it is a folder]",
        show_default=False,
    ),
]
ServedBy = Annotated[
    str | None,
    typer.Option(
        "--env",
        help="Environment whose served bundle says the contract, as on a cluster. [default: the one in models/]",
        show_default=False,
    ),
]
Start = Annotated[
    str,
    typer.Option(help="First instant of what was predicted (included), ISO 8601.", show_default=False),
]
End = Annotated[
    str,
    typer.Option(help="The first instant after it (not included), ISO 8601.", show_default=False),
]


@feedback.command()
def stats(model: Model, workspace: WorkspaceOption = None, as_json: Json = False) -> None:
    """Count predictions and outcomes, and say how they fit together.

    What a server has not shipped yet is not counted.

    Example: `seatrial feedback stats flights`
    """
    from seatrial.feedback import count_outcomes

    place, contract = _open(model, workspace)
    counts = count_outcomes(place, contract.name)
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
    from seatrial.errors import UsageError
    from seatrial.feedback import join_outcomes

    if file.suffix == ".csv":
        raise UsageError(
            "Lists of features do not fit into CSV.", remedy="Name a .parquet file, or see: join"
        )
    place, contract = _open(model, workspace)
    rows = join_outcomes(place, contract.name)
    _write(rows, file)
    console.print(f"{rows.height:,} predictions written: {escape(str(file))}", soft_wrap=True)


@feedback.command()
def join(
    model: Model,
    file: Annotated[
        Path,
        typer.Argument(help="File to write, .parquet or .csv; it must not be there.", show_default=False),
    ],
    start: Start = "",
    end: End = "",
    history: Annotated[
        bool, typer.Option("--history", help="A row for each outcome that arrived, and which one counts.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Write the predictions that have an outcome as data: their inputs, the answer, and what became of it.

    Of several outcomes the last by the time that it became known counts. The columns are explained in
    docs/reference/feedback-log.md.

    Example: `seatrial feedback join flights july.csv --start 2013-07-01 --end 2013-08-01`
    """
    from seatrial.data_tests import as_of_or_now
    from seatrial.errors import UsageError
    from seatrial.feedback.joining import labelled_data

    if file.suffix not in (".parquet", ".csv"):
        raise UsageError(f"The file must end in .parquet or .csv. Got {str(file)!r} instead.")
    place, contract = _open(model, workspace)
    rows = labelled_data(
        place,
        contract,
        start=as_of_or_now(start) if start else None,
        end=as_of_or_now(end) if end else None,
        history=history,
    )
    _write(rows, file)
    if as_json:
        print_json({"rows": rows.height, "predictions": rows["prediction_id"].n_unique(), "file": str(file)})
        return
    console.print(f"{rows.height:,} outcomes written: {escape(str(file))}", soft_wrap=True)


@feedback.command()
def compact(
    model: Model, env: ServedBy = None, workspace: WorkspaceOption = None, as_json: Json = False
) -> None:
    """Put the tables' small files together, and delete those that only old versions have.

    A version older than `feedback.versions` of the contract cannot be read any more. Servers may be running.

    Example: `seatrial feedback compact flights`
    """
    from seatrial.feedback import upkeep

    found = upkeep.compact(*_open(model, workspace, env))
    if as_json:
        print_json(found)
        return
    for one in found:
        console.print(
            f"{one.table}: {one.files_before:,} files became {one.files_after:,}; {one.deleted_files:,} of old "
            "versions deleted"
        )


@feedback.command()
def retain(
    model: Model,
    as_of: AsOf = "",
    env: ServedBy = None,
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Delete predictions older than `feedback.retention` of the contract, and their outcomes.

    Earlier versions of the tables have them until `feedback.versions` has passed, too. Servers may be running.
    A contract without `feedback.retention` keeps them for good, and nothing is deleted.

    Example: `seatrial feedback retain flights`
    """
    from seatrial.data_tests import as_of_or_now
    from seatrial.feedback import upkeep

    place, contract = _open(model, workspace, env)
    now = min(as_of_or_now(as_of), datetime.now(UTC))
    deleted = upkeep.retain(place, contract, now=now)
    if as_json:
        print_json(deleted)
        return
    if contract.feedback.retention is None:
        console.print(
            f"The contract of {contract.name} keeps feedback for good; to limit it: feedback: {{retention: 180d}}"
        )
        return
    console.print(f"{deleted.predictions:,} predictions and {deleted.outcomes:,} outcomes deleted")


@feedback.command()
def erase(
    model: Model,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="FIELD=VALUE of the request, such as customer_id=42; may be given more than once.",
            show_default=False,
        ),
    ] = None,
    prediction: Annotated[
        list[str] | None,
        typer.Option(help="Id of a prediction; may be given more than once.", show_default=False),
    ] = None,
    log_folder: LogFolders = None,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a running server to ship what it has.")
    ] = 60.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and delete nothing.")] = False,
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Delete one subject's records: from logs, tables, and all earlier versions of the tables.

    What cannot be reached is said in docs/reference/feedback-log.md. The second time there is nothing to do.

    Example: `seatrial feedback erase flights --subject tailnum=N14228`
    """
    from seatrial.errors import UsageError

    if not subject and not prediction:
        raise UsageError(
            "Whose records?", remedy="Name them: --subject FIELD=VALUE, or --prediction ID of an answer."
        )
    place, contract = _open(model, workspace)
    who = ([_field(text) for text in subject or []], prediction or [])
    folders = log_folder or _default_folders(place, contract.name)
    deleted = _count(place, contract, *who) if dry_run else _erase(place, contract, *who, folders, wait)
    if as_json:
        print_json(deleted)
        return
    done = "would be erased" if dry_run else "erased"
    console.print(f"{deleted.predictions:,} predictions and {deleted.outcomes:,} outcomes {done}")
    if not dry_run:
        console.print(
            f"{deleted.files:,} files of earlier versions and {deleted.damaged_segments:,} damaged segments deleted"
        )


def _count(
    workspace: Workspace, contract: Contract, subjects: list[tuple[str, str]], predictions: list[str]
) -> Deleted:
    from seatrial.feedback import upkeep

    ids = upkeep.find_predictions(workspace, contract, subjects, predictions)
    return upkeep.count_rows(workspace, contract.name, ids)


def _erase(
    workspace: Workspace,
    contract: Contract,
    subjects: list[tuple[str, str]],
    predictions: list[str],
    folders: list[Path],
    wait: float,
) -> Deleted:
    from dataclasses import replace

    from seatrial.feedback import upkeep

    # Once before the logs are touched: what is wrong with the command is said at once.
    upkeep.find_predictions(workspace, contract, subjects, predictions)
    damaged = upkeep.empty_logs(workspace, contract.name, folders, wait=wait)
    ids = upkeep.find_predictions(workspace, contract, subjects, predictions)
    return replace(upkeep.erase(workspace, contract.name, ids), damaged_segments=damaged)


def _open(model: str, workspace: str | None, env: str | None = None) -> tuple[Workspace, Contract]:
    from seatrial.contract import load_contract
    from seatrial.workspace import Workspace

    if env is not None:
        return _open_served(model, workspace, env)
    return Workspace.open(workspace), load_contract(model).contract


def _open_served(model: str, workspace: str | None, env: str) -> tuple[Workspace, Contract]:
    """Open an environment's workspace, and read the contract out of the signed bundle that it serves."""
    from seatrial.bundle import load_bundle, open_trust_root
    from seatrial.errors import BundleError
    from seatrial.promotion import read_pointer

    place, trust = place_of(env, workspace)
    digest = read_pointer(place, env, model).digest
    if digest is None:
        raise BundleError(
            f"The environment {env!r} serves no bundle of {model!r} yet.",
            remedy="Nothing was done. It can be run once something is served; to wait for that: seatrial wait",
        )
    return place, load_bundle(place, digest, trust or open_trust_root(place)).contract.contract


def _default_folders(workspace: Workspace, model: str) -> list[Path]:
    return [workspace.folder / "serving" / model / "feedback-log"] if workspace.is_local else []


def _field(text: str) -> tuple[str, str]:
    from seatrial.errors import UsageError

    field, equals, value = text.partition("=")
    if not equals or not field:
        raise UsageError(f"--subject must be FIELD=VALUE. Got {text!r} instead.")
    return field, value


def _write(rows: pl.DataFrame, file: Path) -> None:
    """Write a file that is not there yet; its suffix says in which format."""
    from seatrial.errors import UsageError

    try:
        with file.open("xb") as opened:
            if file.suffix == ".csv":
                rows.write_csv(opened, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")
            else:
                rows.write_parquet(opened)
    except OSError as error:
        raise UsageError(
            f"The file {file} cannot be written: {error.strerror}.", remedy="Name another one."
        ) from None
