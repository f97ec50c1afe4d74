"""A second predictor beside the first: its share of the requests, or copies of them, by Seldon's operator."""

from __future__ import annotations

import pytest

from support.charts import CHARTS, Case, Object, parse, template

pytestmark = pytest.mark.usefixtures("helm")

DIGEST = "c0ffee" + "0" * 58


def predictors(candidate: Object) -> dict[str, Object]:
    """Return the predictors of a SeldonDeployment with a candidate, by their names."""
    values: Object = {
        "model": "flights",
        "environment": "staging",
        "engine": "seldon",
        "candidate": candidate,
    }
    objects = parse(template(Case(CHARTS / "model", None), values=values))
    (deployment,) = [found for found in objects if found["kind"] == "SeldonDeployment"]
    return {found["name"]: found for found in deployment["spec"]["predictors"]}


@pytest.mark.parametrize(
    ("shadow", "traffic"), [(False, {"main": 80, "candidate": 20}), (True, {"main": 100, "candidate": 20})]
)
def test_a_canary_gets_a_share_and_a_shadow_copies(shadow: bool, traffic: dict[str, int]) -> None:
    """As a canary both shares make a hundred; beside a shadow the first predictor answers all requests."""
    found = predictors({"digest": DIGEST, "shadow": shadow, "trafficPercent": 20})

    assert {name: one["traffic"] for name, one in found.items()} == traffic
    assert {name: one.get("shadow", False) for name, one in found.items()} == {
        "main": False,
        "candidate": shadow,
    }


def test_without_a_candidate_there_is_one_predictor() -> None:
    """It answers all requests, whatever the values say of a candidate that is not there."""
    found = predictors({"digest": "", "shadow": True, "trafficPercent": 20})

    assert {name: one["traffic"] for name, one in found.items()} == {"main": 100}
    assert "shadow" not in found["main"]
