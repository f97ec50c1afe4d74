"""Beside a served model: the jobs that keep its feedback tables small, and the key that hashes private fields."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.feedback.concealing import KEY_VARIABLE
from support.charts import CHARTS, Case, Object, of_kind, parse, pods, template

pytestmark = pytest.mark.usefixtures("helm")

SEATRIAL = str(Path(sys.executable).with_name("seatrial"))
COMMANDS = ("compact", "retain")
SERVED: Object = {"model": "flights", "environment": "staging"}
OFF: Object = {"enabled": False}


def made(**values: object) -> list[Object]:
    """Return what the chart makes for the flights in staging."""
    return parse(template(Case(CHARTS / "model", None), values=SERVED | values))


@pytest.mark.parametrize("engine", ["plain", "seldon"])
def test_a_job_for_each_command(engine: str) -> None:
    """With either engine, each job runs a command that there is, one at a time, by the contract that is served."""
    jobs = {job["metadata"]["name"]: job["spec"] for job in of_kind(made(engine=engine), "CronJob")}

    assert jobs.keys() == {f"trial-{command}" for command in COMMANDS}
    for command in COMMANDS:
        spec = jobs[f"trial-{command}"]
        (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        assert container["command"] == ["seatrial", "feedback", command, "flights"]
        assert container["args"] == ["--env=staging"]
        assert spec["concurrencyPolicy"] == "Forbid"
        shown = subprocess.run(
            [SEATRIAL, *container["command"][1:3], "--help"], capture_output=True, text=True, check=True
        )
        assert "--env" in shown.stdout


def test_no_request_goes_to_a_job() -> None:
    """Neither Service, budget, Deployment nor the policy that lets clients in selects a job's pods."""
    objects = made()
    (labels, *_) = [pod.labels for pod in pods(objects) if pod.kind == "CronJob"]
    (service,), (budget,) = of_kind(objects, "Service"), of_kind(objects, "PodDisruptionBudget")
    (deployment,) = of_kind(objects, "Deployment")
    selectors = [
        service["spec"]["selector"],
        *(one["spec"]["selector"]["matchLabels"] for one in (budget, deployment)),
    ]
    selecting = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]

    assert not any(selector.items() <= labels.items() for selector in selectors)
    (policy,) = selecting
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in policy


@pytest.mark.parametrize("off", COMMANDS)
def test_each_job_can_be_switched_off(off: str) -> None:
    """One is left out by a value, and with both nothing of them is made."""
    left = of_kind(made(upkeep={off: OFF}), "CronJob")

    assert [f"trial-{command}" for command in COMMANDS if command != off] == [
        job["metadata"]["name"] for job in left
    ]
    none = made(upkeep=dict.fromkeys(COMMANDS, OFF))
    assert [
        one for one in none if one["metadata"]["name"] != "trial" and "upkeep" in str(one["metadata"])
    ] == []
    assert of_kind(none, "CronJob") == []


@pytest.mark.parametrize("engine", ["plain", "seldon"])
def test_privacy_key_is_a_file_of_a_secret(engine: str) -> None:
    """The server is told where the key is; no value holds one; a pod of a model that needs none starts without."""
    (pod,) = [pod for pod in pods(made(engine=engine, privacyKeySecret="mine")) if pod.kind != "CronJob"]
    (server,) = pod.spec["containers"]
    (path,) = [variable["value"] for variable in server["env"] if variable["name"] == KEY_VARIABLE]
    (mount,) = [one for one in server["volumeMounts"] if one["mountPath"] == str(Path(path).parent)]
    (volume,) = [one["secret"] for one in pod.spec["volumes"] if one["name"] == mount["name"]]

    assert Path(path).name == "privacy-key"
    assert mount["readOnly"] is True
    assert (volume["secretName"], volume["optional"], volume["defaultMode"]) == ("mine", True, 0o440)
