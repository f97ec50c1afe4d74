"""Records of a feedback log, made without a server."""

from __future__ import annotations

import numpy as np

from seatrial.feedback.rows import ComparisonRecord, OutcomeRecord, PredictionRecord

NOW = 1_700_000_000_000_000
"""An instant in microseconds since 1970."""


def prediction(*ids: str, known_at: int | None = NOW) -> bytes:
    """Return a logged record of predictions with these ids."""
    count = len(ids)
    return PredictionRecord(
        prediction_id=list(ids),
        request_id=["the client's own"] * count,
        client=["10.0.0.7"] * count,
        served_at=NOW,
        latency_microseconds=[250] * count,
        known_at=[known_at] * count,
        bundle="d" * 64,
        key=['["a"]'] * count,
        inputs=['{"line":"north"}'] * count,
        features=np.array([[1.5, np.nan, -1]] * count, dtype=np.float32),
        probability=[0.25] * count,
        flagged=[False] * count,
    ).to_bytes()


def outcome(name: str, value: float, occurred_at: int = NOW, received_at: int = NOW) -> bytes:
    """Return a logged record of one outcome; times are microseconds since 1970."""
    return OutcomeRecord([name], [value], [occurred_at], received_at).to_bytes()


def comparison(*ids: str) -> bytes:
    """Return a logged record of what a candidate said beside the predictions with these ids."""
    count = len(ids)
    return ComparisonRecord(
        prediction_id=list(ids),
        compared_at=NOW,
        stage=3,
        bundle="d" * 64,
        candidate="e" * 64,
        probability=[0.25] * count,
        candidate_probability=[0.5] * count,
        flagged=[False] * count,
        candidate_flagged=[True] * count,
        microseconds=200,
        candidate_microseconds=250,
        error=None,
    ).to_bytes()
