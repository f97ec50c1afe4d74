"""Why a row got its probability: what each feature added to it, against the bundle's background rows.

The contributions are Shapley values, estimated by sampling: a feature is put in place of a background row's, one after
the other in a random order, and each change of the probability belongs to the feature that made it (Castro, Gómez and
Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009; with a row of the data for the features
that are not in place yet, Štrumbelj and Kononenko, "Explaining prediction models and individual predictions with
feature contributions", 2014). Each order is also walked backwards, which takes out most of the noise. The changes of a
walk add up to its whole difference, so the contributions add up, whatever the noise, to the probability less ``base``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.bundle import Bundle
from seatrial.bundle.content import BACKGROUND
from seatrial.errors import BundleError

WALKS = 128
"""Orders of the features that are walked, half of them backwards."""
_SEED = 0


@dataclass(frozen=True)
class Explanation:
    """What made up a probability.

    Attributes:
        base: Mean probability of the background rows that were walked from.
        contributions: What each feature added to it, by its name.
    """

    base: float
    contributions: dict[str, float]


def read_background(bundle: Bundle) -> NDArray[np.float32]:
    """Return the encoded rows that a bundle is explained against, of shape (n_rows, n_features).

    Raises:
        BundleError: if the bundle has none that fit its features.
    """
    names = bundle.schema.features.names
    content: Any = bundle.json(BACKGROUND)
    fits = isinstance(content, dict) and content.get("columns") == names and content.get("rows")
    if not fits:
        raise BundleError(
            f"{BACKGROUND} of bundle {bundle.digest[:12]} must have rows of {', '.join(names)}."
        )
    rows = np.array(content["rows"], dtype=np.float64)  # What is missing, None, becomes NaN.
    return rows.astype(np.float32).reshape(len(rows), len(names))


def explain_row(
    row: NDArray[np.float32],
    background: NDArray[np.float32],
    names: list[str],
    probability: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Explanation:
    """Explain one row; the same row gets the same answer.

    Args:
        row: The encoded row, of shape (n_features,).
        background: Rows to explain it against, of shape (n_rows, n_features).
        names: The features' names.
        probability: Returns the model's probability of each of many encoded rows.
    """
    random = np.random.default_rng(_SEED)
    added = np.zeros(len(names))
    starts = 0.0
    for _ in range(WALKS // 2):
        order, begin = random.permutation(len(names)), background[random.integers(len(background))]
        for walked in (order, order[::-1]):
            path = np.repeat(begin[np.newaxis], len(names) + 1, axis=0)
            for step, feature in enumerate(walked, 1):
                path[step:, feature] = row[feature]
            values = probability(path).astype(np.float64)
            added[walked] += np.diff(values)
            starts += float(values[0])
    contributions = (added / WALKS).tolist()
    return Explanation(starts / WALKS, dict(zip(names, contributions, strict=True)))
