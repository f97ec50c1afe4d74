"""Training: from features to a fitted model, the simplest that is good enough.

:mod:`seatrial.training.dataset` builds and splits the rows, :mod:`seatrial.training.candidates`
makes estimators from the contract, :mod:`seatrial.training.tuning` tunes and chooses, and
:mod:`seatrial.training.export` writes the winner as ONNX and skops. Everything random is seeded by
the contract and budgets are counted in trials, so the same data, code and contract give the same
bytes.
"""

from seatrial.training.dataset import Dataset, build_dataset, split_dataset
from seatrial.training.export import (
    load_skops,
    parity,
    predict_probabilities,
    to_onnx,
    to_skops,
)
from seatrial.training.tuning import TrainedModel, train_candidates

__all__ = [
    "Dataset",
    "TrainedModel",
    "build_dataset",
    "load_skops",
    "parity",
    "predict_probabilities",
    "split_dataset",
    "to_onnx",
    "to_skops",
    "train_candidates",
]
