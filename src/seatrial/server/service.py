"""What the server does, apart from HTTP: describe the model, predict, take in outcomes.

A prediction is on disk before its answer leaves, an outcome before it is confirmed; what cannot be
written is not answered, with 503 (:mod:`seatrial.feedback.log`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from seatrial.errors import RequestError
from seatrial.features.online import to_microseconds
from seatrial.feedback.log import FeedbackLog, Terms
from seatrial.feedback.recent import Recent, RecentPredictions
from seatrial.feedback.rows import OutcomeRecord
from seatrial.server.answers import Answer
from seatrial.server.batching import Answered, Predictor, Question
from seatrial.server.holder import ModelHolder
from seatrial.server.inference import DATATYPES, write_inference
from seatrial.server.metrics import Metrics
from seatrial.server.model import ServedModel, answer_head
from seatrial.server.requests import KINDS, OutcomeItem, parse_feedback, parse_infer
from seatrial.server.seldon import describe_model, parse_feedback_message, parse_message, write_message
from seatrial.server.tracing import part

EXTENSIONS = ("feedback", "binary_tensor_data")


class Service:
    """The server's part that knows what a prediction and an outcome are.

    Args:
        holder: Holds the model that answers.
        log: Where answers and outcomes are written.
        recent: The predictions that outcomes are expected for.
        predictor: Answers questions.
        metrics: Counts what became of outcomes.
        alone: Whether no other server answers for this model: a prediction that is not known here may
            be another's.
    """

    def __init__(
        self,
        holder: ModelHolder,
        log: FeedbackLog | None,
        recent: RecentPredictions,
        predictor: Predictor,
        metrics: Metrics,
        *,
        alone: bool = True,
    ) -> None:
        self.metrics = metrics
        self.predictor = predictor
        self.draining = False
        """Whether the server is about to end: it answers still, and is not ready any more."""
        self._explaining = False
        self._holder = holder
        self.log = log
        self._recent = recent
        self._alone = alone

    @property
    def name(self) -> str:
        """The model's name."""
        return self._holder.name

    @property
    def model(self) -> ServedModel:
        """The model that answers now."""
        return self._holder.current

    def check_name(self, name: str) -> None:
        """Refuse another model's name.

        Raises:
            RequestError: with status 404.
        """
        if name != self.name:
            raise RequestError(f"There is no model {name[:100]!r} here, but {self.name!r}.", status=404)

    def check_version(self, version: str) -> None:
        """Refuse a version that is not served.

        Raises:
            RequestError: with status 404.
        """
        if version != self.model.digest:
            raise RequestError(
                f"The version served is {self.model.digest}. Got {version[:100]!r} instead.", status=404
            )

    def describe_server(self) -> Answer:
        """Say what the server is (OIP: server metadata)."""
        return Answer({"name": "seatrial", "version": version("seatrial"), "extensions": list(EXTENSIONS)})

    def readiness(self) -> Answer:
        """Say whether requests are answered, and which bundle was refused, if one was."""
        refusal, ready = self._holder.refusal, not self.draining
        return Answer({"ready": ready, "refused": vars(refusal) if refusal else None}, 200 if ready else 503)

    def describe_model(self) -> Answer:
        """Say what goes into the model and what comes out (OIP: model metadata)."""
        model, refusal = self.model, self._holder.refusal
        return Answer(
            {
                "name": self.name,
                "versions": [model.digest],
                "platform": "seatrial_onnx",
                "inputs": [
                    _described(column.name, column.type, column.required) for column in model.schema.inputs
                ],
                "outputs": [
                    {"name": name, "datatype": datatype, "shape": [-1]}
                    for name, datatype in DATATYPES.items()
                ],
                "parameters": {
                    "bundle": model.digest,
                    "created": model.bundle.manifest.created,
                    "label": model.schema.label,
                    "threshold": model.schema.threshold,
                    "maximum_rows": model.limits.maximum_rows,
                    "maximum_request_bytes": model.limits.maximum_request_bytes,
                    "tables": model.versions,
                    "refused": vars(refusal) if refusal else None,
                    "candidate": self._describe_candidate(),
                },
            }
        )

    def _describe_candidate(self) -> dict[str, Any] | None:
        candidate = self._holder.candidate
        if candidate is None:
            return None
        stage = candidate.stage
        refused = candidate.why or None
        return {"bundle": stage.digest, "weight": stage.weight, "stage": stage.number, "refused": refused}

    def infer(
        self,
        body: bytes,
        client: str | None,
        told: Callable[[bytes | Answer | Exception], None],
        started: float,
        *,
        header_length: int | None = None,
        for_model: bool = False,
    ) -> None:
        """Predict the rows of a request, and answer once they are written down.

        Args:
            body: The request (OIP: inference request).
            client: Who asks.
            told: Called with the answer, which is JSON where it is bytes, or with what was wrong.
            started: When the request was whole, by ``time.perf_counter``.
            header_length: Bytes of the body that are JSON, where binary tensors follow; None: all of it.
            for_model: Whether the bundle that serves must answer, and no candidate.

        Raises:
            RequestError: if the request is malformed, or too many wait.
        """
        model = self.model
        request = model.reader.read(body) if header_length is None else None
        if request is None:
            request = parse_infer(
                body,
                model.schema.inputs,
                maximum_rows=model.limits.maximum_rows,
                header_length=header_length,
            )

        def answer(answered: Answered | Exception) -> None:
            if isinstance(answered, Exception):
                told(answered)
                return
            own = answered.bundle == model.digest
            head = model.answer_head if own else answer_head(self.name, answered.bundle)
            told(write_inference(head, request, answered))

        self.predictor.ask(
            Question(model, request.rows, request.request_id, client, answer, started, for_model=for_model)
        )

    async def explain(self, body: bytes, client: str | None) -> Answer:
        """Predict one row, as :meth:`infer` does, and say what each feature added to its probability.

        It takes the time of a thousand predictions, so one is explained at a time, beside the event loop.

        Args:
            body: The request (OIP: inference request), of one row.
            client: Who asks.

        Raises:
            RequestError: if the request is malformed, has several rows, or another is being explained (429).
            BundleError: if the bundle has no background rows.
            FeatureError: if a feature cannot be computed for its values.
            FeedbackError: if the prediction cannot be written down.
        """
        model = self.model
        request = parse_infer(body, model.schema.inputs, maximum_rows=1)
        if self._explaining:
            raise RequestError(
                "Another prediction is being explained.", status=429, remedy="Try again in a moment."
            )
        self._explaining = True
        try:
            answered = await self.predictor.predict(
                model, request.rows, request.request_id, client, for_model=True
            )
            features = model.encode(request.rows)
            with part("explanation"):
                found = await asyncio.to_thread(model.explain, features[0])
        finally:
            self._explaining = False
        content = {
            "model_name": self.name,
            "model_version": answered.bundle,
            "id": request.request_id,
            "prediction_id": answered.prediction_id[0],
            "probability": answered.probability[0],
            "base": found.base,
            "contributions": found.contributions,
        }
        return Answer(content)

    async def predict_message(
        self, document: dict[str, Any], client: str | None, puid: str | None = None
    ) -> dict[str, Any]:
        """Predict the rows of a message of Seldon's, and answer once they are written down.

        Args:
            document: The message.
            client: Who asks.
            puid: The id that the client gave beside the message.

        Raises:
            RequestError: if the message is malformed, or too many wait.
            FeatureError: if a feature cannot be computed for its values.
            FeedbackError: if the predictions cannot be written down.
        """
        model = self.model
        request = parse_message(document, model.schema.inputs, maximum_rows=model.limits.maximum_rows)
        answered = await self.predictor.predict(model, request.rows, request.puid or puid, client)
        return write_message(self.name, request, puid, answered)

    async def feedback(self, body: bytes) -> Answer:
        """Take in outcomes, write them down, and say what became of each.

        Raises:
            RequestError: if the request is malformed; nothing of it is kept.
            FeedbackError: if the outcomes cannot be written down.
        """
        return await self._take_in(parse_feedback(body, maximum_items=self.model.limits.maximum_rows))

    async def feedback_message(self, document: dict[str, Any]) -> dict[str, Any]:
        """Take in feedback as Seldon has it, write it down, and say what became of each outcome.

        Raises:
            RequestError: if the feedback is malformed, and nothing of it is kept; with status 404 if no
                server knows any of its predictions.
            FeedbackError: if the outcomes cannot be written down.
        """
        items = parse_feedback_message(document, maximum_items=self.model.limits.maximum_rows)
        answer = await self._take_in(items)
        if answer.status == 404:  # noqa: PLR2004 -- not found
            raise RequestError(answer.content["error"], status=404)
        return {"meta": {}, "jsonData": answer.content}

    def describe_seldon(self) -> Answer:
        """Say what goes into the model and what comes out (Seldon: metadata)."""
        model = self.model
        return Answer(describe_model(self.name, model.digest, model.schema.inputs))

    async def _take_in(self, items: list[OutcomeItem]) -> Answer:
        now = time.time_ns() // 1_000
        record = OutcomeRecord(
            [item.prediction_id for item in items],
            [item.value for item in items],
            [self._occurred_at(item, now) for item in items],
            now,
        )
        if self.log is not None:
            terms = Terms(maximum_bytes=self.model.terms.maximum_bytes)
            with part("log commit"):
                await asyncio.wrap_future(self.log.append(record.to_bytes(), terms))
        return self._settle(record)

    def _occurred_at(self, item: OutcomeItem, now: int) -> int:
        if item.occurred_at is not None:
            return to_microseconds(item.occurred_at)
        known = self._recent.get(item.prediction_id)
        # The same outcome sent again, without a time, did not become known later than before.
        return known.occurred_at if known is not None and known.value == item.value else now

    def _settle(self, record: OutcomeRecord) -> Answer:
        results: list[dict[str, Any]] = []
        learned: list[Recent] = []
        for name, value, occurred_at in zip(
            record.prediction_id, record.value, record.occurred_at, strict=True
        ):
            recent = self._recent.get(name)
            if recent is None:
                results.append({"prediction_id": name, "status": "unknown"})
                continue
            before = (recent.value, recent.occurred_at)
            status = recent.settle(value, occurred_at, record.received_at)
            results.append({"prediction_id": name, "status": status, "outcome": recent.value == 1.0})
            if (recent.value, recent.occurred_at) != before:
                learned.append(recent)
        changes = self._holder.learned.add(self.model, learned)
        if (candidate := self._holder.candidate) is not None:
            candidate.learn(changes)
        self.metrics.outcomes.update(result["status"] for result in results)
        return _feedback_answer(self.name, results, alone=self._alone)


def _described(name: str, kind: str, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": KINDS[kind].datatypes[0],
        "shape": [-1],
        "parameters": {"type": kind, "required": required},
    }


def _feedback_answer(name: str, results: list[dict[str, Any]], *, alone: bool) -> Answer:
    counts = dict.fromkeys(("accepted", "repeated", "changed", "unknown"), 0)
    for result in results:
        counts[result["status"]] += 1
    content = {"model_name": name, "results": results, "counts": counts}
    if not counts["unknown"]:
        return Answer(content)
    content["error"] = (
        f"{counts['unknown']} of {len(results)} prediction ids are not among the predictions that this "
        "server remembers. Their outcomes are kept, and count if the tables hold the prediction."
    )
    return Answer(content, 404 if alone and counts["unknown"] == len(results) else 202)
