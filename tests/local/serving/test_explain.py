"""Explanations of one prediction, and the description of the API."""

from __future__ import annotations

import http.client
import re
from contextlib import closing
from datetime import UTC, datetime

import numpy as np
import pytest
from tests.local.serving.conftest import Ferry, crossings, infer_body

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.feedback import read_predictions
from seatrial.server.explaining import explain_row, read_background

pytestmark = pytest.mark.usefixtures("measured_processes")

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)


def test_contributions_are_exact_where_the_model_adds_up() -> None:
    """Of a model that is a sum, each feature's contribution is its weight times its distance from the background."""
    random = np.random.default_rng(3)
    weights, row = np.array([0.5, -0.25, 0.0]), np.array([1.0, 2.0, 3.0], dtype=np.float32)
    background = random.normal(size=(1, 3)).astype(np.float32)
    found = explain_row(row, background, ["a", "b", "c"], lambda rows: (rows @ weights).astype(np.float32))
    expected = weights * (row - background[0])
    np.testing.assert_allclose(list(found.contributions.values()), expected, atol=1e-5)
    assert found.base == pytest.approx(float((background @ weights)[0]), abs=1e-5)


def test_features_that_act_alike_share() -> None:
    """Of a product, features with the same role get the same, and all add up to the whole difference."""
    row, background = np.ones(3, dtype=np.float32), np.zeros((4, 3), dtype=np.float32)
    found = explain_row(row, background, ["a", "b", "c"], lambda rows: rows[:, 0] * rows[:, 1])
    first, second, none = found.contributions.values()
    assert first + second == pytest.approx(1.0)
    assert first == pytest.approx(0.5)  # An order and its reverse have each of the two last, once.
    assert (none, found.base) == (0.0, 0.0)


def test_explains_a_prediction(ferry: Ferry) -> None:
    """One row is predicted, written down as any, and its probability is the base and what the features added."""
    with ferry.serve() as server:
        body = infer_body(ROWS[:1], id="mine")
        answer = server.post("/v2/models/ferry/explain", body)
        assert answer.status == 200, server.errors
        again = server.post("/v2/models/ferry/explain", body).content
        several = server.post("/v2/models/ferry/explain", infer_body(ROWS[:2]))
        assert server.stop() == 0
    found = answer.content
    bundle = load_bundle(ferry.workspace, ferry.digests[0], open_trust_root(ferry.workspace))
    assert list(found["contributions"]) == bundle.schema.features.names
    assert sum(found["contributions"].values()) + found["base"] == pytest.approx(found["probability"])
    assert again["contributions"] == found["contributions"]
    assert read_background(bundle).shape == (50, len(bundle.schema.features.names))
    assert several.status == 413
    kept = read_predictions(ferry.workspace, "ferry").filter(prediction_id=found["prediction_id"])
    assert kept["probability"].to_list() == [found["probability"]]


def test_bundle_without_background_says_so(ferry: Ferry) -> None:
    """A bundle that has no background rows answers predictions, and says why it explains none."""
    ferry.promote(ferry.make_bundle(seed=3, **{"background.json": b"{}"}))
    with ferry.serve() as server:
        answer = server.post("/v2/models/ferry/explain", infer_body(ROWS[:1]))
        assert (answer.status, server.infer(ROWS[:1]).status) == (404, 200)
    assert "background.json of bundle" in answer.content["error"]


def test_describes_its_api(ferry: Ferry) -> None:
    """The description names paths that are there, and the page fetches nothing from elsewhere."""
    with ferry.serve() as server:
        described = server.get("/openapi.json").content
        assert described["openapi"] == "3.1.0"
        assert "/v2/models/ferry/infer" in described["paths"]
        for path, operations in described["paths"].items():
            for method in operations:
                with closing(
                    http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
                ) as connection:
                    connection.request(method.upper(), path)
                    assert connection.getresponse().status == (200 if method == "get" else 400), path
        with closing(
            http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
        ) as connection:
            connection.request("GET", "/docs")
            page = connection.getresponse().read().decode()
        assert "/v2/models/ferry/explain" in page
        assert not re.search(r"src=|https?://", page)
