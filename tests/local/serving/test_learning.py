"""Outcomes that arrive while a newer model is being made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
from tests.local.serving.conftest import INPUTS, Ferry, crossings

from seatrial.bundle import open_trust_root
from seatrial.feedback.recent import Recent
from seatrial.server.learning import Learned
from seatrial.server.model import ServedModel, load_model

FEBRUARY = datetime(2024, 2, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ROWS = crossings(2, start=FEBRUARY, seed=5)


def arrived(place: int, *, late: bool, hours: int = 1) -> Recent:
    """Return a prediction whose outcome became known so many hours after its departure."""
    row = ROWS[place]
    inputs = orjson.dumps({name: row[name] for name in INPUTS}).decode()
    known = (row["departs_at"] + timedelta(hours=hours) - EPOCH) // timedelta(microseconds=1)
    return Recent(f'["{row["crossing_id"]}"]', inputs, float(late), known, known)


def model_of(ferry: Ferry, bundle: int = 0) -> ServedModel:
    return load_model(ferry.workspace, "ferry", ferry.digests[bundle], open_trust_root(ferry.workspace))


def features(model: ServedModel) -> list[list[float]]:
    asked = [tuple(row[name] for name in INPUTS) for row in ROWS[96:]]
    return np.nan_to_num(model.predict(asked).features, nan=-9).tolist()


def test_newer_model_catches_up(ferry: Ferry) -> None:
    """What arrives, or changes, between the snapshot and the swap counts in the newer model once."""
    old, learned = model_of(ferry), Learned()
    untouched = features(old)
    learned.add(old, [arrived(0, late=True), arrived(1, late=False)])
    changes = learned.snapshot()
    learned.add(old, [arrived(1, late=True, hours=2), arrived(2, late=True)])
    newer = model_of(ferry, bundle=1)
    newer.count(changes)
    learned.catch_up(newer)
    assert features(newer) == features(old) != untouched
    assert len(learned) == 3


def test_failed_load_leaves_what_was_learned(ferry: Ferry) -> None:
    """If no newer model comes of a snapshot, the next one holds all that arrived in the meantime."""
    old, learned = model_of(ferry), Learned()
    learned.add(old, [arrived(0, late=True)])
    learned.snapshot()
    learned.add(old, [arrived(1, late=True)])
    learned.give_up()
    changes = learned.snapshot()
    newer = model_of(ferry)
    newer.count(changes)
    learned.catch_up(newer)
    assert features(newer) == features(old)


def test_tables_take_over(ferry: Ferry) -> None:
    """A row that is in the tables by now is forgotten here, and a model made from them has it once."""
    old, learned = model_of(ferry), Learned()
    truth = {row["crossing_id"]: row for row in ROWS}
    for place in range(8):
        late = truth[ROWS[place]["crossing_id"]]["late"]
        if late is not None:
            recent = arrived(place, late=late)
            arrival = truth[ROWS[place]["crossing_id"]]["arrived_at"]
            recent.occurred_at = (arrival - EPOCH) // timedelta(microseconds=1)
            learned.add(old, [recent])
    before = len(learned)
    ferry.ingest(crossings(31) + ROWS[:8])
    changes = learned.snapshot()
    newer = model_of(ferry)
    newer.count(changes)
    learned.catch_up(newer)
    assert before > 0
    assert len(learned) == 0
    assert features(newer) == features(old)
