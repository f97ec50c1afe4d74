"""What the files of a bundle say, and their names."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from seatrial.features.encoding import FeatureSchema

CONTRACT = "model.yaml"
FEATURES = "features.py"
SCHEMA = "schema.json"
ONNX = "model.onnx"
SKOPS = "model.skops"
METRICS = "metrics.json"
VERDICTS = "verdicts.json"
BASELINE = "baseline.json"
BACKGROUND = "background.json"
ENVIRONMENT = "environment.json"
CARD = "card.md"


class InputColumn(BaseModel):
    """One column of a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: Literal["string", "integer", "number", "boolean", "time"]
    required: bool


class BundleSchema(BaseModel):
    """What goes into the model and what comes out.

    Attributes:
        table: Table whose rows are predicted.
        key: Columns of the inputs that name a row.
        inputs: The request's columns, in their order.
        features: The features as the estimator sees them: the columns of the ONNX model's input
            ``features``, of shape (n_rows, n_features), float32.
        label: Name of the label.
        label_time: Column that says when the label became known, if the data have one.
        threshold: Probability from which a row is flagged (inclusive).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    key: tuple[str, ...]
    inputs: tuple[InputColumn, ...]
    features: FeatureSchema
    label: str
    label_time: str | None
    threshold: float
