"""A roll-out by the weights of a SeldonDeployment's predictors; the cluster's API is a part of it that we wrote.

That Seldon's operator turns these weights into a mesh's is ``tests/cluster/serving/test_seldon_rollout.py``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.local.delivery.conftest import Cli, Pod
from tests.local.serving.conftest import wait_for

from seatrial import kubernetes_api
from seatrial.delivery.predictors import OF_CANDIDATE, OF_MAIN, Predictors, next_predictors
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollout import RollOutState, advance
from seatrial.errors import ClusterError
from seatrial.kubernetes_api import Kubernetes
from seatrial.promotion import Stage
from seatrial.promotion.environment import open_environment
from seatrial.promotion.pointer import read_pointer
from support.harbour import MODEL, Harbour
from support.killed_delivery import record_comparisons
from support.seldon_api import SeldonApi, Shares, seldon_api
from support.seldon_manifests import serve_with_seldon

CONTEXT = "some-cluster"
ALONE: Shares = [("main", 100, False)]
UNASKED: Shares = [("main", 100, False), ("candidate", 0, False)]
SHADOW: Shares = [("main", 100, False), ("candidate", 100, True)]
CANARY: Shares = [("main", 50, False), ("candidate", 50, False)]
THE_WAY = [SHADOW, CANARY, UNASKED, ALONE]


class Killed(BaseException):
    """What is raised where a process would be gone."""


@pytest.fixture
def by_seldon(rolling: Harbour) -> Harbour:
    """Staging's pods are those of a SeldonDeployment, which git names; the second bundle is to be rolled out."""
    serve_with_seldon(staging(), serves="record")
    bundle = staging() / "bundle.yaml"
    told = bundle.read_text().split("spec:\n")[0]
    told = told.replace("kind: Deployment", "kind: SeldonDeployment")
    bundle.write_text(told.replace("apps/v1", "machinelearning.seldon.io/v1"))
    rolling.git("commit", "--quiet", "--all", "--message", "Served with Seldon's operator")
    return rolling


@pytest.fixture
def api(
    by_seldon: Harbour, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SeldonApi]:
    """The API of a cluster that has the SeldonDeployment; a pod reaches it as who reads the kubeconfig does."""
    from kubernetes.config import kube_config

    kubeconfig = tmp_path_factory.mktemp("api") / "kubeconfig"
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.setattr(kubernetes_api, "Kubernetes", lambda context: Kubernetes(context or CONTEXT))
    with seldon_api(kubeconfig, CONTEXT) as made:
        objects = yaml.safe_load_all((staging() / "objects.yaml").read_text())
        made.put("staging", next(found for found in objects if found["kind"] == "SeldonDeployment"))
        yield made


def staging() -> Path:
    """Return the folder of the model in git."""
    return open_environment("staging").folder / MODEL


def predictors() -> Predictors:
    """Return the predictors as who sees the cluster has them."""
    return Predictors(open_environment("staging"), Kubernetes(CONTEXT))


@contextlib.contextmanager
def recorded(harbour: Harbour, *, fails_at: int | None = None) -> Iterator[None]:
    """Record what servers would of each step that begins within the block; in one of a weight, the candidate fails."""
    stop, seen = threading.Event(), set()
    workspace = harbour.workspace("staging")

    def record() -> None:
        while not stop.wait(0.05):
            stage = read_pointer(workspace, "staging", MODEL).stage
            if stage is not None and stage.number not in seen:
                seen.add(stage.number)
                record_comparisons(workspace, stage, failed=stage.weight == fails_at)

    thread = threading.Thread(target=record)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def job(cli: Cli) -> tuple[int, str, str]:
    """Run what the manifests' job runs, looking more often."""
    return cli("reconcile", "staging", "--model", MODEL, "--wait", "--no-git", "--in-cluster", "--every", 0.2)


def test_the_weights_follow_the_steps(by_seldon: Harbour, api: SeldonApi, pod: Pod, cli: Cli) -> None:
    """From copies by a half of the requests to all: the candidate's predictor is gone only when nobody asks it."""
    main = api.only()["spec"]["predictors"][0]
    with pod(by_seldon), recorded(by_seldon):
        code, out, err = job(cli)

    assert (code, err) == (0, "")
    assert api.history == THE_WAY
    assert by_seldon.served("staging") == by_seldon.digests[1]
    assert api.only()["spec"]["predictors"] == [main]
    shown = [line.strip() for line in out.splitlines() if f"staging {MODEL}: " in line]
    assert shown[0] == f"✓ staging {MODEL}: main 100%, candidate copies"
    assert shown[1] == f"✓ staging {MODEL}: main 50%, candidate 50%"


