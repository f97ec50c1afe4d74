"""What each peer does with the features: the same ONNX model, with one thread, as fast as it goes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime


class Scorer:
    """The model whose file is named by ``FLIGHTS_ONNX``."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["FLIGHTS_ONNX"], options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, features: Any) -> Any:
        """Return the probability of each row of a matrix; a missing number may be None or NaN."""
        matrix = np.asarray(features).astype(np.float32)
        return self._session.run(["probabilities"], {"features": matrix})[0][:, 1]
