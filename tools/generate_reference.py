"""Write the pages of ``docs/reference`` that say what the code says: contract, environment, commands, errors.

A page written by hand goes stale with the next change; these are made from the pydantic schema, the
help texts and the error classes themselves. ``--check`` compares instead of writing, and a test
runs it, so the pages cannot drift.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from typer.core import TyperGroup

from seatrial import errors
from seatrial.cli import main as every_command  # noqa: F401 -- importing it registers the commands
from seatrial.cli.app import app
from seatrial.contract import schema
from seatrial.promotion import environment

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "models" / "flights" / "model.yaml"
ENVIRONMENT_EXAMPLE = ROOT / "manifests" / "environments" / "production" / "environment.yaml"
MADE = "<!-- Made by `python tools/generate_reference.py`; change its source, not this page. -->"
BOUNDS = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "above"),
    (Le, "le", "at most"),
    (Lt, "lt", "below"),
    (MaxLen, "max_length", "length at most"),
)
LONGEST_EXAMPLE = 16
UNIONS = (types.UnionType, typing.Union)
PLAIN_TYPES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "`true` or `false`",
    timedelta: "length of time",
}


def main() -> int:
    """Write the pages, or with ``--check`` say which are not in step; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is old")
    check = parser.parse_args().check
    old = {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}
    for path, text in old.items():
        print(f"{'old' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return 1 if check and old else 0


def pages() -> dict[Path, str]:
    """Return the text of every page by its path."""
    folder = ROOT / "docs" / "reference"
    return {
        folder / "contract.md": contract_page(),
        folder / "environment.md": environment_page(),
        folder / "commands.md": commands_page(),
        folder / "errors.md": errors_page(),
    }


def table(*rows: tuple[str, ...]) -> list[str]:
    """Return the lines of a Markdown table whose first row is its head."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:], ""]


def sentence(documented: object) -> str:
    """Return a docstring's first paragraph on one line."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


# The contract


@dataclass(frozen=True)
class Place:
    """A section of the contract and where it stands, such as ``gates.champion``."""

    path: str
    section: type[BaseModel]


def contract_page() -> str:
    """Return the reference of ``model.yaml``."""
    example = YAML(typ="safe").load(EXAMPLE.read_text())
    lines = ["# The contract: `models/NAME/model.yaml`", "", MADE, "", *_contract_preface()]
    for place in places(Place("", schema.Contract)):
        lines += section_lines(place, example)
    return "\n".join(lines).rstrip() + "\n"


def _contract_preface() -> list[str]:
    return [
        "One file says what a model learns from, how it is judged, served and watched, and when it is",
        "trained again. `seatrial check NAME` reads it, and names every problem with its line and what",
        "would be right.",
        "",
        "- A key that is not on this page is refused, at every level.",
        '- Types are strict: the text `"yes"` is no boolean, and `"3"` is no number.',
        "- A length of time is a whole number and a unit: `30m`, `6h`, `28d`, `2w`, `45s`.",
        f"- A name is lower-case letters, digits and `_`, and begins with a letter (`{schema.NAME_PATTERN}`).",
        "- Bounds are inclusive unless they say otherwise.",
        "",
        "Examples are from [the contract of the flights model](../../models/flights/model.yaml).",
        "",
    ]


def environment_page() -> str:
    """Return the reference of ``environment.yaml``."""
    example = YAML(typ="safe").load(ENVIRONMENT_EXAMPLE.read_text())
    lines = [
        "# An environment: `manifests/environments/ENV/environment.yaml`",
        "",
        MADE,
        "",
        *_environment_preface(),
    ]
    for place in places(Place("", environment.EnvironmentFile)):
        lines += section_lines(place, example)
    return "\n".join(lines).rstrip() + "\n"


def _environment_preface() -> list[str]:
    return [
        "One file says from where a bundle comes, where it is kept, what it must pass first and how many persons",
        "must agree. How to use it: [promotion](../how-to/promotion.md). Beside it lie `trusted/KEY.pem`, the makers",
        "of bundles that are trusted there, `approvers/NAME.pem`, the persons who may approve, and a folder for each",
        "model, whose `bundle.yaml` names the bundle by its digest and the move of the record that it follows.",
        "",
        "- A key that is not on this page is refused, at every level.",
        "- Two environments never share a workspace.",
        "- A demand that cannot be computed has failed.",
        "",
        "Examples are from [production](../../manifests/environments/production/environment.yaml).",
        "",
    ]


def places(here: Place) -> Iterator[Place]:
    """Yield a section and, in the order of their keys, all sections within it."""
    yield here
    for name, info in here.section.model_fields.items():
        for section in sections_in(info.annotation):
            path = f"{here.path}.{name}".lstrip(".") + entry_suffix(info.annotation)
            yield from places(Place(path, section))


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that a value of this type may be or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in sections_in(part)]


