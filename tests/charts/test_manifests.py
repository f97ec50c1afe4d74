"""What `kubectl apply -k` takes is what the chart makes, and serves the bundle that git names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from seatrial.delivery.declared import Declared, changed_files, read_declared
from seatrial.delivery.keys import add_approver, trust_maker
from seatrial.promotion.environment import EnvironmentFolder, open_environment
from support.charts import Object

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / "manifests" / "environments"
DIGEST = "c0ffee" + "0" * 58
JOB = "flights-roll-out"


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


def write(folder: Path, helm: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a folder of environments."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "write_manifests.py", *options, folder],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HELM": helm},
    )


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


@pytest.fixture
def rolled_out(environments: Path, helm: str) -> Path:
    """Production, which rolls bundles out since now: its objects are rendered anew, and git names a bundle."""
    path = environments / "production" / "environment.yaml"
    path.write_text(path.read_text() + "rollout: {steps: [0, 50], minimum_time: 1m}\n")
    said = write(environments, helm, "--check").stderr
    assert said == "production/flights/objects.yaml is not in step: python tools/write_manifests.py\n"
    assert write(environments, helm).returncode == 0
    assert write(environments, helm, "--check").returncode == 0
    key = environments.parent / "key.pem"
    trust_maker("production", add_approver("production", "alice", key))
    declare(open_environment("production"))
    return environments / "production"


def test_where_bundles_are_rolled_out_servers_follow_the_record(rolled_out: Path) -> None:
    """They are told the environment, whose record says what is tried, and no pod is replaced for what git names."""
    (deployment,) = (found for found in kustomized(rolled_out) if found["kind"] == "Deployment")

    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (waits,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert "--env=production" in container["args"]
    assert not any(argument.startswith("--bundle") for argument in container["args"])
    assert waits["args"] == ["--env=production"]
    assert deployment["metadata"]["annotations"]["seatrial.io/bundle"] == DIGEST
    assert DIGEST not in str(deployment["spec"])


def test_how_git_names_a_bundle_goes_with_the_objects(environments: Path, helm: str) -> None:
    """Where `rollout` is added or taken out again, the bundle that git names leaves the pods, or comes back to them."""
    path = environments / "staging" / "environment.yaml"
    rules, bundle = path.read_text(), environments / "staging" / "flights" / "bundle.yaml"
    declare(open_environment("staging"))
    given = bundle.read_text()

    path.write_text(rules + "rollout: {steps: [0, 50], minimum_time: 1m}\n")
    assert "staging/flights/bundle.yaml is not in step" in write(environments, helm, "--check").stderr
    assert write(environments, helm).returncode == 0
    assert "spec" not in yaml.safe_load(bundle.read_text())
    assert read_declared(open_environment("staging"), "flights") == Declared(DIGEST, 7)

    path.write_text(rules)
    assert write(environments, helm).returncode == 0
    assert bundle.read_text() == given


def with_seldon(folder: Path, helm: str) -> None:
    """Let an environment's flights be served by Seldon's operator, and git name a bundle of them."""
    values = folder / "flights" / "values.yaml"
    values.write_text(f"engine: seldon\n{values.read_text()}")
    assert write(folder.parent, helm).returncode == 0
    declare(open_environment(folder.name))


def seldon_deployment(folder: Path) -> Object:
    """Return the SeldonDeployment of an environment's folder; there is no Deployment beside it."""
    objects = kustomized(folder)
    assert "Deployment" not in {found["kind"] for found in objects}
    (found,) = (found for found in objects if found["kind"] == "SeldonDeployment")
    return found


def test_what_git_names_reaches_a_seldon_deployment(environments: Path, helm: str) -> None:
    """After a promotion its predictor's pods have the digest, and git says it once: in an annotation."""
    folder = environments / "staging"
    with_seldon(folder, helm)
    assert write(environments, helm, "--check").returncode == 0

    found = seldon_deployment(folder)

    (predictor,) = found["spec"]["predictors"]
    (container,) = predictor["componentSpecs"][0]["spec"]["containers"]
    assert found["metadata"]["annotations"] == {"seatrial.io/bundle": DIGEST, "seatrial.io/follows": "7"}
    assert {"name": "BUNDLE", "value": DIGEST} in container["env"]
    assert "--bundle=$(BUNDLE)" in container["args"]
    assert str(found).count(DIGEST) == 2
    assert (folder / "flights" / "bundle.yaml").read_text().count(DIGEST) == 1
    assert read_declared(open_environment("staging"), "flights") == Declared(DIGEST, 7)


def test_a_seldon_deployment_that_follows_the_record_is_left_alone(environments: Path, helm: str) -> None:
    """With `rollout` the same kustomization changes the annotations, and no pod; engine and rules may change in git."""
    path = environments / "staging" / "environment.yaml"
    path.write_text(path.read_text() + "rollout: {steps: [0, 50], minimum_time: 1m}\n")
    with_seldon(environments / "staging", helm)

    found = seldon_deployment(environments / "staging")

    assert found["metadata"]["annotations"]["seatrial.io/bundle"] == DIGEST
    assert DIGEST not in str(found["spec"])
    (binding,) = (one for one in kustomized(environments / "staging") if one["kind"] == "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": JOB, "namespace": "staging"}]
    values = environments / "staging" / "flights" / "values.yaml"
    values.write_text(values.read_text().replace("engine: seldon\n", ""))
    assert "staging/flights/bundle.yaml is not in step" in write(environments, helm, "--check").stderr
    assert write(environments, helm).returncode == 0
    assert "kind: Deployment" in (environments / "staging" / "flights" / "bundle.yaml").read_text()
    assert "Deployment" in {found["kind"] for found in kustomized(environments / "staging")}


def test_where_bundles_are_rolled_out_a_job_leads_on(rolled_out: Path) -> None:
    """The job finds at its mounts all that git says of the environment: it opens it as a clone would."""
    objects = kustomized(rolled_out)

    (job,) = (found for found in objects if found["metadata"]["name"] == JOB and found["kind"] == "CronJob")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["seatrial", "reconcile", "production"]
    assert {"--wait", "--no-git", "--model=flights"} == set(container["args"])
    maps = {made["metadata"]["name"]: made.get("data", {}) for made in objects if made["kind"] == "ConfigMap"}
    names = {volume["name"]: volume.get("configMap", {}).get("name") for volume in pod["volumes"]}
    seen = {}
    for mount in container["volumeMounts"]:
        for key, text in maps.get(names[mount["name"]], {}).items():
            path = mount["mountPath"] if "subPath" in mount else f"{mount['mountPath']}/{key}"
            seen[path.removeprefix("/etc/seatrial/environments/production/")] = text
    kept = ("environment.yaml", "approvers/*.pem", "trusted/*.pem", "flights/bundle.yaml")
    paths = [path for pattern in kept for path in rolled_out.glob(pattern)]
    assert seen == {path.relative_to(rolled_out).as_posix(): path.read_text() for path in paths}
    assert len(seen) == len(kept)


@pytest.mark.parametrize("name", ["test", "staging", "production"])
def test_where_nothing_is_rolled_out_there_is_no_job(environments: Path, name: str) -> None:
    """Neither where training decides nor where a bundle takes all requests at once is there a job."""
    if name != "test":
        declare(open_environment(name))

    assert JOB not in {found["metadata"]["name"] for found in kustomized(environments / name)}
