"""Features: one definition that training and serving both call.

:mod:`seatrial.features.definitions` is what a model's ``features.py`` is written in;
:mod:`seatrial.features.batch` computes them for whole tables, :mod:`seatrial.features.online` for
one request, from the same definitions; :mod:`seatrial.features.encoding` makes them the numbers
that an estimator sees. A property test holds batch and online to the same answers.
"""

from seatrial.features.batch import compute_features
from seatrial.features.definitions import Features, History, Latest, Lookup
from seatrial.features.encoding import FeatureColumn, FeatureSchema
from seatrial.features.online import OnlineFeatures

__all__ = [
    "FeatureColumn",
    "FeatureSchema",
    "Features",
    "History",
    "Latest",
    "Lookup",
    "OnlineFeatures",
    "compute_features",
]
