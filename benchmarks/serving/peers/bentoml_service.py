"""The model for BentoML."""

from __future__ import annotations

import bentoml
import numpy as np
from scoring import Scorer


@bentoml.service(workers=1)
class Flights:
    """What BentoML calls for each request."""

    def __init__(self) -> None:
        self._score = Scorer()

    @bentoml.api
    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probability of each row."""
        return self._score(features)  # type: ignore[no-any-return]