@pytest.mark.parametrize(("fails_at", "way"), [(0, [SHADOW, ALONE]), (50, THE_WAY)])
def test_a_guard_puts_the_weights_back(
    by_seldon: Harbour, api: SeldonApi, pod: Pod, cli: Cli, fails_at: int, way: list[Shares]
) -> None:
    """Out of the shadow and out of the canary: what serves gets all requests, then the candidate's predictor goes."""
    with pod(by_seldon), recorded(by_seldon, fails_at=fails_at):
        code, _, err = job(cli)

    assert code == 9
    assert "error_share is 1.0" in err
    assert api.history == way
    assert by_seldon.served("staging") == by_seldon.digests[0]


def test_the_other_predictor_is_the_same_pods_with_another_word(by_seldon: Harbour, api: SeldonApi) -> None:
    """Its servers are told that they are the candidate's, and its Service has another name; nothing else differs."""
    reconcile("staging")
    predictors().follow([MODEL])

    main, candidate = api.only()["spec"]["predictors"]
    assert candidate["annotations"] == {
        "seldon.io/no-engine": "true",
        "seldon.io/svc-name": f"{MODEL}-candidate",
    }
    assert str(main["componentSpecs"]).replace(OF_MAIN, OF_CANDIDATE) == str(candidate["componentSpecs"])
    assert OF_CANDIDATE in str(candidate["componentSpecs"])


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(len(THE_WAY)))
def test_a_job_that_is_killed_at_a_change_is_made_up_for(
    by_seldon: Harbour,
    api: SeldonApi,
    pod: Pod,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    call: int,
    after: bool,
) -> None:
    """Whichever change it was killed at, before or after it was made, the next job goes on; none is made twice."""
    left, real = [call], Kubernetes.patch

    def killing(self: Kubernetes, path: str, change: dict[str, Any]) -> bool:
        left[0] -= 1
        if left[0] == -1 and not after:
            raise Killed
        made = real(self, path, change)
        if left[0] == -1:
            raise Killed
        return made

    with pod(by_seldon), recorded(by_seldon):
        with monkeypatch.context() as within:
            within.setattr(Kubernetes, "patch", killing)
            assert "Killed" in job(cli)[2]
        code, _, err = job(cli)

    assert (code, err) == (0, "")
    assert api.history == THE_WAY
    assert by_seldon.served("staging") == by_seldon.digests[1]


@pytest.mark.parametrize("refused", [False, True])
def test_a_job_that_git_is_behind_for_puts_the_weights_back(
    by_seldon: Harbour, api: SeldonApi, pod: Pod, cli: Cli, refused: bool
) -> None:
    """After one that was killed between roll-back and weights, the next is refused, and sets them all the same."""
    with pod(by_seldon):
        reconcile("staging")
        predictors().follow([MODEL])
        record_comparisons(by_seldon.workspace("staging"), stage(by_seldon), failed=True)
        assert advance("staging", git=False, see=predictors().see)[0].state == "rolled back"
        assert api.shares() == SHADOW
        api.refuse = 403 if refused else 0
        code, _, err = job(cli)

    assert code == (18 if refused else 14), err
    assert api.shares() == (SHADOW if refused else ALONE)


def stage(harbour: Harbour) -> Stage:
    """Return the step of the roll-out."""
    found = read_pointer(harbour.workspace("staging"), "staging", MODEL).stage
    assert found is not None
    return found


def looked(seen: list[RollOutState], found: Predictors | None = None) -> str:
    """Look once, as the job does; return what the roll-out does, or waits for."""
    found = found or predictors()
    found.follow([MODEL])
    seen.extend(advance("staging", see=found.see))
    return seen[-1].why


def test_without_its_pods_no_step_is_over(by_seldon: Harbour, api: SeldonApi) -> None:
    """The step lasts until they are there, though guards hold; one that trips does not wait."""
    api.pods_come = False
    reconcile("staging")
    record_comparisons(by_seldon.workspace("staging"), stage(by_seldon), failed=False)
    seen: list[RollOutState] = []
    wait_for(lambda: "waits for the predictors" in looked(seen), "the guards to hold")
    assert {state.weight for state in seen} == {0}

    api.pods_come = True
    api.operate()
    wait_for(lambda: "on to 50%" in looked(seen), "the next step")
    assert api.shares() == SHADOW

    record_comparisons(by_seldon.workspace("staging"), stage(by_seldon), failed=True)
    looked(seen)
    assert seen[-1].state == "rolled back"


