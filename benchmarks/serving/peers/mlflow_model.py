"""The model for MLflow's server, as a Python model: its own flavour for ONNX returns no output of two columns."""

from __future__ import annotations

from typing import Any

import mlflow
from scoring import Scorer


class Flights(mlflow.pyfunc.PythonModel):
    """What the server calls for each request."""

    def load_context(self, context: Any) -> None:  # noqa: ARG002 -- its signature
        """Open the model."""
        self._score = Scorer()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002 -- as above
        """Return the probability of each row."""
        return self._score(model_input)


mlflow.models.set_model(Flights())
