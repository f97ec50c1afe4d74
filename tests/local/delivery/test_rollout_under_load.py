"""A roll-out while clients ask: each request is answered, whatever the candidate does, and a guard takes it back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from tests.local.serving.conftest import Ferry, Server, crossings, wait_for

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollout import RollOutState, advance
from seatrial.feedback.joining import read_comparisons, read_predictions
from seatrial.promotion.pointer import pointer_log
from seatrial.server.candidate import share_of
from support.harbour import MODEL, Harbour
from support.odd_candidates import odd_model

pytestmark = pytest.mark.long

CLIENTS = 3
ROWS = crossings(4, seed=11)
EACH = 3
"""Rows of a request."""
ENOUGH = 150
"""Requests after which what may happen has happened."""


LENIENT = {
    "maximum_error_share": 1.0,
    "minimum_agreement": 0.0,
    "maximum_latency_ratio": 10_000.0,
    "maximum_probability_shift": 1.0,
}
STRICT = {
    "fails": {"maximum_error_share": 0.01},
    "slow": {"maximum_latency_ratio": 3.0},
    "disagrees": {"minimum_agreement": 0.8},
}


class Load:
    """Clients that ask without a pause until they are stopped, each request with an id of its own."""

    def __init__(self, server: Server) -> None:
        self.answers: list[tuple[str, int, str]] = []
        """Of each request its id, the answer's status, and the bundle that answered."""
        self._server = server
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: int) -> None:
        number = 0
        while not self._stopped.is_set():
            number += 1
            name = f"{client}-{number}"
            first = number * EACH % (len(ROWS) - EACH)
            answer = self._server.infer(ROWS[first : first + EACH], id=name)
            digest = str(answer.content.get("model_version", answer.content))
            self.answers.append((name, answer.status, digest))

    def more(self, count: int = ENOUGH) -> list[tuple[str, int, str]]:
        """Wait for so many more answers, and return them."""
        before = len(self.answers)
        wait_for(lambda: len(self.answers) >= before + count, "answers")
        return self.answers[before:]

    def stop(self) -> None:
        """Stop asking, and wait for the last answers."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def staged(harbour: Harbour) -> Harbour:
    """A harbour whose staging serves the first bundle and rolls out what comes next."""
    harbour.train(harbour.digests[0])
    harbour.deliver("staging")
    return harbour


@pytest.fixture
def server(staged: Harbour) -> Iterator[Server]:
    """Staging's server."""
    trust = str(staged.root / "manifests/environments/staging/trusted")
    root = Path(staged.workspace("staging").root)
    options = ["--env", "staging", "--ship-every", "0.2"]
    with Server(root, options, {"SEATRIAL_TRUST": trust}, model=MODEL) as server:
        yield server
        assert "Traceback" not in server.errors


@pytest.fixture
def load(server: Server) -> Iterator[Load]:
    """Clients of staging's server."""
    load = Load(server)
    yield load
    load.stop()


def roll_out(harbour: Harbour, digest: str, rules: str) -> None:
    """Let staging begin to roll a bundle out."""
    harbour.rules("staging", f"rollout: {{minimum_time: 1s, {rules}}}\n")
    harbour.train(digest)
    (begun,) = harbour.deliver("staging")
    assert begun.state == "rolling out"


def tried(server: Server) -> object:
    """Return what the server says of its candidate."""
    return server.get(f"/v2/models/{MODEL}").content["parameters"]["candidate"]


def next_step(weight: int | None) -> RollOutState:
    """Lead the roll-out on until it leaves the step of that weight."""
    found: list[RollOutState] = []

    def left() -> bool:
        found[:] = advance("staging")
        return found[0].state != "rolling out" or found[0].why.startswith("every guard holds: on")

    wait_for(left, f"the end of the step of {weight}%")
    assert found[0].weight == weight, found
    print(found[0].state, found[0].why, [(v.check, v.value) for v in found[0].judged.verdicts])
    return found[0]


