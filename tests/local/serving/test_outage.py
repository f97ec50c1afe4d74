"""The object store goes away for long, the log fills up, and the store comes back."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.local.serving.conftest import Ferry, Server, crossings, outputs, wait_for

from support.stoppable_store import BUCKET, StoppableStore

pytestmark = pytest.mark.long

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
BOUND = 120_000
PREFIX = "outage"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoppableStore]:
    made = StoppableStore(tmp_path / "store")
    made.start()
    yield made
    made.kill()


def serve(ferry: Ferry, store: StoppableStore, when_full: str) -> Server:
    """Serve a bundle whose contract bounds the log, from a workspace in the store."""
    contract = ferry.folder / "model.yaml"
    contract.write_text(
        f"{contract.read_text()}feedback: {{maximum_log_bytes: {BOUND}, when_full: {when_full}}}\n"
    )
    ferry.promote(ferry.make_bundle(seed=3))
    store.upload(ferry.root, PREFIX)
    environment = {**store.settings, "SEATRIAL_TRUST": str(ferry.root / "keys" / "trusted")}
    log = ("--log-folder", str(ferry.root.parent / "log"))
    return Server(
        ferry.root, [*log, "--ship-every", "0.2", "--workspace", f"s3://{BUCKET}/{PREFIX}"], environment
    )


def stored(store: StoppableStore) -> list[str]:
    """Return the ids that the table in the store has, read without our own code."""
    uri = f"s3://{BUCKET}/{PREFIX}/tables/ferry/feedback/predictions"
    frame = pl.scan_delta(uri, storage_options=store.settings).select("prediction_id").collect()
    return sorted(frame["prediction_id"])


def figure(server: Server, name: str) -> float:
    """Return one of the server's figures."""
    with closing(
        http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    ) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def ask_until_full(server: Server, when_full: str) -> tuple[list[str], list[Any]]:
    """Ask until the log takes no more; return the ids that were answered, and what was answered then."""
    names: list[str] = []
    for _ in range(200):
        answer = server.infer(ROWS[:20])
        if answer.status != 200:
            return names, [answer.status, answer.content, answer.headers]
        found = outputs(answer)["prediction_id"]
        if when_full == "shed" and figure(server, "seatrial_log_unrecorded_rows_total"):
            return names, found
        names += found
    raise AssertionError("the log was never full")


@pytest.mark.parametrize("when_full", ["refuse", "shed"])
def test_a_long_outage_fills_the_log_and_loses_nothing(
    ferry: Ferry, store: StoppableStore, when_full: str
) -> None:
    """The log keeps the oldest up to its bound, refuses or sheds the rest, and ships all when the store is back."""
    with serve(ferry, store, when_full) as server:
        before = outputs(server.infer(ROWS[:5]))["prediction_id"]
        wait_for(lambda: figure(server, "seatrial_log_bytes") == 0, "the first ones to be shipped", 120)
        store.kill()
        names, beyond = ask_until_full(server, when_full)
        assert 20 <= len(names) < 4_000
        assert BOUND / 2 < figure(server, "seatrial_log_bytes") <= BOUND + 10_000
        outcome = server.feedback({"prediction_id": names[0], "value": True})
        held = sum(path.stat().st_size for path in (ferry.root.parent / "log").glob("*.segment"))
        assert held < BOUND + 200_000  # With the room ahead, and the seals.
        if when_full == "refuse":
            status, content, headers = beyond
            assert (status, headers["retry-after"]) == (503, "1")
            assert "is full: it may hold 120,000 bytes" in content["error"]
            assert figure(server, "seatrial_log_unrecorded_rows_total") == 0
        else:
            assert len(beyond) == 20
            assert figure(server, "seatrial_log_unrecorded_rows_total") == 20
        assert server.get("/v2/health/ready").status == 200

        store.start()
        wait_for(lambda: figure(server, "seatrial_log_bytes") < BOUND / 2, "the log to be shipped", 240)
        names += outputs(server.infer(ROWS[:20]))["prediction_id"]
        assert server.stop() == 0
    assert outcome.status in (200, 503)
    assert stored(store) == sorted([*before, *names])
