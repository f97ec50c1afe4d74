"""A process that forbids unpickling and then loads the models of a bundle: ``skops ONNX``."""

import sys
from pathlib import Path

import numpy as np

from seatrial.bundle import forbid_unpickling
from seatrial.training import load_skops


def main() -> None:
    """Load both and print what they answer to the same row."""
    import onnxruntime

    forbid_unpickling()
    estimator = load_skops(Path(sys.argv[1]).read_bytes())
    session = onnxruntime.InferenceSession(Path(sys.argv[2]).read_bytes(), providers=["CPUExecutionProvider"])
    row = np.ones((1, 3), dtype=np.float32)
    print(float(estimator.predict_proba(row)[0, 1]))
    print(float(session.run(["probabilities"], {"features": row})[0][0, 1]))


if __name__ == "__main__":
    main()
