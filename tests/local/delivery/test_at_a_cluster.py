"""What is handed to a cluster, and what is done about its answer; kubectl is a script of ours here.

The whole way on a real cluster is ``tests/cluster/serving/test_whole_way.py``. Here stands what it cannot show: every
answer of kubectl's, and several models in one environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from seatrial.cli import main  # noqa: F401 -- it registers the commands
from seatrial.cli.app import run
from seatrial.delivery.apply import apply_manifests, check_manifests
from seatrial.delivery.audit import audit
from seatrial.delivery.declared import BUNDLE_FILE, Declared, bundle_file, patch, read_declared
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import roll_back
from seatrial.errors import ClusterError, ToolError
from seatrial.promotion.environment import EnvironmentFolder, open_environment
from support.harbour import MODEL, Harbour
from support.seldon_manifests import serve_with_seldon

CONTEXT = "some-cluster"
SUPPORT = Path(__file__).parents[2] / "support"
FORBIDDEN = [
    f'{kind} "{name}" is forbidden: User "visitor" cannot patch resource "{kind.partition(".")[0]}" in API group '
    f'"{kind.partition(".")[2]}" in the namespace "staging"'
    for kind, name in (
        ("configmaps", "ferry-bundle"),
        ("deployments.apps", "ferry"),
        ("poddisruptionbudgets.policy", "ferry"),
    )
]
REFUSALS = "\n".join(
    f"""\
