"""A roll-out on a cluster, led by the manifests' own job: clients notice nothing, whichever way it goes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import orjson
import pytest
from tests.cluster.serving.conftest import load
from tests.local.serving.conftest import Ferry

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.delivery.rollout import RollOutState, look
from seatrial.errors import StoreError
from seatrial.feedback.joining import read_comparisons, read_recorded
from seatrial.promotion.pointer import pointer_log, read_pointer
from support.cluster_world import Command, wait_until
from support.harbour import MODEL
from support.odd_candidates import odd_model
from support.three_namespaces import DELIVERER, VISITOR, Namespaces, three_namespaces

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PAUSE = 0.05
"""Seconds between two requests of a thread; there are four."""
PLACE = "production"
PODS = 2
STEPS = [0, 20, 60]
GUARDS = {"maximum_error_share": 0.01, "minimum_agreement": 0.7, "maximum_latency_ratio": 10.0}
"""What both candidates must keep to; the clients repeat a few rows, so one that both bundles flag otherwise is many."""
MINIMUM = 300
"""Rows by which a guard is judged, if it was not lost before."""
BACK = timedelta(seconds=60)
"""What may pass from a guard's trip to the move back: shipping every 5 seconds, looking every 5, on a busy machine."""
SECONDS = 400
MOVED_ON = 14
"""Exit code of a command that git is behind for."""
ASK = f"""
import json, urllib.request
said = json.load(urllib.request.urlopen("http://127.0.0.1:9000/v2/models/{MODEL}"))["parameters"]
print(json.dumps([said["bundle"], said["candidate"]]))
"""
"""What is asked of a server within its pod: which bundle it answers with, and which one it tries."""
Said = dict[str, Any]
Answer = TypeVar("Answer")


def rules(steps: list[int]) -> str:
    """Return what the environment's file says of its roll-outs."""
    said = {"steps": steps, "minimum_rows": MINIMUM, "minimum_time": "5s", "guards": GUARDS}
    return f"rollout: {orjson.dumps(said).decode()}\n"


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Ask the store through kubectl's port-forward, which on a busy machine may need a while to come back."""
    for _ in range(20):
        with contextlib.suppress(StoreError):
            return ask()
        time.sleep(1)
    return ask()


