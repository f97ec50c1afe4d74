"""Estimators from the contract's candidates."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seatrial.contract.schema import Candidate
from seatrial.errors import TrainingError
from seatrial.features.encoding import FeatureSchema
from seatrial.model_code import load_model_code


def make_estimator(
    candidate: Candidate, schema: FeatureSchema, folder: Path, *, parameters: dict[str, Any], seed: int
) -> Any:
    """Make a candidate's estimator over the encoded features.

    Args:
        candidate: The candidate in the contract.
        schema: The features, as they are encoded.
        folder: The model's folder, for a function of its own.
        parameters: Tuned parameters; they go before the fixed ones.
        seed: Seed of the estimator, if it takes one.

    Returns:
        An unfitted scikit-learn estimator whose input is a float32 matrix of shape
        (n_rows, n_features).

    Raises:
        TrainingError: if the class does not exist or refuses the parameters.
    """
    made = _factory(candidate, folder)
    arguments = {**candidate.parameters, **parameters}
    if "random_state" in inspect.signature(made).parameters:
        arguments.setdefault("random_state", seed)
    try:
        estimator = made(**arguments)
    except TypeError as error:
        raise TrainingError(f"The candidate {candidate.name!r} cannot be made: {error}.") from None
    if candidate.encoding == "ordinal":
        return estimator
    return _with_one_hot(estimator, schema)


def import_estimators(candidates: Sequence[Candidate], folder: Path) -> None:
    """Import what the candidates are made by, in one thread: two that import one library at once can see it half made.

    Args:
        candidates: The candidates in the contract.
        folder: The model's folder, for functions of its own.

    Raises:
        TrainingError: if a class does not exist.
    """
    import optuna  # noqa: F401 -- what tunes them
    import sklearn.compose
    import sklearn.impute
    import sklearn.pipeline
    import sklearn.preprocessing  # noqa: F401 -- what encodes for them

    for candidate in candidates:
        _factory(candidate, folder)


def _factory(candidate: Candidate, folder: Path) -> Any:
    if ".py:" in candidate.estimator:
        file, _, function = candidate.estimator.partition(":")
        return load_model_code(folder / file, function)
    module, _, name = candidate.estimator.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise TrainingError(
            f"The candidate {candidate.name!r} names an estimator that scikit-learn does not have: "
            f"{candidate.estimator}."
        ) from None


def _with_one_hot(estimator: Any, schema: FeatureSchema) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    columns = [
        ("categories", OneHotEncoder(handle_unknown="ignore"), schema.category_places),
        ("numbers", numbers, schema.number_places),
    ]
    return make_pipeline(ColumnTransformer([c for c in columns if c[2]]), estimator)
