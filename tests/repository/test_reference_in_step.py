import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from seatrial.cli.app import app
from seatrial.cli.main import main as every_command  # noqa: F401 -- importing it registers the commands

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / "tools" / "generate_reference.py"


def commands(command: Any, name: str = "seatrial") -> dict[str, Any]:
    """Every command that does something, by its whole name."""
    if not hasattr(command, "commands"):
        return {name: command}
    return {
        n: c for key, inner in command.commands.items() for n, c in commands(inner, f"{name} {key}").items()
    }


COMMANDS = commands(typer.main.get_command(app))


def test_reference_is_in_step() -> None:
    """The reference pages say what the schema, the help texts and the errors say now."""
    done = subprocess.run(
        [sys.executable, GENERATOR, "--check"], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun: make docs"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    """Every command's help ends with an example that begins with the command's own name."""
    help_text = COMMANDS[name].help or ""

    assert f"Example: `{name} " in help_text or f"Example: `{name}`" in help_text
    assert help_text.strip().splitlines()[-1].startswith("Example: `")


def test_every_option_is_explained() -> None:
    """No argument and no option of a command is without a word of help."""
    silent = [
        f"{name}: {parameter.name}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if not getattr(parameter, "help", None)
    ]

    assert silent == []