def test_without_its_pods_a_canary_is_not_asked(by_seldon: Harbour, api: SeldonApi) -> None:
    """One that is asked without a shadow before is there without requests until a pod of it answers."""
    by_seldon.rules("staging", "rollout: {steps: [50], minimum_rows: 1000, minimum_time: 1s}\n")
    api.pods_come = False
    reconcile("staging")
    seen: list[RollOutState] = []
    for _ in range(3):
        looked(seen)
    assert api.history == [UNASKED]

    api.pods_come = True
    api.operate()
    looked(seen)

    assert api.history == [UNASKED, CANARY]


@pytest.mark.parametrize("asked", [True, False], ids=["in the canary", "on the way to it"])
def test_a_canary_whose_pods_are_gone_is_taken_back(by_seldon: Harbour, api: SeldonApi, asked: bool) -> None:
    """The mesh has nobody to give their share to, so no guard is waited for; before it asks them, pods may come."""
    by_seldon.rules("staging", "rollout: {steps: [50], minimum_rows: 1000, minimum_time: 1s}\n")
    reconcile("staging")
    job, seen = predictors(), list[RollOutState]()
    looked(seen, job)
    assert api.shares() == UNASKED
    job.follow([MODEL])
    if asked:
        looked(seen, job)
    api.lose("candidate")
    why = looked(seen, job)

    if not asked:
        assert "waits for the predictors" in why or "of 1,000 rows" in why
        assert api.shares() == CANARY
        return
    assert (seen[-1].state, why) == (
        "rolled back",
        "none of its pods answers, and 50% of the requests are theirs",
    )
    job.follow([MODEL])
    assert api.history == [UNASKED, CANARY, ALONE]
    assert by_seldon.served("staging") == by_seldon.digests[0]


def test_who_does_not_see_the_cluster_leads_no_step_on(by_seldon: Harbour, cli: Cli) -> None:
    """In a clone without a context a roll-out is begun, and taken back; its steps wait for who can set the weights."""
    assert cli("reconcile", "staging")[0] == 0
    record_comparisons(by_seldon.workspace("staging"), stage(by_seldon), failed=False)

    def waits() -> bool:
        return "waits for somebody who sees the cluster" in cli("reconcile", "staging")[1]

    wait_for(waits, "the guards to hold")
    assert stage(by_seldon).weight == 0


def test_what_somebody_changed_meanwhile_is_kept(
    by_seldon: Harbour, api: SeldonApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are set in what was read and in nothing else: another image that was applied in between stays."""
    reconcile("staging")
    real = Kubernetes.patch

    def beside(self: Kubernetes, path: str, change: dict[str, Any]) -> bool:
        api.only()["metadata"]["resourceVersion"] = "7"
        api.only()["spec"]["predictors"][0]["componentSpecs"][0]["spec"]["containers"][0]["image"] = "newer:1"
        return real(self, path, change)

    with monkeypatch.context() as within:
        within.setattr(Kubernetes, "patch", beside)
        (said,) = predictors().follow([MODEL])
    assert said == f"{MODEL}: its SeldonDeployment has changed meanwhile"
    assert api.shares() == ALONE

    predictors().follow([MODEL])

    assert api.shares() == SHADOW
    assert {
        one["componentSpecs"][0]["spec"]["containers"][0]["image"] for one in api.only()["spec"]["predictors"]
    } == {"newer:1"}


def test_a_cluster_that_refuses_is_said(by_seldon: Harbour, api: SeldonApi) -> None:
    """A job without the right says so, with what it wanted to change."""
    reconcile("staging")
    api.refuse = 403

    with pytest.raises(ClusterError, match="403, PATCH .*seldondeployments/ferry"):
        predictors().follow([MODEL])


@pytest.mark.parametrize("servers", ["themselves", "by a mesh"])
def test_only_where_servers_leave_it_to_a_mesh_are_predictors_set(servers: str) -> None:
    """Where servers split the requests themselves, what a person made of predictors stays as it is."""
    args = [OF_MAIN] if servers == "by a mesh" else []
    pods = [{"spec": {"containers": [{"name": "server", "args": args}]}}]
    now = [{"name": name, "traffic": 50, "componentSpecs": pods} for name in ("main", "candidate")]

    assert (next_predictors(now, None) == now) == (servers == "themselves")
    assert (next_predictors(now, Stage(1, "d", 20)) == now) == (servers == "themselves")
