"""``seatrial images``: the images that a cluster pulls, which of them are there, and on what terms."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from seatrial.cli.app import Json, app, console, print_json
from seatrial.cli.platform import ContextOption, NamespaceOption

NOT_THERE = 18
images = typer.Typer(help="The images that a cluster pulls.", no_args_is_help=True)
app.add_typer(images, name="images")


@images.command("list")
def list_images(as_json: Json = False) -> None:
    """List the images that the charts name: what each is for, its licence, who starts it.

    Example: `seatrial images list`
    """
    from seatrial.cluster.image_check import listed_images

    found = listed_images()
    if as_json:
        print_json([{**image.model_dump(), "reference": image.reference} for image in found])
        return
    shown = Table(Column("image", overflow="fold"), "licence", "for", Column("started by", overflow="fold"))
    for image in found:
        licence = Text(image.licence, style="" if image.free else "yellow")
        shown.add_row(Text(image.reference), licence, Text(image.purpose), Text(", ".join(image.started_by)))
    console.print(shown)


@images.command("check")
def check_images(
    offline: Annotated[
        bool,
        typer.Option(
            "--offline", help="Ask no registry: what is in no cluster and not here counts as missing."
        ),
    ] = False,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    as_json: Json = False,
) -> int:
    """Say which images are in the cluster or on this machine, which can't be pulled, which licence isn't free.

    Nothing is pulled. Exits with 18 if an image is neither there nor to be had.

    Example: `seatrial images check`
    """
    from seatrial.cluster import image_check
    from seatrial.cluster.context import connect
    from seatrial.kubernetes_api import contexts

    cluster = connect(context, namespace) if context or any(c.current for c in contexts()) else None
    found = image_check.check_images(image_check.listed_images(), cluster, ask=not offline)
    missing = [checked for checked in found if checked.where == "can't be pulled"]
    if as_json:
        facts = [
            {
                "image": c.image.reference,
                "where": c.where,
                "why": c.why,
                "licence": c.image.licence,
                "free": c.image.free,
            }
            for c in found
        ]
        print_json({"context": cluster.context if cluster else None, "images": facts})
        return NOT_THERE if missing else 0
    for checked in found:
        mark = "[bold red]✗[/]" if checked in missing else "[green]✓[/]"
        why = f": {escape(checked.why)}" if checked.why else ""
        console.print(
            f"{mark} {escape(checked.image.reference)} [dim]{checked.where}[/]{why}", soft_wrap=True
        )
    for image in (checked.image for checked in found if not checked.image.free):
        console.print(
            f"[yellow]![/] {escape(image.reference)}: its licence {escape(image.licence)} isn't a free one.",
            soft_wrap=True,
        )
    return NOT_THERE if missing else 0
