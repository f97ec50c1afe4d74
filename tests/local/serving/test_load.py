"""Many requests at once: answered together, counted, kept with who asked, and refused when they are too many."""

from __future__ import annotations

import asyncio
import http.client
import re
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.local.serving.conftest import Ferry, Server, crossings, infer_body, outputs

from seatrial.bundle import open_trust_root
from seatrial.errors import FeedbackError, RequestError
from seatrial.feedback import FeedbackLog, read_predictions
from seatrial.feedback.log import Terms
from seatrial.feedback.recent import RecentPredictions
from seatrial.feedback.segments import scan
from seatrial.server.batching import Answered, Predictor
from seatrial.server.metrics import Metrics
from seatrial.server.model import ServedModel, load_model

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)


def figures(server: Server) -> dict[str, float]:
    """Return what the server tells Prometheus."""
    with closing(
        http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    ) as connection:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert str(answer.getheader("content-type")).startswith("text/plain; version=0.0.4")
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_figures_count_what_was_answered(ferry: Ferry) -> None:
    """Requests, refusals, outcomes and rows are counted; no label is anything that a client sent."""
    with ferry.serve() as server:
        (name,) = outputs(server.infer(ROWS[:1]))["prediction_id"]
        server.infer(ROWS[:3])
        server.post("/v2/models/ferry/infer", b"{}")
        server.get("/a/path/of/the/clients/own")
        server.feedback({"prediction_id": name, "value": True})
        found = figures(server)
    assert found['seatrial_requests_total{endpoint="infer",status="200"}'] == 2
    assert found['seatrial_requests_total{endpoint="infer",status="400"}'] == 1
    assert found['seatrial_requests_total{endpoint="none",status="404"}'] == 1
    assert found['seatrial_outcomes_total{status="accepted"}'] == 1
    assert found["seatrial_probability_count"] == 4
    assert found['seatrial_request_seconds_count{endpoint="infer"}'] == 2
    assert found["seatrial_waiting_requests"] == 0
    assert found[f'seatrial_model_info{{bundle="{ferry.digests[0]}",name="ferry"}}'] == 1
    assert found["seatrial_log_bytes"] > 0
    assert found["seatrial_log_unrecorded_rows_total"] == 0
    assert found["process_resident_memory_bytes"] > 2**20
    assert not [name for name in found if re.search("clients/own", name)]


def test_who_asked_is_kept_and_harmless(ferry: Ferry) -> None:
    """A prediction has its client's word for itself, short and printable, or else the client's address."""
    body = infer_body(ROWS[:1])
    names = {"till-7 (north)": "till-7 (north)", "x" * 500: "x" * 100, "caf\xe9\ttab": "caf%E9%09tab"}
    with ferry.serve() as server:
        told = {
            outputs(server.post("/v2/models/ferry/infer", body, seatrial_client=sent))["prediction_id"][
                0
            ]: kept
            for sent, kept in names.items()
        }
        told |= {outputs(server.infer(ROWS[:1]))["prediction_id"][0]: "127.0.0.1"}
        assert server.stop() == 0
    rows = read_predictions(ferry.workspace, "ferry").select("prediction_id", "client").rows()
    assert dict(rows) == told


