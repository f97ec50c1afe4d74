"""``seatrial report``: find a run's report, and open it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.cli.app import Json, Model, WorkspaceOption, app, console, print_json

if TYPE_CHECKING:
    from seatrial.workspace import Workspace


@app.command()
def report(
    model: Model,
    run: Annotated[
        str | None,
        typer.Argument(help="The run's id, or how it begins. [default: the newest]", show_default=False),
    ] = None,
    show: Annotated[
        bool, typer.Option("--open/--path", help="Open it in the browser, or print its path.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Print the path of a run's HTML report, or open it in the browser.

    Example: `seatrial report flights --open`
    """
    from seatrial.contract import load_contract
    from seatrial.report.stored import find_report
    from seatrial.workspace import Workspace

    place = Workspace.open(workspace)
    key = find_report(place, load_contract(model).contract.name, run)
    address = str(place.folder / key) if place.is_local else place.uri(key)
    if as_json:
        print_json({"run": key.split("/")[-2], "report": address})
    else:
        console.print(address, soft_wrap=True)
    if show:
        _open_in_browser(place, key)


def _open_in_browser(workspace: Workspace, key: str) -> None:
    """Open a report; one that lies on S3 is copied to a temporary file first."""
    import tempfile
    import webbrowser
    from pathlib import Path

    if workspace.is_local:
        path = workspace.folder / key
    else:
        path = Path(tempfile.mkdtemp(prefix="seatrial-")) / "report.html"
        path.write_bytes(workspace.get(key) or b"")
    webbrowser.open(path.as_uri())