def settle(harbour: Harbour) -> None:
    """Merge what git was told of the roll-back, and see that all agree."""
    branches = harbour.git("branch", "--list", f"rollback/staging/{MODEL}/*").split()
    harbour.merge(branches[-1])
    assert [one.state for one in reconcile("staging")] == ["in step"]
    assert audit("staging").findings == []
    assert pointer_log(harbour.workspace("staging"), "staging", MODEL).faults() == []


def test_step_by_step(staged: Harbour, server: Server, load: Load) -> None:
    """From the shadow by canaries to all requests: none fails, and each step asks the candidate its share alone."""
    first, second = staged.digests
    guards = orjson.dumps(LENIENT).decode()
    roll_out(staged, second, f"steps: [0, 20, 60], minimum_rows: 300, guards: {guards}")
    wait_for(lambda: tried(server) is not None, "the candidate")

    shadow = load.more()
    assert next_step(0).state == "rolling out"
    wait_for(lambda: any(digest == second for _, _, digest in load.answers), "the candidate's first answer")
    load.more(2 * CLIENTS)  # What each had asked before.
    canary = load.more()
    assert next_step(20).state == "rolling out"
    assert next_step(60).state == "served"
    wait_for(lambda: load.answers[-1][2] == second, "the second bundle's answers")
    wait_for(lambda: tried(server) is None, "the end of the roll-out")
    load.more(2 * CLIENTS)  # What each had asked before.
    after = load.more()
    load.stop()

    assert {status for _, status, _ in load.answers} == {200}
    assert {digest for _, _, digest in shadow} == {first}
    assert {digest for _, _, digest in after} == {second}
    assert {digest for _, _, digest in canary} == {first, second}
    for name, _, digest in canary:
        assert digest == first or share_of(second, name) < 0.2, name
    assert audit("staging", servers=(server.address,)).findings == []
    records = [record.content for record in pointer_log(staged.workspace("staging"), "staging", MODEL).all()]
    assert [said.get("weight") for said in records if said["kind"] == "stage"] == [0, 20, 60]
    assert [verdict["outcome"] for verdict in records[-1]["guards"]] == ["pass"] * 4
    assert server.stop() == 0
    answered = read_predictions(staged.workspace("staging"), MODEL)
    assert answered.height == len(load.answers) * EACH
    compared = read_comparisons(staged.workspace("staging"), MODEL).collect()
    assert compared["prediction_id"].is_unique().all()
    print(f"{len(load.answers)} requests, {compared.height} rows of the candidate")


@pytest.mark.parametrize(
    ("kind", "guard"), [("fails", "error_share"), ("slow", "latency_ratio"), ("disagrees", "agreement")]
)
def test_a_guard_takes_it_back(staged: Harbour, server: Server, load: Load, kind: str, guard: str) -> None:
    """A candidate that goes wrong with a third of the requests harms none of them, and serves no more."""
    first = staged.digests[0]
    workspace = staged.workspace("test")
    bundle = load_bundle(workspace, first, open_trust_root(workspace))
    ferry = Ferry(staged.root / "models" / MODEL, staged.root / ".seatrial")
    candidate = ferry.make_bundle(**{"model.onnx": odd_model(kind, len(bundle.schema.features.columns))})
    guards = orjson.dumps(LENIENT | STRICT[kind]).decode()
    roll_out(staged, candidate, f"steps: [30], minimum_rows: 300, guards: {guards}")
    wait_for(lambda: tried(server) is not None, "the candidate")

    back = next_step(30)
    moved = time.monotonic()
    wait_for(lambda: tried(server) is None, "the end of the roll-out")
    seconds = time.monotonic() - moved
    load.more(2 * CLIENTS)  # What each had asked before.
    after = load.more()
    load.stop()

    assert back.state == "rolled back"
    assert guard in [verdict.check for verdict in back.judged.failed]
    assert {status for _, status, _ in load.answers} == {200}
    assert {digest for _, _, digest in after} == {first}
    answered = {digest for _, _, digest in load.answers}
    assert answered == ({first} if kind == "fails" else {first, candidate})
    assert staged.served("staging") == first
    settle(staged)
    print(
        f"{kind}: {len(load.answers)} requests, {back.judged.rows} rows judged, back within {seconds:.2f} s"
    )
