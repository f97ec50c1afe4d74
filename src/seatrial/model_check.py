"""Check a model's contract together with its Python files, before anything runs."""

from __future__ import annotations

import difflib

from seatrial.contract.load import LoadedContract, load_contract
from seatrial.errors import ContractError, FeatureError, Problem
from seatrial.features.definitions import Features
from seatrial.model_code import load_model_code


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
    problems: list[tuple[str, str]] = []
    for name in contract.features.use or []:
        if name not in features.all_names:
            problems.append(
                ("features.use", f"there is no feature {name!r}.{_near(name, features.all_names)}")
            )
    for name in contract.slices:
        if name not in (known := [*contract.prediction.inputs, *features.all_names]):
            problems.append(("slices", f"there is no input or feature {name!r}.{_near(name, known)}"))
    for table, columns in features.tables.items():
        if table not in contract.tables:
            problems.append(
                ("tables", f"features.py reads a table {table!r}.{_near(table, list(contract.tables))}")
            )
            continue
        for column in sorted(columns - set(contract.tables[table].columns)):
            there = list(contract.tables[table].columns)
            problems.append(
                (f"tables.{table}.columns", f"features.py reads a column {column!r}.{_near(column, there)}")
            )
    for name, table_ in contract.tables.items():
        if table_.prepare:
            load_model_code(loaded.folder / "prepare.py", table_.prepare)
    if problems:
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
            raise ContractError(str(path), [Problem("FEATURES", error.__cause__.message)]) from None
        raise
    if not isinstance(features, Features):
        raise ContractError(
            str(path), [Problem("FEATURES", f"must be Features. Got {type(features).__name__}.")]
        )
    return features


def _near(name: str, known: list[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {found[0]!r}?" if found else f" There are: {', '.join(known)}."
