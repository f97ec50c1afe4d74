"""A candidate of a roll-out, beside the bundle that serves: compared with it, or answering some requests.

The candidate has a thread and a model of its own, which nobody else touches. In the shadow it is asked what
was answered already, when the answer is gone: its queue is bounded, what does not fit is dropped and counted,
and it may take a fixed share of the time, so neither its cost nor its failure is the client's. As a canary it
answers a share of the requests; one that it fails, or does not answer in time, is answered by the bundle
that serves. What it said goes into the feedback log, and the guards of the roll-out are judged from that.

Where a mesh splits the requests between two predictors of a SeldonDeployment, no server does: those of the one never
let the candidate answer and compare it, those of the other always let it.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seatrial.errors import FeedbackError
from seatrial.feedback.log import FeedbackLog, Terms
from seatrial.feedback.rows import ComparisonRecord
from seatrial.promotion import Stage
from seatrial.server.model import Change, Predicted, ServedModel

CHUNK_ROWS = 128
"""Rows that are computed without letting others in between."""
SHADOW_SHARE = 0.25
"""Most of the time that comparing may take; the rest of it is the clients'."""
WAITING_ROWS = 4_096
"""Most rows that wait to be compared."""
ANSWER_SECONDS = 2.0
"""How long the candidate has for a request; then the bundle that serves answers it."""
SYNC_SECONDS = 1.0
LOG_SHARE = 2
"""Comparisons are dropped when the log holds more than this part of what it may: the other is for answers."""
WARM_UP = 20
"""Comparisons that are not timed: the first ones fill caches that the bundle that serves has full."""
_HUNDRED = 100
SHARES = {"main": 0, "candidate": _HUNDRED}
"""Requests of a hundred that a candidate answers in the servers of each predictor of a SeldonDeployment."""
_log = logging.getLogger("seatrial.server")
Row = tuple[Any, ...]


