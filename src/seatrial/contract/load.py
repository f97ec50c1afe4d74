"""Read a contract, and refuse a wrong one with every problem and its line.

YAML is read as YAML 1.2 (``on`` and ``yes`` are texts, duplicate keys are errors), without
anchors, up to a size: a contract may come from someone else (threats: A12, A13).
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, NodeEvent

from seatrial.contract.schema import Contract
from seatrial.errors import ContractError, Problem, UsageError

MAXIMUM_BYTES = 1_000_000
MAXIMUM_SHOWN = 60
MODELS_VARIABLE = "SEATRIAL_MODELS"


@dataclass(frozen=True)
class LoadedContract:
    """A contract with where it came from.

    Attributes:
        contract: The contract.
        path: The file it was read from.
        text: The file's text, as it goes into the bundle.
        lines: Line (from 1) of each key, by dotted path.
    """

    contract: Contract
    path: Path
    text: str
    lines: dict[str, int]

    @property
    def folder(self) -> Path:
        """The model's folder."""
        return self.path.parent

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the contract's text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def error(self, problems: list[tuple[str, str]], *, remedy: str = "") -> ContractError:
        """Return an error about ``problems``, each a dotted path and a message."""
        found = [Problem(place, message, _line_of(place, self.lines)) for place, message in problems]
        return ContractError(_shown(self.path), found, remedy=remedy)


def models_folder() -> Path:
    """Return the folder of models: ``$SEATRIAL_MODELS``, or ``models`` here or in a folder above."""
    if named := os.environ.get(MODELS_VARIABLE):
        return Path(named)
    here = Path.cwd()
    return next((p / "models" for p in (here, *here.parents) if (p / "models").is_dir()), here / "models")


def find_contract(model: str) -> Path:
    """Return the path of a model's contract.

    Args:
        model: A model's name, its folder, or the contract's file.

    Raises:
        UsageError: if there is none; the message lists the models that there are.
    """
    folder = models_folder()
    for path in (Path(model), Path(model) / "model.yaml", folder / model / "model.yaml"):
        if path.is_file():
            return path
    there = sorted(p.parent.name for p in folder.glob("*/model.yaml"))
    raise UsageError(
        f"There is no model {model!r}: neither a contract file, nor a folder with a model.yaml, "
        f"nor one of the models in {_shown(folder)} ({', '.join(there) or 'none'}).",
        remedy="Make one with: seatrial init NAME --data FILE",
    )


def load_contract(model: str | Path) -> LoadedContract:
    """Read a model's contract and check all that can be checked without its data.

    Args:
        model: A model's name, its folder, or the contract's file.

    Raises:
        UsageError: if there is no such model.
        ContractError: with every problem, if the contract is wrong.
    """
    path = find_contract(str(model))
    if path.stat().st_size > MAXIMUM_BYTES:
        size = path.stat().st_size
        problem = Problem("", f"must have at most {MAXIMUM_BYTES:,} bytes. Got {size:,} instead.")
        raise ContractError(_shown(path), [problem])
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problem = Problem("", f"must be UTF-8 text. Byte {error.start} is not.")
        raise ContractError(_shown(path), [problem]) from None
    return parse_contract(text, path)


