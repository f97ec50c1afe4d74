"""Check a model's contract together with its Python files, before anything runs.

A feature may only use what a request brings, or what its joins bring at the instant of the
prediction; the names that an expression reads say whether it does. All problems of a model are
told at once, each with its line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import polars as pl

from seatrial.contract.load import LoadedContract, load_contract
from seatrial.contract.schema import ColumnType, Contract
from seatrial.errors import ContractError, FeatureError, Problem
from seatrial.features.definitions import Features, History, Latest, Part
from seatrial.model_code import load_model_code
from seatrial.sources import TYPES

Found = Iterator[tuple[str, str]]
_MADE = "_made"
_MOMENTS = [datetime(2024, month, month, month, tzinfo=UTC) for month in (3, 1, 8, 5)]
_VALUES: dict[ColumnType, list[Any]] = {
    "string": ["b", "a", "b", None, "c"],
    "integer": [3, 1, 3, None, 8],
    "number": [0.5, -2.0, 0.5, None, 7.25],
    "boolean": [True, False, True, None, False],
    "time": [*_MOMENTS, None],
}


def check_model(model: str) -> LoadedContract:
    """Load a model's contract and check that its Python files define what it names.

    Args:
        model: A model's name, its folder, or the contract's file.

    Raises:
        ContractError: with every problem, if the contract or a Python file is wrong.
        UsageError: if there is no such model.
    """
    loaded = load_contract(model)
    features = load_features(loaded)
    contract = loaded.contract
    for table in contract.tables.values():
        if table.prepare:
            load_model_code(loaded.folder / "prepare.py", table.prepare)
    if wrong := [Problem(place, message) for place, message in _feature_problems(contract, features)]:
        raise ContractError(str(loaded.folder / "features.py"), wrong)
    if problems := list(_contract_problems(contract, features)):
        raise loaded.error(problems)
    return loaded


def load_features(loaded: LoadedContract) -> Features:
    """Return what the model's ``features.py`` defines as ``FEATURES``.

    Raises:
        ContractError: if the file is missing or defines something else.
    """
    path = loaded.folder / "features.py"
    try:
        features = load_model_code(path, "FEATURES")
    except ContractError as error:
        if isinstance(error.__cause__, FeatureError):
            line = error.problems[0].line
            raise ContractError(str(path), [Problem("FEATURES", error.__cause__.message, line)]) from None
        raise
    if not isinstance(features, Features):
        kind = type(features).__name__
        raise ContractError(str(path), [Problem("FEATURES", f"must be Features. Got {kind}.")])
    return features


def _contract_problems(contract: Contract, features: Features) -> Found:
    """What the contract names and ``features.py`` does not make."""
    for name in contract.features.use or []:
        if name not in features.all_names:
            yield "features.use", f"there is no feature {name!r}.{_near(name, features.all_names)}"
    known = [*contract.prediction.inputs, *features.all_names]
    for name in contract.slices:
        if name not in known:
            yield "slices", f"there is no input or feature {name!r}.{_near(name, known)}"
    yield from _privacy_problems(contract, features)


def _privacy_problems(contract: Contract, features: Features) -> Found:
    """Private columns whose value would be recorded all the same, or be missed after a restart."""
    target = contract.prediction.table
    table = contract.tables[target]
    private = {name for name in contract.prediction.inputs if table.columns[name].private}
    readers = {f"the feature {name!r}": made for name, made in features.expressions.items()}
    if features.known_at is not None:
        readers["known_at"] = features.known_at
    for what, expression in readers.items():
        for name in sorted(private & set(expression.meta.root_names())):
            place = f"tables.{target}.columns.{name}.private"
            yield (
                place,
                f"{what} is made of it, and is recorded: make it of something else, or leave this out.",
            )
    for part in features.parts:
        if isinstance(part, History) and part.table == target:
            for name in sorted(private & {*part.by, *table.key}):
                place = f"tables.{target}.columns.{name}.private"
                yield (
                    place,
                    f"the history {part.name!r} learns the outcomes of recorded rows by it: leave one of them out.",
                )


def _feature_problems(contract: Contract, features: Features) -> Found:
    """What ``features.py`` reads and the contract does not have, or not at the time of a prediction."""
    inputs = contract.prediction.inputs
    if features.known_at is not None:
        yield from _unknown_roots("known_at", features.known_at.meta.root_names(), inputs)
    made = [name for part in features.parts for name in part.names]
    for name in sorted(set(made) & set(inputs)):
        yield name, "is an input's name too: give the feature another one."
    for name, expression in features.expressions.items():
        yield from _unknown_roots(f"expressions.{name}", expression.meta.root_names(), [*inputs, *made])
    problems = [problem for part in features.parts for problem in _part_problems(contract, part)]
    yield from problems
    if not problems:
        yield from _dependence_problems(contract, features)


def _dependence_problems(contract: Contract, features: Features) -> Found:
    """Expressions that look at other rows: while serving there are none, while training later ones."""
    rows = _some_rows(contract, features)
    expressions = {f"expressions.{name}": made for name, made in features.expressions.items()}
    if features.known_at is not None:
        expressions["known_at"] = features.known_at
    for place, expression in expressions.items():
        try:
            together = rows.select(pl.all(), expression.alias(_MADE))[_MADE]
            alone = pl.concat(
                row.select(pl.all(), expression.alias(_MADE))[_MADE] for row in rows.iter_slices(1)
            )
        except pl.exceptions.PolarsError:
            continue  # It does not take made-up values; what it does with real ones is seen in the run.
        if not together.equals(alone):
            yield place, "gives a row another value beside other rows: it must look at its own row only."


def _some_rows(contract: Contract, features: Features) -> pl.DataFrame:
    """Make rows of the types of the requests and of what the parts make."""
    kinds: dict[str, ColumnType] = {name: _type_of(contract, name) for name in contract.prediction.inputs}
    for part in features.parts:
        if isinstance(part, History):
            kinds.update(dict.fromkeys(part.names, "number"))
        else:
            columns = contract.tables[part.table].columns
            kinds.update({name: columns[column].type for name, column in part.columns.items()})
    # Strides differ, so that rows that are alike in one column are not in the next.
    made = {
        name: pl.Series([_VALUES[kind][row * (1 + place % 4) % 5] for row in range(10)], dtype=TYPES[kind])
        for place, (name, kind) in enumerate(kinds.items())
    }
    return pl.DataFrame(made)


def _unknown_roots(place: str, roots: Iterable[str], known: list[str]) -> Found:
    for root in dict.fromkeys(roots):
        if root not in known:
            yield place, f"reads {root!r}, which no request brings and no part makes.{_near(root, known)}"


def _part_problems(contract: Contract, part: Part) -> Found:
    place = f"{type(part).__name__} of {part.table}"
    table = contract.tables.get(part.table)
    if table is None:
        yield place, f"there is no table {part.table!r}.{_near(part.table, list(contract.tables))}"
        return
    for column in sorted(part.needs - table.columns.keys()):
        yield place, f"the table has no column {column!r}.{_near(column, list(table.columns))}"
    inputs = {name: _type_of(contract, name) for name in contract.prediction.inputs}
    for column in part.by:
        if column not in inputs:
            yield place, f"is by {column!r}, which no request brings.{_near(column, list(inputs))}"
        elif column in table.columns and table.columns[column].type != inputs[column]:
            found = table.columns[column].type
            yield place, f"is by {column!r}, which is {found} in the table and {inputs[column]} in a request."
    if isinstance(part, (Latest, History)):
        yield from _wrong_type(place, contract, part.table, part.time, ("time",))
    if isinstance(part, History):
        yield from _wrong_type(place, contract, part.table, part.value, ("boolean", "integer", "number"))


def _wrong_type(
    place: str, contract: Contract, table: str, column: str, allowed: tuple[ColumnType, ...]
) -> Found:
    rule = contract.tables[table].columns.get(column)
    if rule and rule.type not in allowed:
        yield place, f"{column!r} must be of type {' or '.join(allowed)}. It is {rule.type}."


def _type_of(contract: Contract, name: str) -> ColumnType:
    return contract.tables[contract.prediction.table].columns[name].type


def _near(name: str, known: list[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else f" There are: {', '.join(known)}."
