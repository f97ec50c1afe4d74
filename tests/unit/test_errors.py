"""Errors: each says what was wrong and what to do, and has an exit code of its own."""

from __future__ import annotations

from seatrial.errors import ContractError, Problem, SeatrialError


def test_an_error_reads_as_message_and_remedy() -> None:
    """As a text, an error is what was wrong followed by what to do."""
    assert str(SeatrialError("The tank is empty.", remedy="Fill it.")) == "The tank is empty. Fill it."
    assert str(SeatrialError("The tank is empty.")) == "The tank is empty."


def test_problems_are_listed_by_line() -> None:
    """The problems of a contract come in the order of the file, those without a line first."""
    problems = [Problem("b", "is wrong.", 7), Problem("a", "too.", 3), Problem("", "all of it.")]

    assert ContractError("model.yaml", problems).message.splitlines() == [
        "model.yaml: all of it.",
        "model.yaml:3: a: too.",
        "model.yaml:7: b: is wrong.",
    ]
