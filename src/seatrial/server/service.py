"""What the server does, apart from HTTP: describe the model, predict, take in outcomes.

A prediction is on disk before its answer leaves, an outcome before it is confirmed; what cannot be
written is not answered, with 503 (:mod:`seatrial.feedback.log`).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson

from seatrial.features.online import to_microseconds
from seatrial.feedback.ids import new_id
from seatrial.feedback.log import FeedbackLog
from seatrial.feedback.recent import Recent, RecentPredictions
from seatrial.feedback.rows import OutcomeRecord, PredictionRecord
from seatrial.server.holder import ModelHolder
from seatrial.server.model import Predicted, ServedModel
from seatrial.server.requests import KINDS, InferRequest, OutcomeItem, parse_feedback, parse_infer

CHUNK_ROWS = 128
"""Rows that are computed without letting other requests in between."""


@dataclass(frozen=True)
class Answer:
    """What the server answers.

    Attributes:
        content: The body, JSON-serializable.
        status: The HTTP status.
    """

    content: dict[str, Any]
    status: int = 200


class Service:
    """The server's part that knows what a prediction and an outcome are.

    Args:
        holder: Holds the model that answers.
        log: Where answers and outcomes are written.
        recent: The predictions that outcomes are expected for.
        alone: Whether no other server answers for this model: a prediction that is not known here may
            be another's.
    """

    def __init__(
        self, holder: ModelHolder, log: FeedbackLog, recent: RecentPredictions, *, alone: bool = True
    ) -> None:
        self._holder = holder
        self._log = log
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

    def describe_server(self) -> Answer:
        """Say what the server is (OIP: server metadata)."""
        return Answer({"name": "seatrial", "version": version("seatrial"), "extensions": ["feedback"]})

    def readiness(self) -> Answer:
        """Say that requests are answered, and which bundle was refused, if one was."""
        refusal = self._holder.refusal
        return Answer({"ready": True, "refused": vars(refusal) if refusal else None})

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
                    {"name": "probability", "datatype": "FP64", "shape": [-1]},
                    {"name": "flagged", "datatype": "BOOL", "shape": [-1]},
                    {"name": "prediction_id", "datatype": "BYTES", "shape": [-1]},
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
                },
            }
        )

    async def infer(self, body: bytes) -> Answer:
        """Predict the rows of a request, write them down, and answer.

        Raises:
            RequestError: if the request is malformed.
            FeatureError: if a feature cannot be computed for its values.
            FeedbackError: if the prediction cannot be written down.
        """
        model = self.model
        request = parse_infer(body, model.schema.inputs, maximum_rows=model.limits.maximum_rows)
        predicted = await _predict(model, request.rows)
        record = _record(model, request, predicted)
        await asyncio.wrap_future(self._log.append(record.to_bytes()))
        for known in zip(record.prediction_id, record.key, record.inputs, strict=True):
            self._recent.add(*known)
        return Answer(_inference(self.name, request, record))

    async def feedback(self, body: bytes) -> Answer:
        """Take in outcomes, write them down, and say what became of each.

        Raises:
            RequestError: if the request is malformed; nothing of it is kept.
            FeedbackError: if the outcomes cannot be written down.
        """
        items = parse_feedback(body, maximum_items=self.model.limits.maximum_rows)
        now = time.time_ns() // 1_000
        record = OutcomeRecord(
            [item.prediction_id for item in items],
            [item.value for item in items],
            [self._occurred_at(item, now) for item in items],
            now,
        )
        await asyncio.wrap_future(self._log.append(record.to_bytes()))
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
        self._holder.learned.add(self.model, learned)
        return _feedback_answer(self.name, results, alone=self._alone)


def _described(name: str, kind: str, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": KINDS[kind].datatypes[0],
        "shape": [-1],
        "parameters": {"type": kind, "required": required},
    }


async def _predict(model: ServedModel, rows: list[tuple[Any, ...]]) -> Predicted:
    if len(rows) <= CHUNK_ROWS:
        return model.predict(rows)
    parts = []
    for first in range(0, len(rows), CHUNK_ROWS):
        parts.append(model.predict(rows[first : first + CHUNK_ROWS], first=first))
        await asyncio.sleep(0)
    return Predicted(
        np.concatenate([part.features for part in parts]),
        [instant for part in parts for instant in part.known_at],
        [value for part in parts for value in part.probability],
        [value for part in parts for value in part.flagged],
    )


def _record(model: ServedModel, request: InferRequest, predicted: Predicted) -> PredictionRecord:
    names = [column.name for column in model.schema.inputs]
    places = [names.index(column) for column in model.schema.key]
    return PredictionRecord(
        prediction_id=[new_id() for _ in request.rows],
        request_id=request.request_id,
        served_at=time.time_ns() // 1_000,
        known_at=predicted.known_at,
        bundle=model.digest,
        key=[_json([row[place] for place in places]) for row in request.rows],
        inputs=[_json(dict(zip(names, row, strict=True))) for row in request.rows],
        features=predicted.features,
        probability=predicted.probability,
        flagged=predicted.flagged,
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _inference(name: str, request: InferRequest, record: PredictionRecord) -> dict[str, Any]:
    shape = [len(request.rows)]
    outputs: dict[str, dict[str, Any]] = {
        "probability": {"datatype": "FP64", "data": record.probability},
        "flagged": {"datatype": "BOOL", "data": record.flagged},
        "prediction_id": {"datatype": "BYTES", "data": record.prediction_id},
    }
    return {
        "model_name": name,
        "model_version": record.bundle,
        **({"id": request.request_id} if request.request_id is not None else {}),
        "parameters": {"bundle": record.bundle},
        "outputs": [{"name": output, "shape": shape, **outputs[output]} for output in request.outputs],
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