@dataclass(frozen=True)
class Way:
    """An environment that serves a bundle, and two others that may come.

    Attributes:
        made: The namespaces.
        first: What it serves.
        second: One that keeps to the guards.
        failing: One that answers nothing.
    """

    made: Namespaces
    first: str
    second: str
    failing: str

    def pods(self) -> dict[str, int]:
        """Return how often the containers of each of the model's pods were started again, by the pods' identities."""
        return {
            pod["metadata"]["uid"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
            for pod in self.made.pods(PLACE)
        }

    def answer(self, digest: str) -> bool:
        """Return whether every pod answers with a bundle, and tries none."""
        names = [pod["metadata"]["name"] for pod in self.made.pods(PLACE)]
        said = [self.made.worlds[PLACE].run("exec", name, "--", "python", "-c", ASK) for name in names]
        return [json.loads(one) for one in said] == [[digest, None]] * PODS

    def stage(self) -> int | None:
        """Return the weight of the step that is tried, if there is one."""
        stage = patiently(lambda: read_pointer(self.made.harbour.workspace(PLACE), PLACE, MODEL)).stage
        return stage.weight if stage else None

    def begin(self, digest: str, job: str) -> None:
        """Let a bundle be merged and approved, hand it to the cluster, and let the job there begin."""
        approved(self.made, digest)
        self.made.apply(PLACE)
        self.start(job)
        wait_until(lambda: self.stage() is not None, "the job to begin the roll-out", SECONDS)

    def start(self, job: str) -> None:
        """Start the manifests' job now, and not when its schedule says."""
        self.made.worlds[PLACE].run("create", "job", job, f"--from=cronjob/{MODEL}-roll-out")

    def ended(self, job: str, how: str) -> str:
        """Wait until a job has ended so, and return its log."""
        world = self.made.worlds[PLACE]
        world.run(
            "wait", f"--for=condition={how}", f"job/{job}", f"--timeout={SECONDS}s", timeout=SECONDS + 10
        )
        return world.run("logs", f"job/{job}")

    def records(self) -> list[Said]:
        """Return what is recorded of the model, oldest first."""
        log = patiently(lambda: pointer_log(self.made.harbour.workspace(PLACE), PLACE, MODEL))
        assert patiently(log.faults) == []
        return [record.content for record in patiently(log.all)]


def failing_bundle(ferry: Ferry) -> str:
    """Make a bundle that answers nothing, with the inputs of the first one; return its digest."""
    bundle = load_bundle(ferry.workspace, ferry.digests[0], open_trust_root(ferry.workspace))
    model = odd_model("fails", len(bundle.schema.features.columns))
    return ferry.make_bundle(**{"model.onnx": model})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def way(
    kubectl: Command, context: str, ferry: Ferry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Way]:
    """Production serves a first bundle in two pods, and rolls out what comes next; staging has them in its store."""
    first, second = ferry.digests[:2]
    failing = failing_bundle(ferry)
    root = tmp_path_factory.mktemp("rolled-out")
    with (
        contextlib.chdir(root),
        three_namespaces(kubectl, context, ferry, root, {PLACE: rules(STEPS)}) as made,
    ):
        approved(made, first)
        made.seatrial("reconcile", PLACE, "--context", DELIVERER)
        made.settled(PLACE)
        yield Way(made, first, second, failing)


def approved(made: Namespaces, digest: str) -> None:
    """Let a bundle be proposed for production and merged, and a person approve it."""
    made.propose("staging", digest)
    made.propose(PLACE, digest)
    made.seatrial("approve", MODEL, "--env", PLACE, "--key", str(made.harbour.root / "alice.key"))


def account(way: Way, said: Said) -> None:
    """Check that every request was answered, and that each answer is in the tables once."""
    print(f"{said['statuses']} answers, failures: {said['failures'][:3]}")
    assert said["failures"] == []
    assert set(said["statuses"]) == {"200"}
    names: list[str] = said["predictions"]
    assert len(names) == len(set(names))
    wait_until(
        lambda: patiently(partial(_are_recorded, way, set(names))), "the predictions in the tables", SECONDS
    )


def _are_recorded(way: Way, ids: set[str]) -> bool:
    found = read_recorded(way.made.harbour.workspace(PLACE), MODEL).select("prediction_id").collect()
    assert found["prediction_id"].is_unique().all()
    return ids <= set(found["prediction_id"])


def watched(way: Way, until: int | None = None) -> list[RollOutState]:
    """Look at a roll-out until a step begins, or it has ended; return what was seen, and print what a person sees."""
    seen: list[RollOutState] = []
    deadline = time.monotonic() + SECONDS
    while (state := patiently(lambda: look(MODEL, PLACE))) is not None:
        assert time.monotonic() < deadline, seen[-1]
        if state.weight not in [one.weight for one in seen]:
            print(way.made.seatrial("rollout", MODEL, "--env", PLACE))
        seen.append(state)
        if state.weight == until:
            break
        time.sleep(0.5)
    return seen


def test_from_the_shadow_to_all_requests(way: Way) -> None:
    """No request fails, no pod is replaced, and a job that is killed on the way is one that another goes on for."""
    before = way.pods()
    assert len(before) == PODS
    with load(way.made.worlds[PLACE], pause=PAUSE) as clients:
        began = time.time()
        way.begin(way.second, "forward")
        seen = watched(way, until=STEPS[1])
        way.made.worlds[PLACE].run("delete", "job", "forward")
        way.start("again")
        seen += watched(way)
        print(way.ended("again", "complete"))
        wait_until(lambda: way.answer(way.second), "both pods to answer with it", 60)
        clients.goes_on(50)
        said = clients.said

    account(way, said)
    assert said["bundles"] == [way.first, way.second]
    assert said["changes"][-1][1] == way.second
    assert sorted({state.weight for state in seen}) == STEPS
    assert way.pods() == before
    steps = [record for record in way.records() if record["kind"] == "stage"]
    assert [record["weight"] for record in steps] == STEPS
    assert way.made.harbour.served(PLACE) == way.second
    verdicts = way.records()[-1]["guards"]
    print([(verdict["check"], verdict["value"]) for verdict in verdicts])
    assert {verdict["outcome"] for verdict in verdicts} == {"pass"}
    for record in [*steps, way.records()[-1]]:
        at = datetime.fromisoformat(record["at"]).timestamp()
        print(f"{record.get('weight', 100)}% after {at - began:.0f} s")
    print(f"and no other bundle answered {said['changes'][-1][0] - at:.1f} s later")
    way.made.seatrial("audit", PLACE, "--context", VISITOR)


def test_a_guard_takes_it_back(way: Way) -> None:
    """A candidate that answers nothing is asked a third of the requests: none fails, and the job takes it back."""
    served, before = str(way.made.harbour.served(PLACE)), way.pods()
    way.made.harbour.rules(PLACE, rules([30]))
    way.made.harbour.git("commit", "--quiet", "--all", "--message", "A canary at once")
    with load(way.made.worlds[PLACE], pause=PAUSE) as clients:
        way.begin(way.failing, "back")
        watched(way)
        print(way.ended("back", "failed"))
        wait_until(lambda: way.answer(served), "both pods to try nothing any more", 60)
        clients.goes_on(50)
        said = clients.said

    account(way, said)
    assert said["bundles"] == [served]
    assert way.pods() == before
    assert way.made.harbour.served(PLACE) == served
    begun, back = way.records()[-2:]
    assert (begun["kind"], begun["digest"], begun["weight"]) == ("stage", way.failing, 30)
    assert (back["kind"], back["digest"], back["previous"]) == ("roll-back", served, way.failing)
    assert "error_share is 1.0, beyond 0.01" in back["reason"]
    assert "error_share" in [one["check"] for one in back["guards"] if one["outcome"] == "fail"]
    how_long(way, begun, back)
    and_git_is_told(way)


def how_long(way: Way, begun: Said, back: Said) -> None:
    """Print how long it took from the row with which the guard could not be kept any more to the move back."""
    began, moved = (datetime.fromisoformat(record["at"]) for record in (begun, back))
    rows = read_comparisons(way.made.harbour.workspace(PLACE), MODEL).collect()
    failed = rows.filter(rows["candidate"] == way.failing).drop_nulls("error").sort("compared_at")
    tripped = failed["compared_at"][int(GUARDS["maximum_error_share"] * MINIMUM)]
    print(
        f"{failed.height} rows failed; the guard tripped {(tripped - began).total_seconds():.1f} s after the step "
        f"began, and the candidate was taken back {(moved - tripped).total_seconds():.1f} s later"
    )
    assert moved - tripped < BACK


def and_git_is_told(way: Way) -> None:
    """Whoever reconciles in a clone next finds a branch that says so; merged, all agree again."""
    refused = way.made.seatrial("reconcile", PLACE, "--context", DELIVERER, code=MOVED_ON)
    assert f"{PLACE} has moved on to" in refused
    (branch,) = way.made.harbour.git("branch", "--list", f"rollback/{PLACE}/*").split()
    way.made.harbour.merge(branch)
    before = way.pods()
    way.made.seatrial("reconcile", PLACE, "--context", DELIVERER)
    assert way.pods() == before
    way.made.seatrial("audit", PLACE, "--context", VISITOR)
