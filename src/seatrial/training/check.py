"""Check a contract's candidates without data: whether each can be made with what would be tried.

A mistyped estimator or parameter would otherwise be found when training begins, after all data
were ingested, tested and turned into features.
"""

from __future__ import annotations

from typing import Any

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Candidate
from seatrial.errors import SeatrialError
from seatrial.features.encoding import FeatureSchema
from seatrial.training.candidates import make_estimator


def check_candidates(loaded: LoadedContract) -> None:
    """Make every candidate of a contract once, with its fixed parameters and the first of those tuned.

    Args:
        loaded: The model's contract.

    Raises:
        ContractError: with each candidate that cannot be made.
    """
    problems = []
    for place, candidate in enumerate(loaded.contract.candidates):
        try:
            make_estimator(
                candidate,
                FeatureSchema(columns=()),
                loaded.folder,
                parameters=_first_tried(candidate),
                seed=0,
            )
        except SeatrialError as error:
            problems.append((f"candidates.{place}", error.message))
    if problems:
        raise loaded.error(problems)


def _first_tried(candidate: Candidate) -> dict[str, Any]:
    return {
        name: search.choices[0] if search.choices else int(search.low or 0) if search.integer else search.low
        for name, search in candidate.search.items()
    }
