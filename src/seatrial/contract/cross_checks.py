"""What pydantic cannot see: whether the sections of a contract fit each other.

Every problem is found in one pass, so that a contract is corrected once and not once a problem.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from seatrial.contract.schema import RESERVED, Contract, Table


def cross_checks(contract: Contract) -> Iterator[tuple[str, str]]:
    """Yield what is wrong between the contract's own sections.

    Args:
        contract: A contract of which each section is right by itself.

    Yields:
        Pairs of a dotted path and a message.
    """
    for name, table in contract.tables.items():
        is_target = name == contract.prediction.table
        yield from _table_checks(name, table, contract.prediction.inputs if is_target else [])
    yield from _target_checks(contract)
    yield from _split_checks(contract)
    if contract.gates.worst_slice and not contract.slices:
        yield "gates.worst_slice", "needs slices to judge: name inputs or features under slices."
    yield from _repeated("candidates", [candidate.name for candidate in contract.candidates])
    for place, candidate in enumerate(contract.candidates):
        for name in sorted(candidate.parameters.keys() & candidate.search.keys()):
            yield f"candidates.{place}.search.{name}", "is fixed under parameters already: leave one out."


def _table_checks(name: str, table: Table, recorded: list[str]) -> Iterator[tuple[str, str]]:
    named = [(f"tables.{name}.key", key) for key in table.key]
    if table.time:
        named.append((f"tables.{name}.time", table.time))
        timed = table.columns.get(table.time)
        if timed and timed.type != "time":
            yield f"tables.{name}.time", f"column {table.time!r} must be of type time. Got {timed.type}."
    yield from _unknown_columns(named, list(table.columns), f"table {name!r}")
    yield from _repeated(f"tables.{name}.key", table.key)
    for column_name in sorted(table.columns.keys() & RESERVED):
        yield (
            f"tables.{name}.columns.{column_name}",
            "this name is reserved: rename the column in prepare.py.",
        )
    for column_name, column in table.columns.items():
        if column.private and column_name not in recorded:
            yield (
                f"tables.{name}.columns.{column_name}.private",
                "is for columns that a request brings (prediction.inputs): no other is recorded.",
            )
    if table.freshness and not table.time:
        yield f"tables.{name}.freshness", "needs the table's time."


def _target_checks(contract: Contract) -> Iterator[tuple[str, str]]:
    target, label = contract.tables.get(contract.prediction.table), contract.label
    if target is None:
        known = ", ".join(contract.tables)
        message = f"must be one of the tables ({known}). Got {contract.prediction.table!r}."
        yield "prediction.table", message
        return
    named = [("prediction.inputs", column) for column in contract.prediction.inputs]
    named.append(("label.column", label.column))
    if label.time:
        named.append(("label.time", label.time))
    yield from _unknown_columns(named, list(target.columns), f"table {contract.prediction.table!r}")
    yield from _repeated("prediction.inputs", contract.prediction.inputs)
    yield from _label_checks(contract, target)
    if missing := [key for key in target.key if key not in contract.prediction.inputs]:
        message = f"must hold the table's key, by which an outcome finds its row: add {', '.join(missing)}."
        yield "prediction.inputs", message


def _label_checks(contract: Contract, target: Table) -> Iterator[tuple[str, str]]:
    label = contract.label
    for place, name in (("label.column", label.column), ("label.time", label.time)):
        if name in contract.prediction.inputs:
            message = f"{name!r} ({place}) is not known at the time of a prediction: take it out."
            yield "prediction.inputs", message
    column = target.columns.get(label.column)
    if column and column.type not in ("boolean", "integer"):
        message = f"column {label.column!r} must be boolean, or integer 0 and 1. Got {column.type}."
        yield "label.column", message
    if column and column.type == "integer" and (column.minimum, column.maximum) != (0, 1):
        message = f"column {label.column!r} is an integer: give it minimum: 0 and maximum: 1."
        yield "label.column", message
    known = target.columns.get(label.time or "")
    if known and known.type != "time":
        yield "label.time", f"column {label.time!r} must be of type time. Got {known.type}."


def _split_checks(contract: Contract) -> Iterator[tuple[str, str]]:
    split, target = contract.split, contract.tables.get(contract.prediction.table)
    for place, span in (("validation", split.validation), ("test", split.test)):
        if target and not target.time and not isinstance(span, float):
            message = (
                f"must be a share of the rows, such as 0.2: table {contract.prediction.table!r} has no time."
            )
            yield f"split.{place}", message


def _repeated(place: str, names: list[str]) -> Iterator[tuple[str, str]]:
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield place, f"{name!r} is there twice."


def _unknown_columns(
    named: list[tuple[str, str]], columns: list[str], where: str
) -> Iterator[tuple[str, str]]:
    for place, column in named:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" It has: {', '.join(columns)}."
            yield place, f"{where} has no column {column!r}.{hint}"
