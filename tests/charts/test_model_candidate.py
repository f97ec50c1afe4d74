"""A second predictor beside the first: its share of the requests, or copies of them, by Seldon's operator."""

from __future__ import annotations

import pytest

from seatrial.delivery.predictors import predictors_by_record
from seatrial.promotion import Stage
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


def rolled_out(engine: str) -> list[Object]:
    """Return the objects of a model whose bundles are rolled out."""
    values: Object = {
        "model": "flights",
        "environment": "staging",
        "engine": engine,
        "rollOut": {"enabled": True},
    }
    return parse(template(Case(CHARTS / "model", None), values=values))


def named(objects: list[Object], kind: str, name: str = "trial-roll-out") -> list[Object]:
    """Return the objects of a kind and name."""
    return [found for found in objects if (found["kind"], found["metadata"]["name"]) == (kind, name)]


def test_where_a_job_sets_the_weights_servers_do_not() -> None:
    """The first predictor's servers are told which one they are; the other differs in that, and in its Service."""
    (deployment,) = named(rolled_out("seldon"), "SeldonDeployment", "trial")
    (main,) = deployment["spec"]["predictors"]
    stage = Stage(3, DIGEST, 20)

    first, second = predictors_by_record([main], stage)

    assert first == {**main, "traffic": 80}
    assert (second["name"], second["traffic"]) == ("candidate", 20)
    assert second["annotations"]["seldon.io/svc-name"] == "trial-candidate"
    said = [str(one["componentSpecs"]) for one in (first, second)]
    assert said[0].replace("--predictor=main", "--predictor=candidate") == said[1]
    assert "--predictor=candidate" in said[1]
    assert "--predictor" not in str(named(rolled_out("plain"), "Deployment", "trial"))


def test_the_job_may_set_one_seldon_deployment_and_nothing_else() -> None:
    """It may read and patch that one by its name, and reaches the API; with the engine plain, none of it."""
    objects = rolled_out("seldon")
    (role,), (binding,) = named(objects, "Role"), named(objects, "RoleBinding")
    (job,), (policy,) = named(objects, "CronJob"), named(objects, "NetworkPolicy")

    assert role["rules"] == [
        {
            "apiGroups": ["machinelearning.seldon.io"],
            "resources": ["seldondeployments"],
            "resourceNames": ["trial"],
            "verbs": ["get", "patch"],
        }
    ]
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert [one["name"] for one in binding["subjects"]] == [pod["serviceAccountName"]]
    assert pod["automountServiceAccountToken"] is True
    assert "--in-cluster" in pod["containers"][0]["args"]
    ports = [{"protocol": "TCP", "port": port} for port in (443, 6443)]
    assert {"ports": ports} in policy["spec"]["egress"]
    plain = rolled_out("plain")
    assert named(plain, "Role") == named(plain, "RoleBinding") == []
    (job,), (policy,) = named(plain, "CronJob"), named(plain, "NetworkPolicy")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert "--in-cluster" not in pod["containers"][0]["args"]
    assert {"ports": ports} not in policy["spec"]["egress"]
