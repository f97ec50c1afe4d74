"""A server that is held up where it hurts: at the disk while requests wait, and in the middle of an explanation."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.local.serving.conftest import Ferry, wait_for
from tests.local.serving.protocols import BUSY, COLUMNS, OK, PROTOCOLS, send
from tests.local.serving.test_grpc import Calls

from seatrial.bundle import open_trust_root
from seatrial.feedback import FeedbackLog
from seatrial.feedback.recent import RecentPredictions
from seatrial.server.batching import Predictor
from seatrial.server.grpc_server import GrpcServer
from seatrial.server.holder import ModelHolder
from seatrial.server.http import Application
from seatrial.server.http1 import Listener
from seatrial.server.metrics import Metrics
from seatrial.server.model import ServedModel, load_model
from seatrial.server.service import Service


class SlowLog(FeedbackLog):
    """A log whose disk does not answer before it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._going = threading.Event()

    def _write(self, works: Any) -> None:
        self._going.wait()
        super()._write(works)

    def let_go(self) -> None:
        self._going.set()


class Held:
    """A server in a thread of this process, whose parts a test can reach."""

    def __init__(self, ferry: Ferry, log: FeedbackLog, *, waiting: int) -> None:
        workspace = ferry.workspace
        trust = open_trust_root(workspace)
        self.model: ServedModel = load_model(workspace, "ferry", ferry.digests[0], trust)
        self.model.limits = self.model.limits.model_copy(update={"maximum_waiting": waiting})
        recent, metrics = RecentPredictions(), Metrics()
        self.predictor = Predictor(log, recent, metrics)
        holder = ModelHolder(workspace, trust, self.model, None)
        self.service = Service(holder, log, recent, self.predictor, metrics)
        self.address = ""
        self.calls: Any = None

    async def run(self, ready: threading.Event) -> None:
        application = Application(self.service)
        listener = Listener(
            application.handle, application.body_limit, application.too_long, application.malformed
        )
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        speaking = GrpcServer(self.service, "127.0.0.1", 0)
        self.calls = Calls.at(f"127.0.0.1:{speaking.port}")
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        ready.set()
        await asyncio.gather(listener.run(listening, self._stop), speaking.run(self._stop))

    def ask(self, protocol: str) -> Any:
        return send(self, self.calls, protocol, PROTOCOLS[protocol](COLUMNS))  # type: ignore[arg-type]

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)


@contextmanager
def held(ferry: Ferry, log: FeedbackLog, *, waiting: int = 1000) -> Iterator[Held]:
    server, ready = Held(ferry, log, waiting=waiting), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready)))
    thread.start()
    assert ready.wait(60)
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        log.close()


def test_overload_is_told_at_once(trained_ferry: Ferry, tmp_path: Path) -> None:
    """V4: while as many wait as may, one more is refused over every protocol, and those that wait are answered."""
    log = SlowLog(tmp_path / "log")
    with held(trained_ferry, log, waiting=2) as server, ThreadPoolExecutor() as clients:
        waiting = [clients.submit(server.ask, protocol) for protocol in ("v2 json", "seldon grpc")]
        wait_for(lambda: server.predictor.waiting == 2, "two requests to wait for the disk")
        for protocol in PROTOCOLS:
            said = server.ask(protocol)
            assert (said.code, "2 requests wait already" in said.words) == (BUSY, True), (protocol, said)
        assert server.predictor.shed == len(PROTOCOLS)
        assert not [one for one in waiting if one.done()]
        log.let_go()
        assert [one.result(60).code for one in waiting] == [OK, OK]
        assert [server.ask(protocol).code for protocol in PROTOCOLS] == [OK] * len(PROTOCOLS)


def test_explanation_holds_up_no_prediction(
    trained_ferry: Ferry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V12: while one prediction is explained a second gets a 429, and predictions are answered over every protocol."""
    explaining, going, real = threading.Event(), threading.Event(), ServedModel.explain

    def explain(self: ServedModel, row: Any) -> Any:
        explaining.set()
        assert going.wait(120)
        return real(self, row)

    monkeypatch.setattr(ServedModel, "explain", explain)
    with held(trained_ferry, FeedbackLog(tmp_path / "log")) as server, ThreadPoolExecutor() as clients:
        first = clients.submit(server.ask, "explain")
        assert explaining.wait(60)
        said = server.ask("explain")
        assert said.code == BUSY
        assert said.words.startswith("Another prediction is being explained.")
        for protocol in PROTOCOLS:
            assert protocol == "explain" or server.ask(protocol).code == OK
        going.set()
        assert first.result(60).code == OK
        assert server.ask("explain").code == OK
