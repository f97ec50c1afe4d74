"""What git says serves a model, read from the objects that the chart made."""

from __future__ import annotations

from pathlib import Path

import pytest

from seatrial.delivery.declared import OBJECTS_FILE, ServingImage, serving_image
from seatrial.errors import ContractError
from seatrial.images import own_image
from seatrial.promotion.environment import EnvironmentFile, EnvironmentFolder

ROOT = Path(__file__).parents[2]
DEPLOYMENT = """\
kind: Deployment
spec: {template: {spec: {containers: [
  {name: beside, image: another},
  {name: server, image: "ours:1", resources: {limits: {cpu: 500m, memory: 1Gi}}}]}}}
"""


def environment(folder: Path) -> EnvironmentFolder:
    """An environment whose files are in a folder."""
    return EnvironmentFolder(EnvironmentFile(name="staging", workspace="elsewhere"), folder)


def written(folder: Path, objects: str) -> EnvironmentFolder:
    """An environment with one model."""
    path = folder / "ferry" / OBJECTS_FILE
    path.parent.mkdir()
    path.write_text(objects)
    return environment(folder)


def test_of_the_manifests_that_we_ship() -> None:
    """The image of this version, with the memory that the chart allows and no limit of processors."""
    found = serving_image(environment(ROOT / "manifests/environments/staging"), "flights")

    assert found == ServingImage(own_image("server"), None, 768 * 2**20)


def test_limits_are_read_as_kubernetes_reads_them(tmp_path: Path) -> None:
    """Of the container that serves, not of one beside it."""
    found = serving_image(written(tmp_path, DEPLOYMENT), "ferry")

    assert found == ServingImage("ours:1", 0.5, 2**30)


def test_of_a_seldon_deployment_it_is_that_of_the_first_predictor(tmp_path: Path) -> None:
    """Whichever engine runs the pods, the container is found; a candidate beside it is not looked at."""
    pod = DEPLOYMENT.partition("template: ")[2].rpartition("}")[0]
    predictors = [f"{{name: main, componentSpecs: [{pod}]}}", f"{{name: candidate, componentSpecs: [{pod}]}}"]
    objects = f"kind: SeldonDeployment\nspec: {{predictors: [{', '.join(predictors)}]}}\n"

    assert serving_image(written(tmp_path, objects), "ferry") == ServingImage("ours:1", 0.5, 2**30)


@pytest.mark.parametrize(
    "objects",
    [
        "kind: Service",
        DEPLOYMENT + "---\n" + DEPLOYMENT,
        DEPLOYMENT.replace("500m", "much"),
        DEPLOYMENT.replace("name: server", "name: other"),
        "[",
        "- 1",
    ],
)
def test_what_names_no_image_is_refused(tmp_path: Path, objects: str) -> None:
    """The error names the file."""
    with pytest.raises(ContractError, match=OBJECTS_FILE):
        serving_image(written(tmp_path, objects), "ferry")


def test_a_model_that_git_does_not_have(tmp_path: Path) -> None:
    """It cannot be tested in an image."""
    with pytest.raises(ContractError, match="No such file"):
        serving_image(environment(tmp_path), "ferry")