def test_requests_at_once_get_their_own_answers(ferry: Ferry) -> None:
    """Requests that are answered together are answered as each alone, and a bad one among them harms no other.

    A linear model's sums are taken in another order for another number of rows: float32's last digits differ.
    """
    with ferry.serve() as server:
        alone = [outputs(server.infer([row]))["probability"] for row in ROWS[:40]]
        together: dict[int, Any] = {}

        def ask(place: int) -> None:
            together[place] = (
                server.infer([ROWS[place]])
                if place % 5
                else server.post(
                    "/v2/models/ferry/infer", orjson.dumps(infer_body([{**ROWS[place], "wind": "far"}]))
                )
            )

        threads = [threading.Thread(target=ask, args=(place,)) for place in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for place, answer in together.items():
        if place % 5:
            assert outputs(answer)["probability"] == pytest.approx(alone[place], rel=1e-6)
        else:
            assert answer.status == 400


def _model(ferry: Ferry) -> ServedModel:
    workspace = ferry.workspace
    return load_model(workspace, "ferry", ferry.digests[0], open_trust_root(workspace))


def _read_rows(model: ServedModel, count: int) -> list[tuple[Any, ...]]:
    request = model.reader.read(orjson.dumps(infer_body(ROWS[:count])))
    assert request is not None
    return request.rows


def test_too_many_are_refused_at_once(ferry: Ferry, tmp_path: Path) -> None:
    """Beyond the contract's most waiting requests one is refused with 429, and the others are answered."""
    model = _model(ferry)
    model.limits = model.limits.model_copy(update={"maximum_waiting": 5})
    rows = _read_rows(model, 1)

    async def ask() -> list[Answered | BaseException]:
        asked = [predictor.predict(model, rows, None, None) for _ in range(20)]
        return await asyncio.gather(*asked, return_exceptions=True)

    log = FeedbackLog(tmp_path / "log")
    predictor = Predictor(log, RecentPredictions(), Metrics())
    answers = asyncio.run(ask())
    log.close()
    refused = [answer for answer in answers if isinstance(answer, RequestError)]
    assert [answer.status for answer in refused] == [429] * 15
    assert sum(isinstance(answer, Answered) for answer in answers) == 5
    assert (predictor.waiting, predictor.waiting_rows, predictor.shed) == (0, 0, 15)


def test_one_batch_is_one_record(ferry: Ferry, tmp_path: Path) -> None:
    """What is answered together is one record of the log, with each request's own id and client."""
    model = _model(ferry)
    rows = _read_rows(model, 2)

    async def ask() -> list[Answered]:
        return await asyncio.gather(
            *(predictor.predict(model, rows, f"id {n}", f"client {n}") for n in range(3))
        )

    log = FeedbackLog(tmp_path / "log")
    appended: list[bytes] = []
    real = log.append_and_tell
    log.append_and_tell = lambda payload, done, *more: (  # type: ignore[method-assign]
        appended.append(payload),
        real(payload, done, *more),
    )[1]
    predictor = Predictor(log, RecentPredictions(), Metrics())
    answers = asyncio.run(ask())
    log.close()
    (record,) = (orjson.loads(payload)["predictions"] for payload in appended)
    assert record["prediction_id"] == [name for answer in answers for name in answer.prediction_id]
    assert record["request_id"] == ["id 0", "id 0", "id 1", "id 1", "id 2", "id 2"]
    assert record["client"] == [f"client {n}" for n in (0, 0, 1, 1, 2, 2)]
    assert len(record["latency_microseconds"]) == 6
    assert all(0 < latency < 60_000_000 for latency in record["latency_microseconds"])


def test_turns_that_bring_more_are_answered_together(ferry: Ferry, tmp_path: Path) -> None:
    """Questions that come turn after turn of the loop share one record; after an empty turn a new one begins."""
    model = _model(ferry)
    rows = _read_rows(model, 1)

    async def ask() -> None:
        for pause in (0, 0, 0, 0.05, 0, 0):
            asked.append(asyncio.ensure_future(predictor.predict(model, rows, None, None)))
            await asyncio.sleep(pause)
        await asyncio.gather(*asked)

    asked: list[asyncio.Future[Answered]] = []
    metrics = Metrics()
    log = FeedbackLog(tmp_path / "log")
    predictor = Predictor(log, RecentPredictions(), metrics)
    asyncio.run(ask())
    log.close()
    _, total = metrics.batch_rows.buckets()
    (path,) = (tmp_path / "log").glob("*.segment")
    records = [orjson.loads(payload) for payload in scan(path.read_bytes()).payloads[:-1]]
    assert total == 6
    assert [len(record["predictions"]["prediction_id"]) for record in records] == [4, 2]


@pytest.mark.parametrize("when_full", ["refuse", "shed"])
def test_full_log_is_refused_or_shed(ferry: Ferry, tmp_path: Path, when_full: str) -> None:
    """When the log is full a prediction gets an error, or is answered unrecorded and counted, as the contract says."""
    model = _model(ferry)
    model.terms = Terms(maximum_bytes=10)
    model.feedback = model.feedback.model_copy(update={"when_full": when_full})
    rows = _read_rows(model, 3)

    async def ask() -> Answered | BaseException:
        (answer,) = await asyncio.gather(predictor.predict(model, rows, None, None), return_exceptions=True)
        return answer

    log = FeedbackLog(tmp_path / "log")
    recent = RecentPredictions()
    predictor = Predictor(log, recent, Metrics())
    answer = asyncio.run(ask())
    log.close()
    if when_full == "refuse":
        assert isinstance(answer, FeedbackError)
        assert predictor.unrecorded == 0
    else:
        assert isinstance(answer, Answered)
        assert len(answer.prediction_id) == 3
        assert predictor.unrecorded == 3
    assert len(recent) == 0
    assert list((tmp_path / "log").glob("*.segment")) == []
