"""What `kubectl apply -k` takes is what the chart makes, and serves the bundle that git names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from seatrial.delivery.declared import Declared, changed_files
from seatrial.promotion.environment import EnvironmentFolder, open_environment
from support.charts import Object

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "manifests" / "environments"
DIGEST = "c0ffee" + "0" * 58


def test_manifests_and_chart_are_in_step(helm: str) -> None:
    """The rendered objects in git are those that the chart makes of the values beside them."""
    found = subprocess.run(
        [sys.executable, ROOT / "tools" / "write_manifests.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HELM": helm},
    )

    assert (found.returncode, found.stderr) == (0, "")


def kustomized(folder: Path) -> list[Object]:
    """Return what kubectl makes of an environment's folder; skips where there is no kubectl."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("no kubectl on PATH; tool-versions.env says which version")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture
def environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the environments, which is the one that is looked at."""
    folder = tmp_path / "environments"
    shutil.copytree(ENVIRONMENTS, folder)
    monkeypatch.setenv("SEATRIAL_ENVIRONMENTS", str(folder))
    return folder


def declare(environment: EnvironmentFolder) -> None:
    """Let git name a bundle of the flights."""
    for path, content in changed_files(environment, "flights", Declared(DIGEST, 7)).items():
        path.write_bytes(content)


@pytest.mark.parametrize("name", ["staging", "production"])
def test_what_git_names_is_served(environments: Path, name: str) -> None:
    """After a promotion the Deployment has the bundle's digest at every place, and nothing else changed."""
    environment = open_environment(name)
    declare(environment)

    objects = {found["kind"]: found for found in kustomized(environment.folder)}

    deployment = objects["Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {found["metadata"]["namespace"] for found in objects.values()} == {name}
    assert deployment["metadata"]["annotations"] == {"seatrial.io/bundle": DIGEST, "seatrial.io/follows": "7"}
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["seatrial.io/bundle"] == DIGEST
    assert {key for key in annotations if key.startswith("seatrial.io/")} == {"seatrial.io/bundle"}
    assert {"name": "BUNDLE", "value": DIGEST} in container["env"]
    assert [variable["name"] for variable in container["env"]].count("BUNDLE") == 1
    assert "--bundle=$(BUNDLE)" in container["args"]
    assert {"Service", "NetworkPolicy", "PersistentVolumeClaim", "ServiceAccount", "ConfigMap"} <= set(
        objects
    )


def test_before_the_first_promotion_nothing_is_served(environments: Path) -> None:
    """An environment without a bundle has no Deployment: no digest of zeros is ever rolled out."""
    for name in ("staging", "production"):
        assert {found["kind"] for found in kustomized(environments / name)} == {"ConfigMap"}


def test_test_follows_its_pointer(environments: Path) -> None:
    """Where training decides, the server follows the environment, and git names no bundle."""
    (deployment,) = (found for found in kustomized(environments / "test") if found["kind"] == "Deployment")

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--env=test" in container["args"]
