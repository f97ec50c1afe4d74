"""What is served is what the bundle says, on a hundred thousand rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from tests.local.serving.conftest import Ferry, Server, crossings, outputs

from seatrial.bundle import load_bundle, open_trust_root

pytestmark = pytest.mark.long

ROWS = 100_000
SIZES = (1, 3, 17, 100, 128, 129)
"""Rows of the requests in turn: computed alone, with others, and in parts."""
CLIENTS = 8


def asked() -> list[list[dict[str, Any]]]:
    """Return the rows, request by request."""
    rows = [row for seed in range(10, 45) for row in crossings(31, seed=seed)][:ROWS]
    requests, first, sizes = [], 0, cycle(SIZES)
    while first < len(rows):
        size = next(sizes)
        requests.append(rows[first : first + size])
        first += size
    return requests


def test_served_predictions_are_the_bundle_s(ferry: Ferry) -> None:
    """Of 100,000 rows, asked by eight clients at once, each has the probability that the bundle's model gives to it.

    The bundle's are computed in one go, from features of the whole table: another way through the code than
    the server's.
    """
    requests = asked()
    bundle = load_bundle(ferry.workspace, ferry.digests[0], open_trust_root(ferry.workspace))
    features = ferry.features_of([row for rows in requests for row in rows])
    matrix = bundle.schema.features.encode(features)
    (expected,) = bundle.session(threads=1).run(["probabilities"], {"features": matrix})

    def ask(server: Server, rows: list[dict[str, Any]]) -> list[float]:
        found: list[float] = outputs(server.infer(rows))["probability"]
        return found

    with ferry.serve() as server, ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda rows: ask(server, rows), requests))
        assert server.stop() == 0
    served = np.array([value for answer in answers for value in answer])

    assert len(served) == ROWS
    np.testing.assert_allclose(served, expected[:, 1], rtol=0, atol=1e-6)