def entry_suffix(annotation: Any) -> str:
    """Return what follows a key to name one of its entries: ``.NAME`` in a mapping, ``[]`` in a list."""
    return {dict: ".NAME", list: "[]"}.get(typing.get_origin(annotation), "")


def section_lines(place: Place, example: Any) -> list[str]:
    """Return the part of the page about one section."""
    kinds = [
        typing.get_args(info.annotation)
        for name, info in place.section.model_fields.items()
        if name == "kind"
    ]
    kind = f" with `kind: {kinds[0][0]}`" if kinds else ""
    lines = [
        f"## `{place.path}`{kind}" if place.path else "## The top level",
        "",
        sentence(place.section),
        "",
    ]
    lines += table(
        ("key", "type", "default", "bounds", "meaning"),
        *(
            (f"`{name}`", type_words(info), default_words(info), bounds_words(info), meaning(info))
            for name, info in place.section.model_fields.items()
        ),
    )
    found = example_of(place, example)
    if found is not None and place.path:
        lines += ["```yaml", yaml_text(found), "```", ""]
    return lines


def meaning(info: FieldInfo) -> str:
    """Return a key's description; a gate's is its section's docstring."""
    sections = sections_in(info.annotation)
    return info.description or (sentence(sections[0]) if sections else "")


def type_words(info: FieldInfo) -> str:
    """Return a key's type in plain words."""
    return _words(info.annotation)


def _words(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _words(parts[0])
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in UNIONS:
        return " or ".join(dict.fromkeys(_words(part) for part in parts if part is not type(None)))
    if origin in (list, dict):
        return f"{'list of' if origin is list else 'mapping of names to'} {_plural(parts[-1])}"
    return PLAIN_TYPES.get(annotation) or ("section" if sections_in(annotation) else "any value")


def _plural(annotation: Any) -> str:
    word = _words(annotation)
    return {"text": "texts", "section": "sections"}.get(word, word)


def default_words(info: FieldInfo) -> str:
    """Return a key's default; `required` where it must be given."""
    if info.is_required():
        return "required"
    value = info.default
    if value is None:
        return "absent"
    if isinstance(value, timedelta):
        return f"`{schema.format_duration(value)}`"
    if isinstance(value, BaseModel):
        return "each key's own"
    if isinstance(value, dict) and value:
        return f"`{ {name: entry.model_dump(mode='json') for name, entry in value.items()} }`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def bounds_words(info: FieldInfo) -> str:
    """Return the bounds of a key's value."""
    metadata = [*info.metadata, *_metadata_within(info.annotation)]
    return ", ".join(word for word in map(_bound_words, metadata) if word)


def _metadata_within(annotation: Any) -> list[Any]:
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        return [one for part in parts[1:] for one in getattr(part, "metadata", [part])]
    if typing.get_origin(annotation) in UNIONS:
        return [one for part in parts for one in _metadata_within(part)]
    return []


def _bound_words(bound: Any) -> str:
    for kind, attribute, words in BOUNDS:
        if isinstance(bound, kind):
            return f"{words} {getattr(bound, attribute):,}"
    if isinstance(bound, MinLen):
        return "not empty" if bound.min_length == 1 else f"at least {bound.min_length} long"
    pattern = getattr(bound, "pattern", None)
    if pattern == schema.NAME_PATTERN:
        return "a name"
    return f"matches `{pattern}`" if pattern else ""


def example_of(place: Place, example: Any) -> Any:
    """Return what the example's contract has at a section's place; None if it has nothing there."""
    found = [example]
    for part in place.path.replace("[]", ".NAME").split("."):
        if part == "NAME":
            found = [
                entry for value in found for entry in (value.values() if isinstance(value, dict) else value)
            ]
        elif part:
            found = [value[part] for value in found if part in value]
    keys = set(place.section.model_fields)
    fitting = [v for v in found if isinstance(v, dict) and (set(v) <= keys) and _kind_fits(place.section, v)]
    fitting.sort(key=lambda value: len(yaml_text(value)), reverse=True)
    short = [value for value in fitting if len(yaml_text(value).splitlines()) <= LONGEST_EXAMPLE]
    return next(iter(short), None)


def _kind_fits(section: type[BaseModel], value: dict[str, Any]) -> bool:
    info = section.model_fields.get("kind")
    return info is None or value.get("kind") in typing.get_args(info.annotation)


def yaml_text(value: Any) -> str:
    """Return a value as YAML, a key a line and what is nested in it in one line."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 100
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue().rstrip()


# The commands


def commands_page() -> str:
    """Return the reference of the command line."""
    lines = ["# The command line", "", MADE, "", *_commands_preface()]
    lines += table(
        ("command", "what it does"), *((f"[`{n}`](#{_anchor(n)})", _help_head(c)) for n, c in commands())
    )
    for name, command in commands():
        lines += command_lines(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _commands_preface() -> list[str]:
    return [
        "Every command exits with 0 if all went well, with 2 if the command itself is wrong, with the",
        "[error's own code](errors.md) if it failed, and with 130 after Ctrl-C. Errors go to standard error,",
        "without a traceback; `--debug`, anywhere on the line, shows it. What `--json` prints goes to",
        "standard output, alone.",
        "",
    ]


def commands() -> list[tuple[str, Any]]:
    """Return every command that does something, by its whole name, in the order of the help."""
    return list(_within("seatrial", typer.main.get_command(app)))


def _within(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(command, TyperGroup):
        yield name, command
        return
    for key, inner in command.commands.items():
        if not inner.hidden:
            yield from _within(f"{name} {key}", inner)


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _paragraphs(command: Any) -> list[str]:
    text = inspect.cleandoc(command.help or "").replace("\f", "")
    return [" ".join(part.split()) for part in text.split("\n\n")]


def _help_head(command: Any) -> str:
    return _paragraphs(command)[0]


def command_lines(name: str, command: Any) -> list[str]:
    """Return the part of the page about one command."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([name, *(_metavar(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## {name}", "", "```text", usage, "```", ""]
    for paragraph in _paragraphs(command):
        lines += [paragraph, ""]
    if arguments:
        lines += table(("argument", "meaning"), *((f"`{_metavar(p)}`", p.help or "") for p in arguments))
    if options:
        head = ("option", "default", "meaning")
        lines += table(head, *((_flags(p), _option_default(p), _option_help(p)) for p in options))
    return lines


