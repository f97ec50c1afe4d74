"""Pipelines compiled for an environment: what their pods get, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from seatrial.cluster_runs import PIPELINES, compile_for_cluster
from seatrial.errors import UsageError

Compiled = tuple[dict[str, Any], dict[str, Any]]


def executors(name: str, folder: Path, environment: str = "staging") -> Compiled:
    """Compile a pipeline and return its specification, and the settings of each executor."""
    path = folder / f"{name}.yaml"
    compile_for_cluster(name, path, environment)
    specification, platform = yaml.safe_load_all(path.read_text())
    return specification, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module", params=PIPELINES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Each of the pipelines."""
    return executors(request.param, tmp_path_factory.mktemp("compiled"))


def test_every_step_has_its_environment_s_credentials(compiled: Compiled) -> None:
    """Each executor reads the environment's Secret into variables and mounts the keys that it trusts."""
    specification, settings = compiled

    assert settings.keys() == specification["deploymentSpec"]["executors"].keys()
    for setting in settings.values():
        (secret,) = setting["secretAsEnv"]
        assert secret["secretName"] == "environment-staging"
        assert {"AWS_ACCESS_KEY_ID", "SEATRIAL_WORKSPACE"} <= {key["envVar"] for key in secret["keyToEnv"]}
        assert [volume["configMapName"] for volume in setting["configMapAsVolume"]] == ["trust-root-staging"]


def test_only_the_step_that_signs_has_the_signing_key(compiled: Compiled) -> None:
    """The signing key is mounted for ``bundle`` and for nothing else."""
    specification, settings = compiled
    mounted = {label for label, setting in settings.items() if "secretAsVolume" in setting}
    told = {
        label
        for label, executor in specification["deploymentSpec"]["executors"].items()
        if "SEATRIAL_SIGNING_KEY" in {variable["name"] for variable in executor["container"]["env"]}
    }

    assert mounted == told == {"exec-bundle"}
    assert settings["exec-bundle"]["secretAsVolume"][0]["secretName"] == "signing-key-staging"


def test_no_step_is_taken_from_a_cache_or_asks_for_retries(compiled: Compiled) -> None:
    """None takes what an earlier run found for what is true now, and the platform says what is tried again (K1, K6)."""
    specification, _ = compiled
    for component in (specification["root"], *specification["components"].values()):
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            assert not task["cachingOptions"].get("enableCache"), name
            assert "retryPolicy" not in task, name


def test_every_step_asks_for_memory_and_processor(compiled: Compiled) -> None:
    """The scheduler knows what each pod needs, and no pod takes the node's memory."""
    for executor in compiled[0]["deploymentSpec"]["executors"].values():
        assert {"resourceMemoryRequest", "resourceMemoryLimit", "resourceCpuRequest"} == set(
            executor["container"]["resources"]
        )


def test_a_pipeline_is_named_for_its_environment(compiled: Compiled) -> None:
    """Two environments have two pipelines on one page, and a run need not say which it is in."""
    specification, _ = compiled
    parameters = specification["root"]["inputDefinitions"]["parameters"]

    assert specification["pipelineInfo"]["name"] in ("training-staging", "monitoring-staging")
    assert specification["pipelineInfo"]["displayName"].endswith("(staging)")
    assert parameters["environment"]["defaultValue"] == "staging"
    assert all(parameter["description"] for parameter in parameters.values())


def test_the_steps_are_those_of_the_laptop(tmp_path: Path) -> None:
    """Code and image of each step, and what flows between them, are what ``kfp.local`` runs."""
    from seatrial.local_runs import compile_pipeline

    compile_pipeline("training", tmp_path / "plain.yaml")
    text = (tmp_path / "plain.yaml").read_text()
    # The name of a run is a person's on a cluster, and need not be unique; its resource's name is.
    plain = yaml.safe_load(text.replace("pipeline_job_name", "pipeline_job_resource_name"))
    specification, _ = executors("training", tmp_path)
    added = {"env", "resources"}

    for label, executor in plain["deploymentSpec"]["executors"].items():
        container = specification["deploymentSpec"]["executors"][label]["container"]
        assert {key: value for key, value in container.items() if key not in added} == executor["container"]
    for name, task in plain["root"]["dag"]["tasks"].items():
        assert specification["root"]["dag"]["tasks"][name].get("inputs") == task.get("inputs")


@pytest.mark.parametrize("environment", ["", "Test", "a b", "a_b", "../test"])
def test_a_name_that_no_environment_can_have_is_refused(tmp_path: Path, environment: str) -> None:
    """What would be no name of a Secret is refused before anything is compiled."""
    with pytest.raises(UsageError, match="name on a cluster must match"):
        compile_for_cluster("training", tmp_path / "x.yaml", environment)
