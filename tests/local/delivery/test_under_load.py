"""A promotion and a roll-back while clients ask: each request is answered, by the one bundle or the other."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from tests.local.serving.conftest import Server, crossings, wait_for

from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import roll_back
from support.harbour import MODEL, Harbour

pytestmark = pytest.mark.long

CLIENTS = 3
ROWS = crossings(1, seed=11)[:3]


class Load:
    """Clients that ask without a pause until they are stopped."""

    def __init__(self, server: Server) -> None:
        self.answers: Counter[tuple[int, str]] = Counter()
        self.latest = ""
        self._server = server
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            answer = self._server.infer(ROWS)
            digest = str(answer.content.get("model_version", answer.content))
            with self._lock:
                self.answers[answer.status, digest] += 1
                self.latest = digest

    def stop(self) -> None:
        """Stop asking, and wait for the last answers."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def test_no_request_is_dropped(harbour: Harbour) -> None:
    """A server that follows staging goes to the newer bundle and back, and answers every request with 200."""
    first, second = harbour.digests
    harbour.train(first)
    harbour.deliver("staging")
    harbour.train(second)
    proposal = harbour.propose("staging")
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)
    trust = str(harbour.root / "manifests/environments/staging/trusted")
    root = Path(harbour.workspace("staging").root)

    with Server(root, ["--env", "staging"], {"SEATRIAL_TRUST": trust}, model=MODEL) as server:
        load = Load(server)
        try:
            wait_for(lambda: load.latest == first, "the first bundle's answers", 60)
            reconcile("staging")
            wait_for(lambda: load.latest == second, "the second bundle's answers", 60)
            roll_back(MODEL, "staging", reason="test")
            wait_for(lambda: load.latest == first, "the first bundle's answers again", 60)
        finally:
            load.stop()

    print(f"{sum(load.answers.values())} answers: {dict(load.answers)}")
    assert set(load.answers) == {(200, first), (200, second)}