def _metavar(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper()
    name += "..." if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _flags(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_value_word(option)}"


def _value_word(option: Any) -> str:
    kind = option.type_descriptor.annotation
    return {int: "NUMBER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _option_default(option: Any) -> str:
    if option.required:
        return "required"
    said = (option.help or "").partition("[default: ")[2].rstrip("]")
    if said:
        return said
    plain = isinstance(option.default, (str, int, float, Path)) and not isinstance(option.default, bool)
    return f"`{option.default}`" if plain and str(option.default) else ""


def _option_help(option: Any) -> str:
    text = (option.help or "").partition("[default: ")[0].strip()
    return f"{text} Also: `${option.envvar}`." if option.envvar else text


# The errors


def errors_page() -> str:
    """Return the reference of the errors and the exit codes."""
    kinds = [kind for _, kind in inspect.getmembers(errors, _is_ours)]
    kinds.sort(key=lambda kind: kind.exit_code)
    rows = [(str(k.exit_code), f"`{k.__name__}`", f"`{k.__base__.__name__}`", sentence(k)) for k in kinds]
    lines = ["# Errors and exit codes", "", MADE, "", *_errors_preface()]
    lines += table(("exit code", "class", "is a", "when"), *rows)
    lines += [
        "Beside them: 0 is success, 70 is a mistake of ours (or of the model's own code; `--debug` shows where),",
        "130 is Ctrl-C, and 141 that whoever read the output wanted no more. `train` and `monitor` exit with 9",
        "when a gate or a check failed, and their report says which.",
        "",
    ]
    return "\n".join(lines).rstrip() + "\n"


def _is_ours(member: object) -> bool:
    return isinstance(member, type) and issubclass(member, errors.SeatrialError)


def _errors_preface() -> list[str]:
    module = ast.get_docstring(ast.parse(Path(inspect.getfile(errors)).read_text())) or ""
    said = module.split("::")[0].split("\n\n")[1].replace("``", "`")
    return [
        f"{' '.join(said.split())}.",
        "",
        "A script tells situations apart by the exit code; Python code by the class, in `seatrial.errors`.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
