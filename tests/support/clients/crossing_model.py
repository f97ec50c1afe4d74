"""A model as its user would write it for ``seldon-core-microservice``: the file of a bundle's, asked by its inputs."""

import os
from typing import Any

import numpy as np
import onnxruntime


class Crossing:
    """What the microservice calls for each request."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(os.environ["CROSSING_ONNX"])

    def predict(self, features: Any, names: Any = None, meta: Any = None) -> Any:  # noqa: ARG002 -- its signature
        """Return the probability of each row, and whether it is flagged."""
        matrix = np.asarray(features).astype(np.float32)
        probability = self._session.run(["probabilities"], {"features": matrix})[0][:, 1]
        return np.stack([probability, probability >= float(os.environ["CROSSING_THRESHOLD"])], axis=1)

    def class_names(self) -> list[str]:
        """Return the names of the answer's columns."""
        return ["probability", "flagged"]
