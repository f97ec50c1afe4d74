"""What every command shares: the application, its options, and how errors end it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from seatrial import __version__

if TYPE_CHECKING:
    from seatrial.bundle import TrustRoot
    from seatrial.workspace import Workspace

OUR_MISTAKE = 70
"""Exit code for what is no error that a user can act on (EX_SOFTWARE of sysexits)."""
CTRL_C = 130
BROKEN_PIPE = 141
_STANDARD_OUTPUT = 1

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


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"seatrial {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and end.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    pass


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_DATACLASS | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(value, option=options, default=str).decode() + "\n")


def workspace_of(env: str, workspace: str | None) -> Workspace:
    """Open the workspace of an environment: that of the one in git, if it is one and no workspace is named."""
    from seatrial.promotion.environment import environment_names, open_environment
    from seatrial.workspace import Workspace

    if workspace is None and env in environment_names():
        return open_environment(env).open_workspace()
    return Workspace.open(workspace)


def place_of(env: str, workspace: str | None) -> tuple[Workspace, TrustRoot | None]:
    """Return the workspace of an environment, and whom to trust there; None: the workspace's own trust root.

    They are those of the environment in git, if it is one and no workspace is named.
    """
    from seatrial.promotion.environment import environment_names, open_environment

    there = workspace is None and env in environment_names()
    return workspace_of(env, workspace), open_environment(env).open_trust_root() if there else None


def run() -> int:
    """Run the command line and return its exit code.

    An error that the user can act on is printed without a traceback, with what to do; with
    ``--debug`` (anywhere on the line) it comes with one. Ctrl-C ends with 130.
    """
    from seatrial.errors import SeatrialError

    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        result = app(args=arguments, prog_name="seatrial", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _show_misuse(error)
    except (KeyboardInterrupt, typer.Abort):
        result = CTRL_C
    except (BrokenPipeError, SystemExit) as error:  # typer makes one of the other.
        cause = error.__context__ if isinstance(error, SystemExit) else error
        if not isinstance(cause, BrokenPipeError):
            raise
        # Whoever read our output wants no more of it; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STANDARD_OUTPUT)
        return BROKEN_PIPE
    except SeatrialError as error:
        if debug:
            raise
        return _show(error.message, error.remedy, error.exit_code)
    except BaseException as error:
        if debug:
            raise
        what = (str(error).splitlines() or [""])[0]
        remedy = (
            "Run it again with --debug to see where, and report it, unless it is in the model's own code."
        )
        return _show(f"This should not have happened: {type(error).__name__}: {what}", remedy, OUR_MISTAKE)
    if result == CTRL_C:
        errors.print("Stopped.")
    return result if isinstance(result, int) else 0


def _show(message: str, remedy: str, exit_code: int) -> int:
    """Print an error and return its exit code."""
    errors.print(f"[bold red]error:[/] {escape(message)}")
    if remedy:
        errors.print(f"[bold]What to do:[/] {escape(remedy)}")
    return exit_code


def _show_misuse(error: typer.TyperException) -> int:
    """Print what is wrong with a command line; a group without a command has printed its help."""
    message, context = error.format_message().strip(), getattr(error, "ctx", None)
    if not message:
        return error.exit_code
    return _show(message, f"See: {context.command_path} --help" if context else "", error.exit_code)
