"""A candidate beside the bundle that serves: what it costs, what it answers, and what happens when it does not."""

from __future__ import annotations

import asyncio
import itertools
import threading
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.local.serving.conftest import Ferry, Server, crossings, infer_body, outputs, wait_for

from seatrial.bundle import open_trust_root
from seatrial.feedback import read_predictions
from seatrial.feedback.joining import read_comparisons
from seatrial.feedback.log import FeedbackLog
from seatrial.feedback.recent import RecentPredictions
from seatrial.feedback.rows import Rows, read_rows
from seatrial.feedback.segments import scan
from seatrial.promotion import Stage, read_pointer
from seatrial.promotion.pointer import begin_stage, move
from seatrial.server import batching, candidate
from seatrial.server.batching import Answered, Predictor
from seatrial.server.candidate import SHARES, Candidate, Counts, share_of
from seatrial.server.metrics import Metrics
from seatrial.server.model import Predicted, ServedModel, load_model

ROWS = crossings(2, seed=3)


@pytest.fixture
def models(ferry: Ferry) -> list[ServedModel]:
    """The bundle that serves, and another one."""
    trust = open_trust_root(ferry.workspace)
    return [load_model(ferry.workspace, "ferry", digest, trust) for digest in ferry.digests]


def read(model: ServedModel, count: int) -> list[tuple[object, ...]]:
    """Return so many rows as the server reads them."""
    request = model.reader.read(orjson.dumps(infer_body(ROWS[:count])))
    assert request is not None
    return request.rows


class Trial:
    """A candidate with its log, asked through a predictor as a server asks it."""

    def __init__(
        self,
        folder: Path,
        models: list[ServedModel],
        weight: int,
        *,
        share: int | None = None,
        copies: bool = False,
    ) -> None:
        self.served, other = models
        self.counts = Counts()
        self.log = FeedbackLog(folder)
        stage = Stage(7, other.digest, weight)
        self.candidate = Candidate(stage, other, log=self.log, counts=self.counts, share=share)
        self.predictor = Predictor(
            self.log, RecentPredictions(), Metrics(), lambda: self.candidate, lambda: copies
        )
        self._folder = folder

    def ask(self, *names: str | None, rows: int = 2) -> list[Answered]:
        """Ask a request for each id, all at once."""

        async def all_at_once() -> list[Answered]:
            asked = read(self.served, rows)
            return await asyncio.gather(*(self.predictor.predict(self.served, asked, n, None) for n in names))

        return asyncio.run(all_at_once())

    def end(self) -> Rows:
        """End all, and return what was written down."""
        self.candidate.stop()
        self.candidate.join()
        self.log.close()
        segments = sorted(self._folder.glob("*.segment"))
        return read_rows(payload for path in segments for payload in scan(path.read_bytes()).payloads)


def test_the_shadow_is_compared_and_not_returned(models: list[ServedModel], tmp_path: Path) -> None:
    """Each answer is the serving bundle's; what the candidate said of the same rows is in the log, by the same id."""
    trial = Trial(tmp_path / "log", models, 0)
    answers = trial.ask(*(f"{n}" for n in range(20)))
    wait_for(lambda: trial.counts.compared == 40, "the comparisons")
    written = trial.end()

    assert {answer.bundle for answer in answers} == {models[0].digest}
    ids = {name for answer in answers for name in answer.prediction_id}
    compared = written.comparisons
    assert set(compared["prediction_id"]) == ids
    assert set(compared["candidate"]) == {models[1].digest}
    assert set(compared["stage"]) == {7}
    other = dict(zip(range(2), models[1].predict(read(models[1], 2)).probability, strict=True))
    by_id = dict(zip(compared["prediction_id"], compared["candidate_probability"], strict=True))
    for answer in answers:
        assert [by_id[name] for name in answer.prediction_id] == pytest.approx(list(other.values()), abs=1e-6)
    assert compared["error"].null_count() == compared.height


