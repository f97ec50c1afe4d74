"""A newer bundle takes the place of the old one while requests are answered."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from tests.local.serving.conftest import Ferry, Server, crossings, wait_for

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.promotion import pointer_log

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)


@dataclass
class Traffic:
    """Clients that ask for predictions until they are stopped, and note when which bundle answered."""

    server: Server
    clients: int = 3
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                answer = self.server.infer(ROWS[:3])
            except OSError as error:
                self.failures.append(repr(error))
                continue
            if answer.status != 200:
                self.failures.append(str(answer))
            else:
                self.answers.append((begun, time.monotonic(), answer.content["model_version"]))


def serving(server: Server, digest: str) -> None:
    wait_for(
        lambda: server.get("/v2/models/ferry").content["versions"] == [digest], f"{digest[:12]} to serve"
    )


def test_swaps_drop_no_request(ferry: Ferry) -> None:
    """While bundles take turns no request fails, and each answer names a bundle that was served just then."""
    first, second = ferry.digests
    with ferry.serve() as server, Traffic(server) as traffic:
        spans: list[tuple[float, float, str]] = []
        since = time.monotonic()
        for current, newer in ((first, second), (second, first), (first, second)):
            moved = time.monotonic()
            ferry.promote(newer)
            serving(server, newer)
            # The newer one came into its place at some time between the move and when it was seen there.
            spans.append((since, time.monotonic(), current))
            since = moved
        spans.append((since, float("inf"), second))
        seen = len(traffic.answers)
        wait_for(lambda: len(traffic.answers) > seen + 20, "the last bundle to answer")
    assert traffic.failures == []
    for begun, ended, digest in traffic.answers:
        assert any(begun < until and ended > start for start, until, served in spans if served == digest)
    assert {digest for _, _, digest in traffic.answers} == {first, second}
    assert traffic.answers[-1][2] == second


def test_tampered_bundle_is_refused(ferry: Ferry) -> None:
    """If the newer bundle was tampered with the old one goes on, and the reason is shown until it is mended."""
    first, second = ferry.digests
    path = ferry.root / "bundles" / "sha256" / second / "model.onnx"
    honest = path.read_bytes()
    ferry.promote(second)
    path.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    pointers = pointer_log(ferry.workspace, "local", "ferry")
    assert pointers.last() is not None
    # The server starts with the first bundle: the pointer moves only afterwards.
    moved = ferry.root / "environments" / "local" / "ferry" / "0000000002.json"
    content = moved.read_bytes()
    moved.unlink()
    with ferry.serve() as server, Traffic(server, clients=1) as traffic:
        moved.write_bytes(content)
        wait_for(lambda: server.get("/v2/health/ready").content["refused"] is not None, "the refusal")
        refused = server.get("/v2/models/ferry").content["parameters"]["refused"]
        assert refused["digest"] == second
        assert "model.onnx" in refused["reason"]
        assert server.infer(ROWS[:1]).content["model_version"] == first
        assert "Refused bundle" in server.errors
        path.write_bytes(honest)
        serving(server, second)
        assert server.get("/v2/health/ready").content["refused"] is None
    assert traffic.failures == []


def test_untrusted_or_missing_bundle_is_refused(ferry: Ferry) -> None:
    """A bundle whose key is not trusted any more does not take the place of one that was."""
    first, second = ferry.digests
    with ferry.serve() as server:
        for key in (ferry.root / "keys" / "trusted").iterdir():
            key.unlink()
        (ferry.root / "bundles" / "sha256" / second / "manifest.dsse.json").unlink()
        bundle_pointer(ferry, second)
        wait_for(lambda: server.get("/v2/health/ready").content["refused"] is not None, "the refusal")
        assert server.infer(ROWS[:1]).content["model_version"] == first


def bundle_pointer(ferry: Ferry, digest: str) -> None:
    """Move the pointer as somebody could who writes to the store, past all of promotion's checks."""
    log = pointer_log(ferry.workspace, "local", "ferry")
    last = log.last()
    log.append({"digest": digest}, after=last.number if last else 0)


def test_named_bundle_stays(ferry: Ferry) -> None:
    """With --bundle the named bundle is served, whatever the environment names."""
    first, second = ferry.digests
    with ferry.serve("--bundle", second[:12]) as server:
        assert server.infer(ROWS[:1]).content["model_version"] == second
        bundle = load_bundle(ferry.workspace, second, open_trust_root(ferry.workspace))
        assert bundle.digest != first