def parse_contract(text: str, path: Path) -> LoadedContract:
    """Parse a contract's text; ``path`` is for messages and for the files beside it.

    Raises:
        ContractError: with every problem, if the contract is wrong.
    """
    tree = _read_yaml(text, path)
    lines = dict(_key_lines(tree, ()))
    try:
        contract = Contract.model_validate(_plain(tree))
    except ValidationError as error:
        wrong = [_problem(details, lines) for details in error.errors(include_url=False)]
        raise ContractError(_shown(path), wrong, remedy="See docs/reference/contract.md.") from None
    loaded = LoadedContract(contract, path, text, lines)
    if problems := [*_cross_checks(contract), *_name_matches_folder(contract, path)]:
        raise loaded.error(problems)
    return loaded


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _read_yaml(text: str, path: Path) -> CommentedMap:
    yaml = YAML(typ="rt", pure=True)
    try:
        for event in yaml.parse(io.StringIO(text)):
            if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
                line = event.start_mark.line + 1
                raise ContractError(_shown(path), [Problem("", "anchors and aliases are not allowed.", line)])
            if getattr(event, "tag", None) is not None:
                line = event.start_mark.line + 1
                raise ContractError(_shown(path), [Problem("", f"the tag {event.tag} is not allowed.", line)])
        tree = YAML(typ="rt", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = Problem("", f"is not valid YAML: {error.problem}.", mark.line + 1 if mark else None)
        raise ContractError(_shown(path), [problem]) from None
    except RecursionError:
        raise ContractError(_shown(path), [Problem("", "is nested too deeply.")]) from None
    if not isinstance(tree, CommentedMap):
        raise ContractError(_shown(path), [Problem("", "must be a mapping of keys to values.", 1)])
    return tree


def _plain(node: Any) -> Any:
    if isinstance(node, CommentedMap):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, CommentedSeq):
        return [_plain(v) for v in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _key_lines(node: Any, path: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    if isinstance(node, CommentedMap):
        places = [(str(k), v, node.lc.key(k)[0]) for k, v in node.items()]
    elif isinstance(node, CommentedSeq):
        places = [(str(i), v, node.lc.item(i)[0]) for i, v in enumerate(node)]
    else:
        return
    for key, value, line in places:
        yield ".".join((*path, key)), line + 1
        yield from _key_lines(value, (*path, key))


def _line_of(place: str, lines: dict[str, int]) -> int | None:
    parts = place.split(".")
    for end in range(len(parts), 0, -1):
        if line := lines.get(".".join(parts[:end])):
            return line
    return None


def _problem(details: ErrorDetails, lines: dict[str, int]) -> Problem:
    keys = [str(part) for part in details["loc"]]
    # pydantic puts the branch of a union into the path; only keys of the file mean something here.
    shown = [
        key
        for i, key in enumerate(keys)
        if i == len(keys) - 1 or ".".join((*_known(keys[:i], lines), key)) in lines
    ]
    place = ".".join(shown)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        message = "this key is unknown." + _suggestion(shown)
    elif details["type"] == "missing":
        message = "this key is required."
    else:
        message = f"{message[0].lower()}{message[1:]}. Got {_short(details['input'])} instead."
    return Problem(place, message, _line_of(place, lines))


def _known(keys: list[str], lines: dict[str, int]) -> list[str]:
    known: list[str] = []
    for key in keys:
        if ".".join((*known, key)) in lines:
            known.append(key)
    return known


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAXIMUM_SHOWN else f"{text[: MAXIMUM_SHOWN - 3]}..."


def _suggestion(keys: list[str]) -> str:
    """Name the keys that the section of an unknown key allows, the nearest one first."""
    allowed = _allowed_keys(keys[:-1])
    if not allowed:
        return ""
    near = difflib.get_close_matches(keys[-1], allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Allowed here: {', '.join(allowed)}."


def _allowed_keys(path: list[str]) -> list[str]:
    models: list[type[BaseModel]] = [Contract]
    for key in path:
        found: list[type[BaseModel]] = []
        for model in models:
            if key in model.model_fields:
                found.extend(_models_in(model.model_fields[key].annotation))
        # An index of a list or a key of a mapping stays within the same models.
        models = found or models
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _name_matches_folder(contract: Contract, path: Path) -> list[tuple[str, str]]:
    folder = path.resolve().parent.name
    if path.name == "model.yaml" and contract.name != folder:
        return [("name", f"must be the folder's name, {folder!r}. Got {contract.name!r} instead.")]
    return []


def _cross_checks(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between the contract's own sections."""
    for name, table in contract.tables.items():
        named = [(f"tables.{name}.key", key) for key in table.key]
        if table.time:
            named.append((f"tables.{name}.time", table.time))
            column = table.columns.get(table.time)
            if column and column.type != "time":
                yield f"tables.{name}.time", f"column {table.time!r} must be of type time. Got {column.type}."
        yield from _unknown_columns(named, list(table.columns), f"table {name!r}")
    target = contract.tables.get(contract.prediction.table)
    if target is None:
        yield (
            "prediction.table",
            f"must be one of the tables ({', '.join(contract.tables)}). Got {contract.prediction.table!r}.",
        )
        return
    named = [("prediction.inputs", column) for column in contract.prediction.inputs]
    named.append(("label.column", contract.label.column))
    if contract.label.time:
        named.append(("label.time", contract.label.time))
    yield from _unknown_columns(named, list(target.columns), f"table {contract.prediction.table!r}")
    yield from _label_checks(contract)
    names = [candidate.name for candidate in contract.candidates]
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield "candidates", f"two candidates are called {name!r}."


def _label_checks(contract: Contract) -> Iterator[tuple[str, str]]:
    label, target = contract.label, contract.tables[contract.prediction.table]
    for place, column in (("label.column", label.column), ("label.time", label.time)):
        if column in contract.prediction.inputs:
            yield (
                "prediction.inputs",
                f"{column!r} ({place}) is not known at the time of a prediction: take it out.",
            )
    column = target.columns.get(label.column)
    if column and column.type not in ("boolean", "integer"):
        yield (
            "label.column",
            f"column {label.column!r} must be boolean, or integer 0 and 1. Got {column.type}.",
        )
    if missing := [key for key in target.key if key not in contract.prediction.inputs]:
        yield (
            "prediction.inputs",
            f"must hold the table's key, by which an outcome finds its row: add {', '.join(missing)}.",
        )


def _unknown_columns(
    named: list[tuple[str, str]], columns: list[str], where: str
) -> Iterator[tuple[str, str]]:
    for place, column in named:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(columns)}."
            yield place, f"{where} has no column {column!r}.{hint}"
