"""``seatrial models``, ``bundle`` and ``evaluate``: versions, what is in them, how good they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from seatrial.cli.app import AsOf, Environment, Json, Model, WorkspaceOption, app, console, print_json

if TYPE_CHECKING:
    from seatrial.bundle import Bundle

bundle = typer.Typer(help="Look at a bundle, and verify it.", no_args_is_help=True)
app.add_typer(bundle, name="bundle")

Digest = Annotated[
    str, typer.Argument(help="The bundle's digest, or its first 6 digits or more.", show_default=False)
]
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "bold red"}


@app.command()
def models(model: Model, workspace: WorkspaceOption = None, as_json: Json = False) -> None:
    """List a model's versions, newest first, with who serves them.

    Example: `seatrial models flights`
    """
    from seatrial.contract import load_contract
    from seatrial.registry import list_versions, tracking_uri
    from seatrial.workspace import Workspace

    place = Workspace.open(workspace)
    versions = list_versions(place, load_contract(model).contract.name)
    if as_json:
        print_json(versions)
        return
    shown = Table("version", "digest", "verdict", "serves", "run")
    for version in versions:
        verdict = version.tags.get("seatrial.verdict", "")
        coloured = f"[{_COLOURS.get(verdict, 'default')}]{verdict}[/]"
        run = version.tags.get("seatrial.run", "")
        shown.add_row(str(version.version), version.digest[:12], coloured, ", ".join(version.aliases), run)
    console.print(shown if versions else f"There are no versions yet. Train one: seatrial train {model}")
    console.print(f"[dim]In MLflow: mlflow ui --backend-store-uri {tracking_uri(place)}[/]")


def _load(digest: str, workspace: str | None) -> Bundle:
    from seatrial.bundle import load_bundle, open_trust_root
    from seatrial.bundle.store import find_bundle
    from seatrial.workspace import Workspace

    place = Workspace.open(workspace)
    return load_bundle(place, find_bundle(place, digest), open_trust_root(place))


@bundle.command()
def show(digest: Digest, workspace: WorkspaceOption = None, as_json: Json = False) -> None:
    """Show what a bundle is: data, figures, verdicts and files. It is verified first.

    Example: `seatrial bundle show 506d7692ab75`
    """
    loaded = _load(digest, workspace)
    if as_json:
        facts = {"digest": loaded.digest, "signed_by": loaded.signed_by, **loaded.manifest.model_dump()}
        print_json(
            {**facts, "verdicts": loaded.json("verdicts.json"), "metrics": loaded.json("metrics.json")}
        )
        return
    console.print(f"[bold]{loaded.manifest.model}[/] {loaded.digest}")
    console.print(
        f"made {loaded.manifest.created} by {loaded.manifest.run}, signed by {loaded.signed_by[:12]}"
    )
    for table, version in loaded.manifest.data.items():
        console.print(
            f"  {table}: version {version['version']}, {version['rows']:,} rows, {str(version['digest'])[:12]}"
        )
    shown = Table("verdict", "gate", "value", "bound", "what")
    for verdict in loaded.verdicts:
        value, bound = (
            "" if n is None else f"{n:.4g} {verdict.unit}" for n in (verdict.value, verdict.bound)
        )
        colour = _COLOURS[verdict.outcome]
        shown.add_row(f"[{colour}]{verdict.outcome}[/]", verdict.check, value, bound, Text(verdict.message))
    console.print(shown)
    files = Table("file", "bytes", "sha256")
    for file in loaded.manifest.files:
        files.add_row(file.path, f"{file.size:,}", file.sha256[:16])
    console.print(files)


@bundle.command()
def verify(digest: Digest, workspace: WorkspaceOption = None, as_json: Json = False) -> None:
    """Check a bundle's signature and every file's digest. Exits with 11 or 12 if something is wrong.

    Example: `seatrial bundle verify 506d7692ab75`
    """
    loaded = _load(digest, workspace)
    if as_json:
        print_json({"digest": loaded.digest, "signed_by": loaded.signed_by, "files": len(loaded.files)})
        return
    console.print(
        f"[green]✓[/] {loaded.digest}: {len(loaded.files)} files are as the manifest says, signed by "
        f"{loaded.signed_by[:12]}."
    )


@app.command()
def evaluate(
    model: Model,
    digest: Annotated[
        str, typer.Option("--bundle", help="A bundle's digest. [default: the one served]", show_default=False)
    ] = "",
    environment: Environment = "local",
    as_of: AsOf = "",
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Evaluate a bundle on the newest rows whose outcome is known.

    Example: `seatrial evaluate flights --as-of 2013-08`
    """
    from seatrial.steps.judging import evaluate_bundle

    found = evaluate_bundle(model, workspace, environment, digest, as_of)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    console.print(f"{found.rows:,} rows, {found.start[:16]} to {found.end[:16]}")
    shown = Table("figure", "value", "95% interval", "constant answer")
    for name, interval in found.metrics.items():
        ends = "" if interval.low is None else f"{interval.low:.4f} to {interval.high:.4f}"
        constant = found.constant.metrics[name].value
        shown.add_row(
            name,
            "" if interval.value is None else f"{interval.value:.4f}",
            ends,
            "" if constant is None else f"{constant:.4f}",
        )
    console.print(shown)
