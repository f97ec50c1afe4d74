"""Predictions of many requests at once: one call of the model, one record of the log, one sync.

The requests that arrive while the event loop is at work are answered together, once a turn of the loop
has brought no more: under load the batches grow by themselves, and a request that is alone waits for one
empty turn. Nothing is
answered before the log's record of it is on disk; while the disk is at work, the next batch is computed.

Where a bundle is rolled out, some requests are the candidate's (:mod:`seatrial.server.candidate`). One that it
fails, or does not answer in time, comes back here and is answered as any other. What a mesh copied here is answered
without being written down as a prediction: it is one where the client is answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from seatrial.errors import FeedbackError, RequestError
from seatrial.feedback.ids import new_ids
from seatrial.feedback.log import FeedbackLog
from seatrial.feedback.recent import RecentPredictions
from seatrial.feedback.rows import PredictionRecord
from seatrial.server.candidate import ANSWER_SECONDS, CHUNK_ROWS, Asked, Candidate, Served, together
from seatrial.server.metrics import Metrics
from seatrial.server.model import Predicted, ServedModel
from seatrial.server.tracing import Attributes, Trace, current_trace


@dataclass(slots=True)  # Not frozen: one is made for each request, and that would take five times as long.
class Answered:
    """What became of a question's rows, once it is on disk.

    Attributes:
        bundle: Digest of the bundle that answered.
        prediction_id: An id of ours for each row.
        probability: Of each row.
        flagged: Of each row.
    """

    bundle: str
    prediction_id: list[str]
    probability: list[float]
    flagged: list[bool]


@dataclass(slots=True)  # Not frozen: one is made for each request, and that would take five times as long.
class Question:
    """Rows that a client wants predictions of.

    Attributes:
        model: The model that answers.
        rows: The rows, each with a value for every input, in the inputs' order.
        request_id: The client's own id of the request.
        client: Who asks, as far as is known.
        told: Called in the event loop with the answer, or with what was wrong.
        started: When the request was whole, by ``time.perf_counter``.
        trace: The request's trace; None: it has none.
        for_model: Whether no candidate may answer instead of the model.
        failed: Why a candidate that was asked first did not answer; empty where none was.
    """

    model: ServedModel
    rows: list[tuple[Any, ...]]
    request_id: str | None
    client: str | None
    told: Callable[[Answered | Exception], None]
    started: float = field(default_factory=time.perf_counter)
    trace: Trace | None = field(default_factory=current_trace)
    for_model: bool = False
    failed: str = ""


@dataclass(frozen=True, slots=True)
class _Computed:
    """A batch that was computed, and the record of it.

    Attributes:
        batch: Its questions.
        rows: Their rows.
        record: What is written down.
        seconds: Processor time that it took; None where it was not measured.
    """

    batch: list[Question]
    rows: list[tuple[Any, ...]]
    record: PredictionRecord
    seconds: float | None


class Predictor:
    """Answers questions in batches. It belongs to one event loop.

    Args:
        log: Where answers are written before they leave; None: nothing is written.
        recent: The predictions that outcomes are expected for.
        metrics: Counts what was answered.
        candidate: Returns the candidate that is tried now; None: there is none.
        copies: Returns whether what is asked are copies, whose answers nobody gets.
    """

    def __init__(
        self,
        log: FeedbackLog | None,
        recent: RecentPredictions,
        metrics: Metrics,
        candidate: Callable[[], Candidate | None] = lambda: None,
        copies: Callable[[], bool] = lambda: False,
    ) -> None:
        self.waiting = 0
        self.waiting_rows = 0
        self.shed = 0
        self.unrecorded = 0
        """Rows that were answered and not written down, as the contract wants it when the log is full."""
        self._log = log
        self._recent = recent
        self._metrics = metrics
        self._candidate = candidate
        self._copies = copies
        self._questions: list[Question] = []
        self._seen = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, question: Question) -> None:
        """Take in a question; it is answered by its ``told``.

        Raises:
            RequestError: with status 429, if too many wait already.
        """
        rows, limits = len(question.rows), question.model.limits
        most_rows = max(limits.maximum_rows, limits.maximum_waiting)
        if self.waiting and (self.waiting >= limits.maximum_waiting or self.waiting_rows + rows > most_rows):
            self.shed += 1
            raise RequestError(
                f"The server has more to do than it can: {self.waiting:,} requests wait already.",
                status=429,
                remedy="Try again in a moment.",
            )
        self.waiting += 1
        self.waiting_rows += rows
        if question.trace is not None:
            question.trace.asked = time.time_ns()
        candidate = self._candidate()
        if candidate is not None and not question.for_model and candidate.takes(question.request_id):
            self._ask_candidate(candidate, question)
        else:
            self._line_up(question)

    def _line_up(self, question: Question) -> None:
        if not self._questions:
            asyncio.get_running_loop().call_soon(self._answer_waiting)
        self._questions.append(question)

    def _ask_candidate(self, candidate: Candidate, question: Question) -> None:
        """Let a candidate answer; if it fails, or takes too long, the model does."""
        loop = asyncio.get_running_loop()
        model = candidate.model
        assert model is not None
        open_ = [question]

        def fail(why: str) -> None:
            if open_:
                self._line_up(replace(open_.pop(), failed=why))

        def arrived(said: Predicted | Exception, seconds: float) -> None:
            timer.cancel()
            if isinstance(said, Exception):
                fail(type(said).__name__)
            elif open_:
                self._write([replace(open_.pop(), model=model)], question.rows, said, seconds)

        def told(said: Predicted | Exception, seconds: float) -> None:
            loop.call_soon_threadsafe(arrived, said, seconds)

        timer = loop.call_later(ANSWER_SECONDS, fail, f"no answer within {ANSWER_SECONDS:g} s")
        candidate.ask(Asked(question.rows, told))

    async def predict(
        self,
        model: ServedModel,
        rows: list[tuple[Any, ...]],
        request_id: str | None,
        client: str | None,
        *,
        for_model: bool = False,
    ) -> Answered:
        """Ask, and wait for the answer.

        Args:
            model: The model that answers.
            rows: The rows, each with a value for every input, in the inputs' order.
            request_id: The client's own id of the request.
            client: Who asks, as far as is known.
            for_model: Whether no candidate may answer instead.

        Raises:
            RequestError: if the model has no probability for a row, or too many wait already.
            FeatureError: if a feature cannot be computed for its values.
            FeedbackError: if the prediction cannot be written down.
        """
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()

        def told(answer: Answered | Exception) -> None:
            if future.done():
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.ask(Question(model, rows, request_id, client, told, for_model=for_model))
        return await future

    def _answer_waiting(self) -> None:
        if self._seen < len(self._questions) < CHUNK_ROWS:
            self._seen = len(self._questions)
            asyncio.get_running_loop().call_soon(self._answer_waiting)
            return
        self._seen = 0
        questions, self._questions = self._questions, []
        batch: list[Question] = []
        rows = 0
        for question in questions:
            if len(question.rows) > CHUNK_ROWS:
                task = asyncio.get_running_loop().create_task(self._answer_large(question))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                continue
            if batch and (question.model is not batch[0].model or rows + len(question.rows) > CHUNK_ROWS):
                self._answer(batch)
                batch, rows = [], 0
            batch.append(question)
            rows += len(question.rows)
        if batch:
            self._answer(batch)

    def _answer(self, batch: list[Question]) -> None:
        rows = [row for question in batch for row in question.rows]
        began = time.time_ns()
        started = None if self._candidate() is None else time.thread_time()
        try:
            predicted = batch[0].model.predict(rows)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is told to whom it concerns
            if len(batch) > 1:
                # Whose rows are at fault is found out one by one; the others are answered.
                for question in batch:
                    self._answer([question])
            else:
                self._tell(batch[0], error)
            return
        _trace_prediction(batch, began, len(rows))
        self._write(batch, rows, predicted, None if started is None else time.thread_time() - started)

    async def _answer_large(self, question: Question) -> None:
        """Answer many rows part by part, and let others in between."""
        parts = []
        began = time.time_ns()
        try:
            for first in range(0, len(question.rows), CHUNK_ROWS):
                parts.append(question.model.predict(question.rows[first : first + CHUNK_ROWS], first=first))
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 -- as above
            self._tell(question, error)
            return
        _trace_prediction([question], began, len(question.rows))
        self._write([question], question.rows, together(parts), None)

    def _write(
        self,
        batch: list[Question],
        rows: list[tuple[Any, ...]],
        predicted: Predicted,
        seconds: float | None,
    ) -> None:
        record = _record(batch, rows, predicted)
        computed = _Computed(batch, rows, record, seconds)
        if self._log is None or self._copies():
            self._tell_all(computed, None)
            return
        loop, began = asyncio.get_running_loop(), time.time_ns()

        def told(error: FeedbackError | None) -> None:
            loop.call_soon_threadsafe(self._confirm, computed, error, began)

        try:
            self._log.append_and_tell(record.to_bytes(), told, batch[0].model.terms)
        except FeedbackError as error:
            self._tell_all(computed, error)

    def _confirm(self, computed: _Computed, error: FeedbackError | None, began: int) -> None:
        _trace(computed.batch, "log commit", began)
        self._tell_all(computed, error)

    def _tell_all(self, computed: _Computed, error: FeedbackError | None) -> None:
        batch, record = computed.batch, computed.record
        if error is not None and batch[0].model.feedback.when_full == "refuse":
            for question in batch:
                self._tell(question, error)
            return
        if error is not None:
            self.unrecorded += len(record.prediction_id)
        else:
            for known in zip(record.prediction_id, record.key, record.inputs, strict=True):
                self._recent.add(*known)
        self._metrics.batch_rows.observe(len(record.prediction_id))
        for value in record.probability:
            self._metrics.probability.observe(value)
        for question, part in _parts(batch):
            answer = Answered(
                record.bundle, record.prediction_id[part], record.probability[part], record.flagged[part]
            )
            self._tell(question, answer)
        candidate = self._candidate()
        if candidate is not None:
            _try(candidate, computed)

    def _tell(self, question: Question, answer: Answered | Exception) -> None:
        self.waiting -= 1
        self.waiting_rows -= len(question.rows)
        question.told(answer)


def _trace(batch: list[Question], name: str, began: int, attributes: Attributes | None = None) -> None:
    """Tell each traced question of what was done for all of them, from ``began`` to now."""
    traces = [question.trace for question in batch if question.trace is not None]
    if traces:
        now = time.time_ns()
        for trace in traces:
            trace.part(name, began, now, attributes)


def _trace_prediction(batch: list[Question], began: int, rows: int) -> None:
    for question in batch:
        if question.trace is not None:
            question.trace.part("queue", question.trace.asked, began)
    _trace(batch, "inference", began, {"seatrial.bundle": batch[0].model.digest, "seatrial.batch_rows": rows})


def _parts(batch: list[Question]) -> Iterator[tuple[Question, slice]]:
    """Yield each question of a batch, and where its rows are."""
    first = 0
    for question in batch:
        end = first + len(question.rows)
        yield question, slice(first, end)
        first = end


def _try(candidate: Candidate, computed: _Computed) -> None:
    """Tell a candidate what was answered: by it, without it, or in its place."""
    record = computed.record

    def served(part: slice) -> Served:
        return Served(
            bundle=record.bundle,
            rows=computed.rows[part],
            prediction_id=record.prediction_id[part],
            probability=record.probability[part],
            flagged=record.flagged[part],
            seconds=computed.seconds,
        )

    if computed.batch[0].model is candidate.model:
        candidate.answered(served(slice(None)))
    elif not any(question.failed for question in computed.batch):
        candidate.compare(served(slice(None)))
    else:
        for question, part in _parts(computed.batch):
            if question.failed:
                candidate.fail(served(part), question.failed)
            else:
                candidate.compare(served(part))


def _record(batch: list[Question], rows: list[tuple[Any, ...]], predicted: Predicted) -> PredictionRecord:
    model = batch[0].model
    names, places = model.input_names, model.key_places
    if model.concealer is not None:
        rows = [model.concealer.conceal(names, row) for row in rows]
    request_id: list[str | None] = []
    client: list[str | None] = []
    latency: list[int] = []
    now = time.perf_counter()
    for question in batch:
        count = len(question.rows)
        latency += [round((now - question.started) * 1_000_000)] * count
        request_id += [question.request_id] * count
        client += [question.client] * count
    return PredictionRecord(
        prediction_id=new_ids(len(rows)),
        request_id=request_id,
        client=client,
        served_at=time.time_ns() // 1_000,
        latency_microseconds=latency,
        known_at=predicted.known_at,
        bundle=model.digest,
        key=[_json([row[place] for place in places]) for row in rows],
        inputs=[_json(dict(zip(names, row, strict=True))) for row in rows],
        features=predicted.features,
        probability=predicted.probability,
        flagged=predicted.flagged,
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
