"""``seatrial up``, ``status``, ``down`` and ``open``: the platform on a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from seatrial.cli.app import Json, app, console, errors, print_json

if TYPE_CHECKING:
    from rich.status import Status

    from seatrial.cluster.context import Ask
    from seatrial.cluster.health import Finding

NOT_HEALTHY = 18

ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        help="Context of the kubeconfig. [default: its current one]",
        show_default=False,
        envvar="SEATRIAL_CONTEXT",
    ),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="The platform's namespace.", envvar="SEATRIAL_NAMESPACE")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
_MARKS = {"healthy": "[green]✓[/]", "waiting": "[yellow]…[/]", "broken": "[bold red]✗[/]"}


def asker(yes: bool) -> Ask | None:
    """What asks the person: nothing if they said yes already, nobody if no terminal is there to answer."""
    if yes:
        return lambda _: True
    if not sys.stdin.isatty():
        return None
    return lambda question: typer.confirm(question, err=True)


class _Terminal:
    """Prints what is waited for: a line for each change, and a spinner on a terminal."""

    def __init__(self, target: Console) -> None:
        self._console = target
        self._status: Status | None = None
        self._waiting: dict[str, str] = {}

    def stage(self, title: str) -> None:
        self.stop()
        self._console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()

    def finding(self, finding: Finding) -> None:
        self._waiting.pop(finding.name, None)
        if finding.state != "healthy":
            self._waiting[finding.name] = finding.why
        self._console.print(line_of(finding), soft_wrap=True)
        if self._status is not None:
            self._status.update(escape(f"waiting for {', '.join(self._waiting) or 'the last word'}"))

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def line_of(finding: Finding) -> str:
    """A finding as a line, with markup."""
    count = f" [dim]{finding.ready} of {finding.wanted} ready[/]" if finding.wanted > 1 else ""
    why = f": {escape(finding.why)}" if finding.why else ""
    return f"  {_MARKS[finding.state]} {escape(finding.name)}{count}{why}"


MakeCluster = Annotated[
    bool, typer.Option("--kind", help="Make the local cluster of kind-config.yaml if it is not there.")
]
NodeImage = Annotated[
    str | None,
    typer.Option(
        help="Image of the local cluster's nodes, from a mirror. [default: kind-config.yaml's]",
        show_default=False,
    ),
]
Environments = Annotated[
    list[str] | None,
    typer.Option(
        "--env", help="An environment; may be given more than once. [default: test]", show_default=False
    ),
]
Values = Annotated[
    list[Path] | None,
    typer.Option(
        "--values",
        "-f",
        help="A file of values for charts/platform; may be given more than once.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(help="Seconds until everything must be healthy.", min=1)]


@app.command()
def up(
    kind: MakeCluster = False,
    node_image: NodeImage = None,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    env: Environments = None,
    values: Values = None,
    timeout: Timeout = 900.0,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Install the platform on a cluster, or bring it up to date; the second time there is nothing to do.

    A cluster that it did not make is not touched before you, or `--yes`, have said so. It says what it waits for,
    and why something does not come up.

    Example: `seatrial up --kind`
    """
    from seatrial.cluster.install import Voice, Wishes
    from seatrial.cluster.install import up as install

    terminal = _Terminal(errors if as_json else console)
    wishes = Wishes(
        context, namespace, kind, node_image, tuple(env or ["test"]), tuple(values or []), timeout
    )
    try:
        result = install(wishes, Voice(terminal.stage, terminal.finding, _between(terminal, asker(yes))))
    finally:
        terminal.stop()
    if as_json:
        print_json(result)
        return
    what = "is up" if result.changed else "is up, and nothing was to be done"
    console.print(
        f"[green]✓[/] The platform {what}: {len(result.parts)} parts in context {escape(result.context)}, "
        f"namespace {escape(result.namespace)}.\nNext: seatrial submit training -p model=flights -p as_of=2013-06"
    )


def _between(terminal: _Terminal, ask: Ask | None) -> Ask | None:
    """Ask with the spinner away."""
    if ask is None:
        return None

    def stopped(question: str) -> bool:
        terminal.stop()
        return ask(question)

    return stopped