Error from server (Forbidden): error when applying patch:
{{"metadata":{{"annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"..."}}}}}}
to:
Resource: "...", GroupVersionKind: "..."
Name: "...", Namespace: "staging"
for: "/tmp/x/staging": error when patching "/tmp/x/staging": {refusal}"""
    for refusal in FORBIDDEN
)


@dataclass(frozen=True)
class Cluster:
    """What the scripted kubectl was given, and what it answers.

    Attributes:
        folder: Where both are kept.
    """

    folder: Path

    def refuse(self, said: str) -> None:
        """Let what is asked first be refused with these words."""
        (self.folder / "refusals").write_text(said)

    def stick(self) -> None:
        """Let no pod come up from now on."""
        (self.folder / "stuck").touch()

    @property
    def asked(self) -> Path:
        """The environment's folder as the cluster was asked about it."""
        return self.folder / "asked"

    @property
    def applied(self) -> Path:
        """The environment's folder as it was applied."""
        return self.folder / "applied"

    def bundle(self, model: str = MODEL) -> str:
        """Return the text by which what was applied names a bundle."""
        return (self.applied / model / BUNDLE_FILE).read_text()

    def models(self) -> list[str]:
        """Return the models that were applied."""
        found: list[str] = yaml.safe_load((self.applied / "kustomization.yaml").read_text())["resources"]
        return found


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A kubectl that takes everything until it is told otherwise."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("no kubectl on PATH; tool-versions.env says which version")
    folder = tmp_path_factory.mktemp("cluster")
    command = folder / "bin" / "kubectl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {SUPPORT / "remembering_kubectl.py"} "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("KUBECTL", kubectl)
    monkeypatch.setenv("KUBECTL_FOLDER", str(folder))
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return Cluster(folder)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command with that cluster's context and return its exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["seatrial", *map(str, arguments), "--context", CONTEXT])
        return run()

    return call


def staging() -> EnvironmentFolder:
    return open_environment("staging")


def merged(harbour: Harbour, to: str) -> None:
    """Prepare a move and merge it."""
    proposal = harbour.propose(to)
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)


def serve_both(harbour: Harbour, command: Callable[..., int]) -> None:
    """Let staging, and its cluster, serve one bundle after the other."""
    for digest in harbour.digests:
        harbour.train(digest)
        merged(harbour, "staging")
        assert command("reconcile", "staging") == 0


def test_what_is_asked_first_is_what_would_be_applied(harbour: Harbour, cluster: Cluster) -> None:
    """The cluster is asked about the folder with the changed files in their places, and nothing is applied."""
    name = patch(MODEL, Declared("a" * 64, 3), in_pods=True).encode()

    check_manifests(staging(), CONTEXT, {bundle_file(staging(), MODEL): name})

    assert (cluster.asked / MODEL / BUNDLE_FILE).read_bytes() == name
    assert (cluster.asked / MODEL / "objects.yaml").is_file()
    assert not cluster.applied.exists()
    assert not bundle_file(staging(), MODEL).exists()


def test_every_right_that_is_missing_is_named(harbour: Harbour, cluster: Cluster) -> None:
    """Of kubectl's many words those are said that tell who may not do what."""
    cluster.refuse(REFUSALS)

    with pytest.raises(ClusterError) as refused:
        check_manifests(staging(), CONTEXT)

    assert refused.value.exit_code == 18
    assert refused.value.message == (
        f"The user of {CONTEXT} may not change staging there: {'; '.join(FORBIDDEN)}"
    )


def test_another_failure_is_kubectls_own(harbour: Harbour, cluster: Cluster) -> None:
    """What is no missing right is said in kubectl's words, and is not called one."""
    cluster.refuse('error: no context exists with the name: "some-cluster"\n')

    with pytest.raises(ToolError, match="no context exists") as failed:
        check_manifests(staging(), CONTEXT)
    assert failed.value.exit_code == 20


def test_without_the_right_nothing_is_moved(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """Neither a promotion nor a roll-back is recorded that the cluster could not be told of."""
    first, second = harbour.digests
    for digest in (first, second):
        harbour.train(digest)
        merged(harbour, "staging")
        cluster.refuse(REFUSALS)
        before = harbour.served("staging")
        assert command("reconcile", "staging") == 18
        assert harbour.served("staging") == before
        cluster.refuse("")
        assert command("reconcile", "staging") == 0
    cluster.refuse(REFUSALS)
    shutil.rmtree(cluster.applied)

    assert command("rollback", MODEL, "--env", "staging") == 18

    assert harbour.served("staging") == second
    assert f"value: {first}" in (cluster.asked / MODEL / BUNDLE_FILE).read_text()
    assert not cluster.applied.exists()


def test_after_a_roll_back_the_cluster_is_ahead_of_git(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """The cluster has what is recorded, so git alone is found to differ until it is told."""
    serve_both(harbour, command)

    assert command("rollback", MODEL, "--env", "staging") == 0

    assert f"value: {harbour.digests[0]}" in cluster.bundle()
    assert [found.what for found in audit("staging", context=CONTEXT).findings] == ["git"]
    harbour.merge(f"rollback/staging/{MODEL}/{harbour.digests[0][:12]}")
    assert audit("staging", context=CONTEXT).findings == []


def test_what_waits_for_an_approval_is_not_applied(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """What is merged and not moved stays out, also when the manifests are applied for another reason; audits say so."""
    production = open_environment("production")
    served: str | None = None
    for digest in harbour.digests:
        harbour.train(digest)
        harbour.deliver("staging")
        merged(harbour, "production")
        in_git = bundle_file(production, MODEL).read_text()
        assert command("reconcile", "production") == 22

        apply_manifests(production, CONTEXT)

        assert (cluster.models(), served) == ([], None) or cluster.bundle() == served
        assert [found.what for found in audit("production", context=CONTEXT).findings] == ["git"]
        assert bundle_file(production, MODEL).read_text() == in_git
        harbour.approve("production", "alice", digest)
        assert command("reconcile", "production") == 0
        assert (cluster.models(), cluster.bundle()) == ([MODEL], in_git)
        assert audit("production", context=CONTEXT).findings == []
        served = in_git


def test_pods_that_do_not_come_up_are_an_error(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Who reconciles hears of it, an audit finds the pods before, and the way back is the same as ever."""
    first, second = harbour.digests
    harbour.train(first)
    merged(harbour, "staging")
    assert command("reconcile", "staging") == 0
    harbour.train(second)
    merged(harbour, "staging")
    cluster.stick()

    assert command("reconcile", "staging") == 18

    assert f"The pods of {MODEL} in staging of {CONTEXT} do not come up" in capsys.readouterr().err
    assert harbour.served("staging") == second
    (found,) = audit("staging", context=CONTEXT).findings
    assert (found.what, found.message.startswith("2 of the pods of ferry in staging")) == ("served", True)
    assert command("reconcile", "staging") == 18
    assert command("rollback", MODEL, "--env", "staging") == 18
    assert harbour.served("staging") == first


def test_a_roll_back_goes_on_when_the_cluster_was_away(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """The same command tells the cluster, then git, and goes back no further than it was meant to."""
    serve_both(harbour, command)
    away = cluster.folder / "away"
    away.touch()
    assert command("rollback", MODEL, "--env", "staging") == 20
    assert harbour.served("staging") == harbour.digests[0]
    assert f"value: {harbour.digests[1]}" in cluster.bundle()
    away.unlink()

    assert command("rollback", MODEL, "--env", "staging") == 0

    assert harbour.served("staging") == harbour.digests[0]
    assert f"value: {harbour.digests[0]}" in cluster.bundle()
    harbour.merge(f"rollback/staging/{MODEL}/{harbour.digests[0][:12]}")
    assert audit("staging", context=CONTEXT).findings == []


def test_one_model_that_is_refused_does_not_keep_another(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """What could be moved is moved and applied; what could not is not applied, and is the command's error."""
    harbour.train(harbour.digests[0])
    merged(harbour, "staging")
    folder = staging().folder
    shutil.copytree(folder / MODEL, folder / "barge")
    (folder / "barge" / BUNDLE_FILE).write_text(patch("barge", Declared("b" * 64, 0), in_pods=True))
    kustomization = folder / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace(f"- {MODEL}\n", f"- barge\n  - {MODEL}\n"))

    assert command("reconcile", "staging") == 10

    assert harbour.served("staging") == harbour.digests[0]
    assert cluster.models() == [MODEL]
    assert f"value: {harbour.digests[0]}" in cluster.bundle()


def with_seldon(harbour: Harbour, serves: str = "digest") -> None:
    """Let staging ask for Seldon's operator, in git."""
    serve_with_seldon(staging().folder / MODEL, serves=serves)
    harbour.git("commit", "--quiet", "--all", "--message", "Served with Seldon's operator")


def serving(cluster: Cluster) -> dict[str, Any]:
    """Return the SeldonDeployment that kubectl makes of what was applied."""
    made = subprocess.run(
        [os.environ["KUBECTL"], "kustomize", cluster.applied], capture_output=True, text=True, check=True
    )
    (found,) = [one for one in yaml.safe_load_all(made.stdout) if one["kind"] == "SeldonDeployment"]
    return found  # type: ignore[no-any-return]


def test_git_names_a_bundle_for_a_seldon_deployment(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """A promotion and the way back are an annotation in git, and reach its pods; audits find no difference."""
    with_seldon(harbour)
    serve_both(harbour, command)
    first, second = harbour.digests

    said = bundle_file(staging(), MODEL).read_text()
    assert "kind: SeldonDeployment" in said
    assert said.count(second) == 1
    assert read_declared(staging(), MODEL) == Declared(second, 2)
    found = serving(cluster)
    (predictor,) = found["spec"]["predictors"]
    (server,) = predictor["componentSpecs"][0]["spec"]["containers"]
    assert found["metadata"]["annotations"]["seatrial.io/bundle"] == second
    assert {"name": "BUNDLE", "value": second} in server["env"]
    assert audit("staging", context=CONTEXT).findings == []

    assert command("rollback", MODEL, "--env", "staging") == 0

    assert f"value: {first}" in yaml.safe_dump(serving(cluster))
    assert [found.what for found in audit("staging", context=CONTEXT).findings] == ["git"]
    harbour.merge(f"rollback/staging/{MODEL}/{first[:12]}")
    assert audit("staging", context=CONTEXT).findings == []


def test_what_differs_in_a_seldon_deployment_is_found(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """Another bundle in its pods, another image, a predictor that somebody added: each is named by its place."""
    with_seldon(harbour)
    serve_both(harbour, command)
    path, bundle = cluster.applied / MODEL / "objects.yaml", cluster.applied / MODEL / BUNDLE_FILE
    objects = list(yaml.safe_load_all(path.read_text()))
    (found,) = [one for one in objects if one["kind"] == "SeldonDeployment"]
    predictors = found["spec"]["predictors"]
    predictors[0]["componentSpecs"][0]["spec"]["containers"][0]["image"] = "another:1"
    predictors.append({**predictors[0], "name": "stranger"})
    path.write_text(yaml.safe_dump_all(objects))
    bundle.write_text(bundle.read_text().replace(harbour.digests[1], harbour.digests[0]))

    said = [(one.what, one.message) for one in audit("staging", context=CONTEXT).findings]

    # The ConfigMap with bundle.yaml is the third of what is not as git says.
    assert [what for what, _ in said] == ["served", "served", "cluster", "cluster", "cluster"]
    text = "\n".join(message for _, message in said)
    assert (
        f"The SeldonDeployment ferry in staging of {CONTEXT} says its annotation {harbour.digests[0][:12]}"
        in text
    )
    assert f"The Deployment ferry-main-0-server in staging of {CONTEXT} says BUNDLE of server" in text
    assert 'spec.predictors.main.componentSpecs.0.spec.containers.server.image is "another:1"' in text
    assert "spec.predictors.stranger is {" in text


def test_pods_of_a_seldon_deployment_that_do_not_come_up_are_an_error(
    harbour: Harbour, cluster: Cluster, command: Callable[..., int]
) -> None:
    """What the operator makes of it is what is waited for, and looked at by an audit."""
    with_seldon(harbour)
    harbour.train(harbour.digests[0])
    merged(harbour, "staging")
    cluster.stick()

    assert command("reconcile", "staging") == 18

    (found,) = audit("staging", context=CONTEXT).findings
    assert found.message.startswith("2 of the pods of ferry-main-0-server in staging")


def test_what_is_applied_has_the_weights_of_the_step(harbour: Harbour, cluster: Cluster) -> None:
    """Manifests that are applied while something is rolled out leave it in its step, and take no pods away at once."""
    harbour.rules("staging", "rollout: {steps: [30], minimum_rows: 1000, minimum_time: 1m}\n")
    with_seldon(harbour, "record")
    for digest in harbour.digests:
        harbour.train(digest)
        merged(harbour, "staging")
        reconcile("staging")

    def applied() -> list[tuple[str, int]]:
        apply_manifests(staging(), CONTEXT)
        return [(one["name"], one["traffic"]) for one in serving(cluster)["spec"]["predictors"]]

    def drifted() -> list[str]:
        return [
            found.message for found in audit("staging", context=CONTEXT).findings if found.what == "cluster"
        ]

    assert applied() == [("main", 100), ("candidate", 0)]
    assert any("predictors.candidate.traffic is 0; by git it is 30" in message for message in drifted())
    assert applied() == [("main", 70), ("candidate", 30)]
    assert audit("staging", context=CONTEXT).findings == []
    (mode,) = {
        volume["configMap"]["defaultMode"]
        for one in serving(cluster)["spec"]["predictors"]
        for volume in one["componentSpecs"][0]["spec"]["volumes"]
        if volume["name"] == "trust-root"
    }
    assert mode == 0o444

    roll_back(MODEL, "staging", reason="test")
    harbour.merge(f"rollback/staging/{MODEL}/{harbour.digests[0][:12]}")

    assert applied() == applied() == [("main", 100), ("candidate", 0)]
    assert [message.partition(" is ")[0] for message in drifted()] == [
        f"SeldonDeployment ferry in staging of {CONTEXT}: spec.predictors.candidate"
    ]
