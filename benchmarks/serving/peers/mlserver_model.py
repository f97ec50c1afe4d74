"""The model for MLServer, as a runtime of its own: it has none for ONNX."""

from __future__ import annotations

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scoring import Scorer


class Flights(MLModel):
    """What MLServer calls for each request."""

    async def load(self) -> bool:
        """Open the model."""
        self._score = Scorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return the probability of each row."""
        probability = self._score(NumpyCodec.decode_input(payload.inputs[0]))
        output = NumpyCodec.encode_output("probability", probability.astype(np.float64))
        return InferenceResponse(model_name=self.name, outputs=[output])