@dataclass
class Counts:
    """What became of the rows that candidates were asked, since the server started.

    Attributes:
        compared: Answered beside the bundle that serves.
        answered: Answered in its place.
        failed: Not answered by the candidate.
        dropped: Not compared, because too many waited or the log was full.
    """

    compared: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, what: str, rows: int) -> None:
        """Count rows; threads may do so at once."""
        with self._lock:
            setattr(self, what, getattr(self, what) + rows)


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows that the candidate shall answer.

    Attributes:
        rows: The rows, each with a value for every input, in the inputs' order.
        told: Called in the candidate's thread with the answer or what was wrong, and the seconds of
            processor time that it took.
    """

    rows: list[Row]
    told: Callable[[Predicted | Exception, float], None]


@dataclass(frozen=True, slots=True)
class Served:
    """Rows that were answered by the bundle that serves.

    Attributes:
        bundle: Its digest.
        rows: The rows.
        prediction_id: Of each row.
        probability: Of each row.
        flagged: Of each row.
        seconds: Processor time that the rows took that were computed together with these; None: unknown.
    """

    bundle: str
    rows: list[Row]
    prediction_id: list[str]
    probability: list[float]
    flagged: list[bool]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Learned:
    changes: list[Change]


class Candidate:
    """A bundle that is tried.

    Args:
        stage: Where the roll-out stands.
        model: The bundle, ready to answer; None where it could not be loaded.
        why: Why it could not be loaded.
        log: Where comparisons are written; None: nowhere.
        counts: Counts what became of rows.
        maximum_bytes: Most bytes that the log may hold.
        share: Requests of a hundred that it answers, whatever the stage says; None: as many as the stage says.
    """

    def __init__(
        self,
        stage: Stage,
        model: ServedModel | None,
        *,
        share: int | None = None,
        why: str = "",
        log: FeedbackLog | None = None,
        counts: Counts | None = None,
        maximum_bytes: int | None = None,
    ) -> None:
        self.stage = stage
        self.model = model
        self.why = why
        self._share = share
        self._log = log
        self._counts = counts or Counts()
        self._terms = Terms(SYNC_SECONDS, None if maximum_bytes is None else maximum_bytes // LOG_SHARE)
        self._changed = threading.Condition()
        self._urgent: deque[Asked | _Learned] = deque()
        self._beside: deque[tuple[Stage, Served]] = deque()
        self._waiting_rows = 0
        self._cold = WARM_UP
        self._rest_until = 0.0
        self._stopped = False
        self._thread: threading.Thread | None = None
        if model is not None:
            self._thread = threading.Thread(target=self._run, name="candidate", daemon=True)
            self._thread.start()

    def takes(self, key: str | None) -> bool:
        """Return whether a request is the candidate's to answer.

        Args:
            key: The client's id of the request: the same is always answered by the same bundle, and stays
                the candidate's when its share grows. None: chance decides.
        """
        weight = self.stage.weight if self._share is None else self._share
        if self.model is None or not weight:
            return False
        place = random.random() if key is None else share_of(self.stage.digest, key)  # noqa: S311 -- no secret
        return place * _HUNDRED < weight

    def ask(self, asked: Asked) -> None:
        """Let the candidate answer rows."""
        self._put(asked)

    def learn(self, changes: list[Change]) -> None:
        """Let outcomes count for the candidate's histories."""
        if self.model is not None and changes:
            self._put(_Learned(changes))

    def compare(self, served: Served) -> None:
        """Let the candidate say what it would have answered; it is dropped if too many rows wait."""
        if self.model is None:
            self.fail(served, self.why)
            return
        rows = len(served.rows)
        with self._changed:
            fits = not self._waiting_rows or self._waiting_rows + rows <= WAITING_ROWS
            if fits:
                self._waiting_rows += rows
                self._beside.append((self.stage, served))
                self._changed.notify()
        if not fits:
            self._counts.add("dropped", rows)

    def fail(self, served: Served, why: str) -> None:
        """Write down that the candidate did not answer rows that the bundle that serves did."""
        self._counts.add("failed", len(served.rows))
        self._record(self.stage, served, None, None, why)

    def answered(self, served: Served) -> None:
        """Write down that the candidate itself answered these rows."""
        self._counts.add("answered", len(served.rows))
        self._append(
            ComparisonRecord(
                prediction_id=served.prediction_id,
                compared_at=time.time_ns() // 1_000,
                stage=self.stage.number,
                bundle=served.bundle,
                candidate=self.stage.digest,
                probability=None,
                candidate_probability=served.probability,
                flagged=None,
                candidate_flagged=served.flagged,
                microseconds=None,
                candidate_microseconds=_microseconds(served.seconds),
                error=None,
            )
        )

    def stop(self) -> None:
        """End the thread when it has answered what clients wait for; comparisons that wait are dropped."""
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the thread's end, after :meth:`stop`."""
        if self._thread is not None:
            self._thread.join()

    def _put(self, work: Asked | _Learned) -> None:
        with self._changed:
            self._urgent.append(work)
            self._changed.notify()

    def _next(self) -> list[Asked] | _Learned | tuple[Stage, Served] | None:
        with self._changed:
            while True:
                if self._urgent:
                    return self._next_urgent()
                if self._stopped:
                    return None
                rest = self._rest_until - time.monotonic()
                if self._beside and rest <= 0:
                    stage, served = self._beside.popleft()
                    self._waiting_rows -= len(served.rows)
                    return stage, served
                self._changed.wait(rest if self._beside else None)

    def _next_urgent(self) -> list[Asked] | _Learned:
        first = self._urgent.popleft()
        if not isinstance(first, Asked):
            return first
        together, rows = [first], len(first.rows)
        while self._urgent and isinstance(following := self._urgent[0], Asked):
            rows += len(following.rows)
            if rows > CHUNK_ROWS:
                break
            self._urgent.popleft()
            together.append(following)
        return together

    def _run(self) -> None:
        model = self.model
        assert model is not None
        while (work := self._next()) is not None:
            try:
                if isinstance(work, tuple):
                    self._compare(model, *work)
                elif isinstance(work, _Learned):
                    model.count(work.changes)
                else:
                    self._answer(model, work)
            except Exception:  # noqa: BLE001 -- whatever it is, the thread goes on, and requests have their time limit
                _log.exception("The candidate %s failed.", self.stage.digest[:12])

    def _answer(self, model: ServedModel, asked: list[Asked]) -> None:
        begun = time.thread_time()
        try:
            predicted = predict_in_parts(model, [row for one in asked for row in one.rows])
        except Exception as error:  # noqa: BLE001 -- whatever it is, the bundle that serves answers then
            if len(asked) > 1:
                for one in asked:
                    self._answer(model, [one])
            else:
                asked[0].told(error, 0.0)
            return
        seconds, first = time.thread_time() - begun, 0
        for one in asked:
            end = first + len(one.rows)
            part = Predicted(
                predicted.features[first:end],
                predicted.known_at[first:end],
                predicted.probability[first:end],
                predicted.flagged[first:end],
            )
            one.told(part, seconds)
            first = end

    def _compare(self, model: ServedModel, stage: Stage, served: Served) -> None:
        begun, clock = time.thread_time(), time.monotonic()
        try:
            predicted: Predicted | None = predict_in_parts(model, served.rows)
            why = None
        except Exception as error:  # noqa: BLE001 -- the guards count it
            # What a message says may hold values of a client's; a class does not.
            predicted, why = None, type(error).__name__
        took, now = time.thread_time() - begun, time.monotonic()
        seconds = None if self._cold else took
        self._cold = max(self._cold - 1, 0)
        self._rest_until = now + (now - clock) * (1 / SHADOW_SHARE - 1)
        if predicted is None:
            self._counts.add("failed", len(served.rows))
        else:
            self._counts.add("compared", len(served.rows))
        self._record(stage, served, predicted, seconds, why)

    def _record(
        self, stage: Stage, served: Served, said: Predicted | None, seconds: float | None, why: str | None
    ) -> None:
        self._append(
            ComparisonRecord(
                prediction_id=served.prediction_id,
                compared_at=time.time_ns() // 1_000,
                stage=stage.number,
                bundle=served.bundle,
                candidate=stage.digest,
                probability=served.probability,
                candidate_probability=None if said is None else said.probability,
                flagged=served.flagged,
                candidate_flagged=None if said is None else said.flagged,
                microseconds=_microseconds(served.seconds),
                candidate_microseconds=_microseconds(seconds),
                error=why,
            )
        )

    def _append(self, record: ComparisonRecord) -> None:
        if self._log is None:
            return
        rows = len(record.prediction_id)

        def told(error: FeedbackError | None) -> None:
            if error is not None:
                self._counts.add("dropped", rows)

        try:
            self._log.append_and_tell(record.to_bytes(), told, self._terms)
        except FeedbackError as error:
            told(error)


def share_of(digest: str, key: str) -> float:
    """Return where a request stands among all requests of a roll-out, from 0 inclusive to 1 exclusive.

    Args:
        digest: The candidate's digest: another roll-out begins with other requests.
        key: The client's id of the request.
    """
    hashed = hashlib.blake2b(f"{digest} {key}".encode(), digest_size=6).digest()
    return int.from_bytes(hashed) / (1 << 48)


def predict_in_parts(model: ServedModel, rows: Sequence[Row]) -> Predicted:
    """Answer rows, part by part, so that other threads get their turns.

    Raises:
        FeatureError: if a feature cannot be computed for these values.
        RequestError: if the model has no probability for a row.
    """
    return together(
        [
            model.predict(rows[first : first + CHUNK_ROWS], first=first)
            for first in range(0, len(rows), CHUNK_ROWS)
        ]
    )


def together(parts: list[Predicted]) -> Predicted:
    """Return the answers to the parts of a question as one."""
    if len(parts) == 1:
        return parts[0]
    return Predicted(
        np.concatenate([part.features for part in parts]),
        [instant for part in parts for instant in part.known_at],
        [value for part in parts for value in part.probability],
        [value for part in parts for value in part.flagged],
    )


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000_000)
