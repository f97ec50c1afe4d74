"""What every command shares: the application, its options, and how errors end it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="seatrial",
    help="Take a scikit-learn model to a service that is tested, promoted, watched and retrained.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

Model = Annotated[
    str, typer.Argument(help="The model's name, its folder, or its model.yaml.", show_default=False)
]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        envvar="SEATRIAL_WORKSPACE",
        help="Folder or s3:// address that holds tables, bundles and pointers. [default: .seatrial]",
        show_default=False,
    ),
]
AsOf = Annotated[
    str,
    typer.Option(
        help="Instant of the run, as an ISO 8601 time, or the end of a period (2013-06). [default: now]",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Environment = Annotated[str, typer.Option("--env", help="Name of the environment.")]


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(value, option=options, default=str).decode() + "\n")


def run() -> int:
    """Run the command line and return its exit code.

    An error that the user can act on is printed without a traceback, with what to do; with
    ``--debug`` (anywhere on the line) it comes with one. Ctrl-C ends with 130.
    """
    from seatrial.errors import SeatrialError

    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        result = app(args=arguments, standalone_mode=False)
    except SeatrialError as error:
        if debug:
            raise
        errors.print(f"[bold red]error:[/] {_escaped(error.message)}")
        if error.remedy:
            errors.print(f"[bold]What to do:[/] {_escaped(error.remedy)}")
        return error.exit_code
    except typer._click.exceptions.ClickException as error:  # noqa: SLF001 -- typer keeps its click private
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        errors.print("Stopped.")
        return 130
    return result if isinstance(result, int) else 0


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
