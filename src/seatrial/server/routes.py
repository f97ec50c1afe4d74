"""The table of what is at which path: requests are routed by it, and the API's description is made from it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from seatrial.server.answers import Answer
from seatrial.server.http1 import Exchange

MODEL = "{model}"
"""Stands for the model's name in a path."""

Handler = Callable[[Exchange], "Answer | Coroutine[Any, Any, Answer] | None"]


def own_error(_status: int, message: str) -> dict[str, Any]:
    """Return the body that says what is wrong, in the form of the Open Inference Protocol."""
    return {"error": message}


@dataclass(frozen=True)
class Route:
    """What is at a path.

    Attributes:
        name: Its name in the metrics.
        paths: The paths, which all mean the same; the first is the one that is described.
        methods: The methods that it takes.
        summary: What it does, as a line.
        handle: Returns the answer, or what will return it, or None if it answers by itself.
        error: Returns the body that says what is wrong, from status and message.
        form: Whether its JSON may also come as the field ``json`` of a form, as some of Seldon's clients send it.
        tensors: Whether binary tensors may follow its JSON.
    """

    name: str
    paths: tuple[str, ...]
    methods: tuple[str, ...]
    summary: str
    handle: Handler
    error: Callable[[int, str], dict[str, Any]] = own_error
    form: bool = False
    tensors: bool = False
