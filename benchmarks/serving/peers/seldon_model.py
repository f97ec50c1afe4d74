"""The model for seldon-core-microservice."""

from __future__ import annotations

from typing import Any

from scoring import Scorer


class Flights:
    """What the microservice calls for each request."""

    def __init__(self) -> None:
        self._score = Scorer()

    def predict(self, features: Any, names: Any = None, meta: Any = None) -> Any:  # noqa: ARG002 -- its signature
        """Return the probability of each row."""
        return self._score(features)
