"""What is known of a compiled pipeline before it is sent: its version's name, its parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.cluster.kubeflow import content_digest, cron_of, description, parameters, pipeline_name
from seatrial.cluster_runs import compile_for_cluster
from seatrial.errors import UsageError
from seatrial.local_runs import compile_pipeline

PACKAGE = """\
# PIPELINE DEFINITION
pipelineInfo: {name: training-test, displayName: Train a model}
root:
  inputDefinitions:
    parameters:
      model: {parameterType: STRING, description: Name of the model.}
      as_of: {parameterType: STRING, defaultValue: "", isOptional: true}
      draw: {parameterType: BOOLEAN, isOptional: true}
      trials: {parameterType: NUMBER_INTEGER, isOptional: true}
      rate: {parameterType: NUMBER_DOUBLE, isOptional: true}
      names: {parameterType: LIST, isOptional: true}
---
platforms: {kubernetes: {deploymentSpec: {}}}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(PACKAGE)
    return path


def test_the_digest_is_of_what_is_said(package: Path, tmp_path: Path) -> None:
    """The order of keys and the comments do not count; a changed value, also in the second document, does."""
    other, changed = tmp_path / "other.yaml", tmp_path / "changed.yaml"
    other.write_text(
        PACKAGE.replace("# PIPELINE DEFINITION\n", "").replace(
            "{name: training-test, displayName: Train a model}",
            "{displayName: Train a model, name: training-test}",
        )
    )
    changed.write_text(PACKAGE.replace("deploymentSpec: {}", "deploymentSpec: {executors: {}}"))

    assert content_digest(package) == content_digest(other)
    assert content_digest(package) != content_digest(changed)


def test_a_pipeline_compiles_to_the_same_digest_twice(tmp_path: Path) -> None:
    """So the same pipeline is uploaded once."""
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    compile_pipeline("training", first)
    compile_pipeline("training", second)

    assert content_digest(first) == content_digest(second)
    assert pipeline_name(first) == "training"


def test_parameters_get_the_types_that_the_pipeline_declares(package: Path) -> None:
    """Text becomes booleans, numbers and lists where the pipeline says so; a value may contain an equals sign."""
    given = ["model=a=b", "draw=False", "trials=3", "rate=0.5", 'names=["x"]']

    assert parameters(package, given) == {
        "model": "a=b",
        "draw": False,
        "trials": 3,
        "rate": 0.5,
        "names": ["x"],
    }


def test_all_wrong_parameters_are_told_at_once(package: Path) -> None:
    """Unknown, missing, and of the wrong type: one error names all, and what there is."""
    with pytest.raises(UsageError) as error:
        parameters(package, ["modle=flights", "draw=perhaps", "trials=many"])

    assert "'modle=flights' is no key=value" in error.value.message
    assert "draw must be of type BOOLEAN, got 'perhaps'" in error.value.message
    assert "trials must be of type NUMBER_INTEGER, got 'many'" in error.value.message
    assert "model is missing" in error.value.message
    assert "model: Name of the model." in error.value.remedy


def test_cron_gets_its_seconds() -> None:
    """Five fields as in a crontab get the seconds that Kubeflow Pipelines wants; six stay; others are refused."""
    assert cron_of("0 6 * * *") == "0 0 6 * * *"
    assert cron_of("30 0 6 * * *") == "30 0 6 * * *"
    with pytest.raises(UsageError, match="5 fields"):
        cron_of("daily")


def test_what_the_page_shows_explains_each_parameter(tmp_path: Path) -> None:
    """The description has what the pipeline does, and of every parameter what it means and what it usually is."""
    package = tmp_path / "training.yaml"
    compile_for_cluster("training", package, "test")

    text = description(package)

    assert text.startswith("Train a model on all data that has arrived")
    assert "- **model**: Name of the model, whose contract is in the image." in text
    assert "Usually `test`." in text
    assert text.count("\n- **") == len(parameters(package, ["model=flights"])) + 3