@app.command()
def status(
    context: ContextOption = None, namespace: NamespaceOption = "seatrial", as_json: Json = False
) -> int:
    """Say what of the platform is healthy, what is not, and why. Nothing is changed.

    Exits with 0 if everything is healthy, else with 18.

    Example: `seatrial status`
    """
    from seatrial.cluster.context import connect, require_platform
    from seatrial.cluster.observe import findings

    cluster = connect(context, namespace)
    require_platform(cluster)
    found = findings(cluster)
    healthy = all(finding.state == "healthy" for finding in found)
    if as_json:
        print_json({"context": cluster.context, "namespace": namespace, "healthy": healthy, "parts": found})
        return 0 if healthy else NOT_HEALTHY
    for finding in found:
        console.print(line_of(finding), soft_wrap=True)
    for remedy in dict.fromkeys(finding.remedy for finding in found if finding.remedy):
        console.print(f"[bold]What to do:[/] {escape(remedy)}", soft_wrap=True)
    well = sum(finding.state == "healthy" for finding in found)
    console.print(f"{well} of {len(found)} parts are healthy in {escape(str(cluster))}.", soft_wrap=True)
    return 0 if healthy else NOT_HEALTHY


@app.command()
def down(
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    kind: Annotated[
        bool, typer.Option("--kind", help="Delete the local cluster that `up --kind` made.")
    ] = False,
    delete_data: Annotated[
        bool,
        typer.Option("--delete-data", help="Delete volumes, Secrets and the environments' namespaces too."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Uninstall the platform, after asking. Its data stay, so that the next `up` finds them, unless you say otherwise.

    Example: `seatrial down`
    """
    from seatrial.cluster import local_cluster
    from seatrial.cluster.context import connect
    from seatrial.cluster.install import down as uninstall

    def tell(line: str) -> None:
        console.print(escape(line), soft_wrap=True)

    if kind:
        there = local_cluster.delete(asker(yes), tell)
        console.print("[green]✓[/] It is gone." if there else "There is no such kind cluster.")
        return
    cluster = connect(context, namespace)
    there = uninstall(cluster, asker(yes), tell, data=delete_data)
    kept = "" if delete_data else " Its volumes and Secrets are still there."
    console.print(
        f"[green]✓[/] The platform is gone.{kept}"
        if there
        else f"Nothing is installed in {escape(str(cluster))}."
    )


@app.command(name="open")
def open_page(
    what: Annotated[
        Literal["kubeflow", "mlflow", "minio", "prometheus"],
        typer.Argument(help="What to open.", show_default=False),
    ],
    at: Annotated[str, typer.Option(help="What follows the address, such as a run's page.")] = "/",
    port: Annotated[int, typer.Option(help="Port on this machine; a free one if 0.", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in the browser too.")] = False,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
) -> None:
    """Forward a port of this machine to a part of the platform until Ctrl-C, and print its address.

    Example: `seatrial open kubeflow`
    """
    import time
    import webbrowser

    from seatrial.cluster.context import connect, require_platform
    from seatrial.cluster.forward import SERVICES, Forward, is_free
    from seatrial.errors import SeatrialError, UsageError

    if port and not is_free(port):
        raise UsageError(
            f"The port {port} of this machine is taken.",
            remedy="Choose another, or leave --port away for a free one.",
        )
    cluster = connect(context, namespace)
    require_platform(cluster)

    def tell(error: SeatrialError) -> None:
        errors.print(escape(error.message), soft_wrap=True)

    with Forward(cluster, *SERVICES[what], local_port=port, tell=tell) as forward:
        console.print(f"{what}: {forward.address}{at}", soft_wrap=True)
        for line in _keys(what, namespace):
            console.print(f"[dim]{escape(line)}[/]", soft_wrap=True)
        if browser:
            webbrowser.open(f"{forward.address}{at}")
        while True:  # A wait for a lock would not hear Ctrl-C: polars, once imported, has such waits resumed.
            time.sleep(3600)


def _keys(what: str, namespace: str) -> list[str]:
    """How a person gets the keys of a part that wants some."""
    if what != "minio":
        return ["Ctrl-C ends it."]
    secret = f"kubectl get secret minio-root -n {namespace} -o jsonpath='{{.data.password}}' | base64 -d"
    return [
        f"An S3 address. The administrator's name and password are in the Secret minio-root: {secret}",
        "Ctrl-C ends it.",
    ]