def test_a_canary_answers_the_requests_that_are_its(
    models: list[ServedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the id's place alone; what it answered is recorded as its own prediction and counted as asked."""
    monkeypatch.setattr(batching, "ANSWER_SECONDS", 120)
    trial = Trial(tmp_path / "log", models, 40)
    names = [f"request {n}" for n in range(60)]
    answers = dict(zip(names, trial.ask(*names), strict=True))
    written = trial.end()

    digest = models[1].digest
    for name, answer in answers.items():
        assert answer.bundle == (digest if share_of(digest, name) < 0.4 else models[0].digest)
    own = {i for answer in answers.values() if answer.bundle == digest for i in answer.prediction_id}
    recorded = written.predictions.filter(written.predictions["bundle"] == digest)
    assert set(recorded["prediction_id"]) == own
    alone = written.comparisons.filter(written.comparisons["probability"].is_null())
    assert set(alone["prediction_id"]) == own
    assert trial.counts.answered == len(own)
    assert trial.predictor.waiting == trial.predictor.waiting_rows == 0


@pytest.mark.parametrize("weight", [0, 50])
def test_a_mesh_says_who_answers_in_the_first_predictor(
    models: list[ServedModel], tmp_path: Path, weight: int
) -> None:
    """Its servers answer all that comes with the bundle that serves, whatever the step's weight, and compare."""
    trial = Trial(tmp_path / "log", models, weight, share=SHARES["main"])
    answers = trial.ask(*(f"{n}" for n in range(20)))
    wait_for(lambda: trial.counts.compared == 40, "the comparisons")
    written = trial.end()

    assert {answer.bundle for answer in answers} == {models[0].digest}
    assert written.predictions.height == written.comparisons.height == 40
    assert written.comparisons["probability"].null_count() == 0


@pytest.mark.parametrize("copies", [False, True])
def test_the_other_predictor_answers_with_the_candidate(
    models: list[ServedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copies: bool
) -> None:
    """A canary's answers are predictions; those to copies are not, and count for the guards all the same."""
    monkeypatch.setattr(batching, "ANSWER_SECONDS", 120)
    trial = Trial(tmp_path / "log", models, 0 if copies else 10, share=SHARES["candidate"], copies=copies)
    answers = trial.ask(*(f"{n}" for n in range(20)))
    written = trial.end()

    assert {answer.bundle for answer in answers} == {models[1].digest}
    assert written.predictions.height == (0 if copies else 40)
    alone = written.comparisons
    assert (alone.height, alone["probability"].null_count(), alone["error"].null_count()) == (40, 40, 40)
    assert alone["candidate_probability"].null_count() == 0


def test_what_the_candidate_fails_of_copies_is_counted(models: list[ServedModel], tmp_path: Path) -> None:
    """The bundle that serves answers in its place, nobody gets that, and the guards hear of the failure."""
    models[1].predict = fail  # type: ignore[method-assign]
    trial = Trial(tmp_path / "log", models, 0, share=SHARES["candidate"], copies=True)
    answers = trial.ask(*(f"{n}" for n in range(10)))
    written = trial.end()

    assert {answer.bundle for answer in answers} == {models[0].digest}
    assert written.predictions.height == 0
    assert set(written.comparisons["error"]) == {"ValueError"}
    assert trial.counts.failed == 20


def taken(model: ServedModel, count: int) -> list[str]:
    """Return so many ids of requests that are a canary's of 99%."""
    names = (f"request {n}" for n in itertools.count())
    return list(itertools.islice((n for n in names if share_of(model.digest, n) < 0.99), count))


def fail(*_: object, **__: object) -> Predicted:
    """Fail as a model may."""
    raise ValueError("a secret of the client's")


def test_what_a_canary_fails_the_serving_bundle_answers(
    models: list[ServedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client gets its answer, and the failure is recorded without what its message says."""
    monkeypatch.setattr(batching, "ANSWER_SECONDS", 120)
    models[1].predict = fail  # type: ignore[method-assign]
    trial = Trial(tmp_path / "log", models, 99)
    answers = trial.ask(*taken(models[1], 30))
    wait_for(lambda: trial.counts.failed == 60, "the failures")
    written = trial.end()

    assert {answer.bundle for answer in answers} == {models[0].digest}
    assert set(written.comparisons["error"]) == {"ValueError"}
    assert written.comparisons["candidate_probability"].null_count() == 60
    assert set(written.predictions["bundle"]) == {models[0].digest}


def hanging(model: ServedModel) -> Callable[[], None]:
    """Let a model hang in its thread until the returned function is called."""
    go_on, predict = threading.Event(), model.predict

    def wait(*arguments: object, **options: object) -> Predicted:
        assert go_on.wait(120)
        return predict(*arguments, **options)  # type: ignore[arg-type]

    model.predict = wait  # type: ignore[method-assign]
    return go_on.set


def test_a_canary_that_hangs_is_not_waited_for(
    models: list[ServedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time the serving bundle answers; the late answer is nobody's, and is not recorded as given."""
    monkeypatch.setattr(batching, "ANSWER_SECONDS", 0.05)
    go_on = hanging(models[1])
    trial = Trial(tmp_path / "log", models, 99)
    (answer,) = trial.ask(*taken(models[1], 1))
    go_on()
    written = trial.end()

    assert answer.bundle == models[0].digest
    assert set(written.predictions["bundle"]) == {models[0].digest}
    assert written.comparisons["error"].to_list() == ["no answer within 0.05 s"] * 2


def test_comparisons_that_do_not_fit_are_dropped_and_counted(
    models: list[ServedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate that hangs in the shadow holds nobody up: its queue is bounded, and the answers are all there."""
    monkeypatch.setattr(candidate, "WAITING_ROWS", 10)
    go_on = hanging(models[1])
    trial = Trial(tmp_path / "log", models, 0)
    answers = [answer for n in range(20) for answer in trial.ask(f"{n}")]
    dropped = trial.counts.dropped
    go_on()
    wait_for(lambda: trial.counts.compared + trial.counts.dropped == 40, "the rest")
    written = trial.end()

    assert len(answers) == 20
    assert dropped >= 40 - 10 - 2
    assert written.comparisons.height == trial.counts.compared == 40 - trial.counts.dropped


def test_one_that_could_not_be_loaded_fails_whatever_it_is_asked(
    models: list[ServedModel], tmp_path: Path
) -> None:
    """It is asked nothing and answers nothing, and the guards see it fail."""
    trial = Trial(tmp_path / "log", models, 50)
    trial.candidate.stop()
    trial.candidate = Candidate(trial.candidate.stage, None, why="no such bundle", log=trial.log)
    answers = trial.ask(*(f"{n}" for n in range(10)))
    written = trial.end()

    assert {answer.bundle for answer in answers} == {models[0].digest}
    assert set(written.comparisons["error"]) == {"no such bundle"}


def test_without_an_id_chance_decides(models: list[ServedModel]) -> None:
    """Requests without an id are shared out, too; with a share of none, none is the candidate's."""
    tried = Candidate(Stage(1, "d", 30), models[1])
    taken = sum(tried.takes(None) for _ in range(300))
    tried.stage = Stage(2, "d", 0)

    assert 30 < taken < 150
    assert not any(tried.takes(None) for _ in range(50))
    tried.stop()
    tried.join()


def compared(server: Server) -> float:
    """Return how many rows a server has compared."""
    with urllib.request.urlopen(f"{server.address}/metrics", timeout=30) as answer:  # noqa: S310 -- our own server
        text = answer.read().decode()
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "seatrial_candidate_compared_rows_total"
    )


def test_outcomes_count_for_the_candidate_as_for_the_bundle_that_serves(ferry: Ferry) -> None:
    """The same bundle as its own candidate says the same, with outcomes learned before it was there and after."""
    digest = ferry.digests[0]
    late = crossings(4, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
    parts = [late[n : n + 60] for n in (0, 60, 120, 180)]
    with ferry.serve("--ship-every", "600") as server:
        tell(server, parts[0])
        pointer = read_pointer(ferry.workspace, "local", "ferry")
        begin_stage(ferry.workspace, "local", "ferry", {"digest": digest}, weight=0, expected=pointer)
        wait_for(
            lambda: told(server)["candidate"] is not None,
            "the candidate",
        )
        for number, part in enumerate(parts[1:], 1):
            tell(server, part, after=lambda number=number: compared(server) == 60 * number)  # type: ignore[misc]
        assert server.stop() == 0

    said = read_comparisons(ferry.workspace, "ferry").collect()
    recorded = read_predictions(ferry.workspace, "ferry")
    assert said.height == 180
    assert said["candidate_probability"].to_list() == pytest.approx(said["probability"].to_list(), abs=1e-7)
    features = recorded["features"].to_list()
    assert len({tuple(row) for row in features}) > 100  # Histories differ from row to row.


def test_a_server_of_the_other_predictor_follows_the_steps(ferry: Ferry) -> None:
    """Copies in the shadow are no predictions, what it answers as a canary is; afterwards it answers as any server."""
    first, second = ferry.digests[:2]
    place = (ferry.workspace, "local", "ferry")
    begin_stage(*place, {"digest": second}, weight=0, expected=read_pointer(*place))

    def answers(rows: list[dict[str, Any]]) -> tuple[str, list[str]]:
        answer = server.infer(rows)
        return answer.content["model_version"], outputs(answer)["prediction_id"]

    with ferry.serve("--ship-every", "600", "--predictor", "candidate") as server:
        copied, _ = answers(ROWS[:3])
        begin_stage(*place, {"digest": second}, weight=10, expected=read_pointer(*place))
        wait_for(lambda: told(server)["candidate"]["weight"] == 10, "the canary")
        answered, own = answers(ROWS[:4])
        move(*place, {"digest": first}, expected=read_pointer(*place))
        wait_for(lambda: told(server)["candidate"] is None, "the end of the roll-out")
        after, others = answers(ROWS[:5])
        assert server.stop() == 0

    assert (copied, answered, after) == (second, second, first)
    recorded = read_predictions(ferry.workspace, "ferry")
    assert set(recorded["prediction_id"]) == {*own, *others}
    assert read_comparisons(ferry.workspace, "ferry").collect()["stage"].value_counts().height == 2


def told(server: Server) -> dict[str, Any]:
    """Return what a server says of its model."""
    found: dict[str, Any] = server.get("/v2/models/ferry").content["parameters"]
    return found


def tell(server: Server, rows: list[dict[str, Any]], after: Callable[[], bool] = lambda: True) -> None:
    """Ask rows, and bring their outcomes when ``after`` holds."""
    ids = outputs(server.infer(rows))["prediction_id"]
    wait_for(after, "the comparisons")
    known = [
        {"prediction_id": name, "value": row["late"], "occurred_at": row["arrived_at"].isoformat()}
        for name, row in zip(ids, rows, strict=True)
        if row["late"] is not None
    ]
    assert server.feedback(*known).status == 200
