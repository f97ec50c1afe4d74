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
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.parser import RoundTripParser

from seatrial.contract.cross_checks import cross_checks
from seatrial.contract.schema import Contract
from seatrial.errors import ContractError, Problem, UsageError

MAXIMUM_BYTES = 1_000_000
MAXIMUM_DEPTH = 30
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
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("", f"must be UTF-8 text. Byte {error.start} is not.")
        raise ContractError(_shown(path), [problem]) from None
    return parse_contract(text, path)


def parse_contract(text: str, path: Path) -> LoadedContract:
    """Parse a contract's text; ``path`` is for messages and for the files beside it.

    Raises:
        ContractError: with every problem, if the contract is wrong.
    """
    try:
        read = _read(text)
    except _MalformedError as error:
        raise ContractError(_shown(path), [Problem("", str(error), error.line)]) from None
    try:
        contract = Contract.model_validate(read.values)
    except ValidationError as error:
        wrong = [_problem(details, read.lines) for details in error.errors(include_url=False)]
        unlike = [problem for problem in wrong if problem.place not in dict(read.empty)]
        without_value = [
            Problem(place, message, _line_of(place, read.lines)) for place, message in read.empty
        ]
        remedy = "See docs/reference/contract.md."
        raise ContractError(_shown(path), [*without_value, *unlike], remedy=remedy) from None
    loaded = LoadedContract(contract, path, text, read.lines)
    if problems := [*read.empty, *cross_checks(contract), *_name_matches_folder(contract, path)]:
        raise loaded.error(problems)
    return loaded


def _name_matches_folder(contract: Contract, path: Path) -> list[tuple[str, str]]:
    folder = path.resolve().parent.name
    if path.name == "model.yaml" and contract.name != folder:
        return [("name", f"must be the folder's name, {folder!r}. Got {contract.name!r} instead.")]
    return []


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


class _MalformedError(Exception):
    """The text is no YAML, or a kind of YAML that a contract may not be."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class _Read:
    """What a text says, before anybody looks whether it is a contract.

    Attributes:
        values: Its keys and values, as Python's own types.
        lines: Line (from 1) of each key, by dotted path.
        empty: The keys without a value, by dotted path, each with a message.
    """

    values: dict[str, Any]
    lines: dict[str, int]
    empty: list[tuple[str, str]]


@lru_cache(maxsize=16)
def _read(text: str) -> _Read:
    """Read a text once: it takes tens of milliseconds, and every bundle that is opened has its contract's."""
    tree = _read_yaml(text)
    values = _plain(tree)
    return _Read(values, dict(_key_lines(tree, ())), list(_keys_without_value(values, ())))


class _StrictParser(RoundTripParser):
    """A parser that stops where the text has something that a contract may not have."""

    depth = 0

    def get_event(self) -> Event:
        event: Event = super().get_event()
        self.depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if self.depth > MAXIMUM_DEPTH:  # The parser's time grows with its square.
            raise _MalformedError("is nested too deeply.", event.start_mark.line + 1)
        if forbidden := _forbidden(event):
            raise _MalformedError(f"{forbidden} not allowed.", event.start_mark.line + 1)
        return event


def _read_yaml(text: str) -> CommentedMap:
    yaml = YAML(typ="rt", pure=True)
    yaml.Parser = _StrictParser
    try:
        tree = yaml.load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _MalformedError(
            f"is not valid YAML: {error.problem}.", mark.line + 1 if mark else None
        ) from None
    except (YAMLError, ValueError) as error:
        # Such as a control character, or a number of thousands of digits.
        raise _MalformedError(f"is not valid YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(tree, CommentedMap):
        raise _MalformedError("must be a mapping of keys to values.", 1)
    return tree


def _forbidden(event: Event) -> str:
    """Name what a contract may not use, though YAML has it; empty for anything else."""
    if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
        return "anchors and aliases are"
    if isinstance(event, DocumentStartEvent) and (event.version or event.tags):
        return "directives are"
    if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
        return "merge keys are"
    tag = getattr(event, "tag", None)
    return f"the tag {tag} is" if tag is not None else ""


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


def _keys_without_value(values: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the keys that stand there with nothing behind them: a gate without a bound never ran."""
    if path[2:] == ("parameters",):  # Here nothing is a value: scikit-learn's None.
        return
    items = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    )
    for key, value in items:
        place = (*path, str(key))
        if value is None:
            yield ".".join(place), "has no value: give it one, or take the key out."
        yield from _keys_without_value(value, place)


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
        message = f"this key is required{_meaning(shown)}"
    elif details["type"] == "union_tag_not_found":
        message = f"the key {details['ctx']['discriminator']} is required; it says what this is."
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
    allowed = sorted({name for section in _sections_at(keys[:-1]) for name in section.model_fields})
    if not allowed:
        return ""
    near = difflib.get_close_matches(keys[-1], allowed, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Allowed here: {', '.join(allowed)}."


def _meaning(keys: list[str]) -> str:
    """Say what a missing key means, in the words of the reference."""
    for section in _sections_at(keys[:-1]):
        found = section.model_fields.get(keys[-1])
        if found and found.description:
            return f": {found.description[0].lower()}{found.description[1:]}"
    return "."


def _sections_at(path: list[str]) -> list[type[BaseModel]]:
    models: list[type[BaseModel]] = [Contract]
    for key in path:
        found: list[type[BaseModel]] = []
        for model in models:
            if key in model.model_fields:
                found.extend(_models_in(model.model_fields[key].annotation))
        # An index of a list or a key of a mapping stays within the same models.
        models = found or models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
