"""Real flights as live traffic: served, recorded, watched, and answered by a newer model in the end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.data_tests import validate
from seatrial.demo import serving
from seatrial.features import compute_features
from seatrial.feedback import join_outcomes, read_predictions
from seatrial.model_check import load_features
from seatrial.promotion import read_pointer
from seatrial.replay import ReplayResult, replay
from seatrial.sources import ingest, read_source
from seatrial.steps.files import read_json
from seatrial.tables import Tables
from seatrial.triggers import trigger_log
from support.loop import Loop

START, MIDDLE, END = (datetime(2013, 3, day, tzinfo=UTC) for day in (1, 3, 4))


async def _replay(
    loop: Loop, url: str, start: datetime, end: datetime, before: ReplayResult | None
) -> ReplayResult:
    rows = read_source(loop.loaded, "flights").filter(
        pl.col("scheduled_departure") >= start, pl.col("scheduled_departure") < end
    )
    known_at = load_features(loop.loaded).known_at
    assert known_at is not None
    pending = before.pending if before else ()
    return await replay(
        loop.loaded.contract, rows, url, known_at=known_at, slot="1m", end=end, pending=pending
    )


@pytest.fixture(scope="module")
def live(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReplayResult]:
    """Two days live, then the monitoring pipeline, which trains again, then another day live."""
    ingest(loop.loaded, loop.workspace, periods=["2013-03"], tables=["weather"], until=END)
    validate(loop.loaded, loop.workspace, as_of=END)
    with serving(loop.workspace, str(loop.loaded.folder), tmp_path_factory.mktemp("server")) as url:
        first = asyncio.run(_replay(loop, url, START, MIDDLE, None))
        ingest(
            loop.loaded, loop.workspace, periods=["2013-03-01", "2013-03-02"], tables=["flights"], until=END
        )
        loop.run("monitoring", start="2013-02-28T22:00:00+00:00", as_of=MIDDLE.isoformat())
        second = asyncio.run(_replay(loop, url, MIDDLE, END, first))
    return {"first": first, "second": second}


def test_every_request_is_answered_and_recorded_once(loop: Loop, live: dict[str, ReplayResult]) -> None:
    """No request fails, and each prediction is in the tables once, with its outcome if it had one."""
    results = live.values()
    found = join_outcomes(loop.workspace, "flights")
    sent = {id_ for result in results for id_ in result.prediction_ids.values()}

    assert [error for result in results for error in result.errors] == []
    assert found.height == len(sent) > 2_000
    assert set(found["prediction_id"]) == sent
    assert found["outcome"].drop_nulls().len() == sum(result.outcomes for result in results)


def test_served_features_are_those_that_training_computes(loop: Loop, live: dict[str, ReplayResult]) -> None:
    """Histories learned from live outcomes equal those computed from the tables, value by value."""
    ingest(loop.loaded, loop.workspace, periods=["2013-03-03"], tables=["flights"], until=END)
    validate(loop.loaded, loop.workspace, as_of=END)
    valid = Tables(loop.workspace, "flights", "valid")
    tables = {name: valid.read(name) for name in loop.loaded.contract.tables}
    served = read_predictions(loop.workspace, "flights")
    rows = tables["flights"].collect()
    compared = 0
    for (digest,), part in served.group_by("bundle"):
        bundle = load_bundle(loop.workspace, str(digest), open_trust_root(loop.workspace))
        key = pl.col("key").str.json_decode(pl.List(pl.String)).list.first().alias("flight_id")
        both = part.select(key, "features").join(rows, on="flight_id", how="inner")
        inputs = both.select([column.name for column in bundle.schema.inputs])
        made = compute_features(bundle.features, inputs, tables, use=bundle.schema.features.names)
        online = np.array(both["features"].to_list(), dtype=np.float32)
        np.testing.assert_array_equal(online, bundle.schema.features.encode(made))
        compared += both.height
    assert compared == served.height


def test_new_data_trains_again_once_and_the_server_takes_the_challenger(
    loop: Loop, live: dict[str, ReplayResult]
) -> None:
    """One cause fires one run; the challenger is compared with the champion; later rows are its own."""
    fired = trigger_log(loop.workspace, "flights").all()
    pointer = read_pointer(loop.workspace, "local", "flights")
    folder = max((loop.workspace.folder / "pipeline-runs").glob("monitoring-*"))
    found = read_json(str(folder / "gates" / "found"))

    assert len(fired) == 1
    assert "new_rows" in fired[0].content["causes"]
    assert found["evaluation"]["champion"]["digest"] == fired[0].content["champion"]
    assert pointer.generation == 2
    assert set(live["first"].bundles) == {fired[0].content["champion"]}
    assert set(live["second"].bundles) == {pointer.digest}


def test_the_monitor_has_judged_the_window(loop: Loop, live: dict[str, ReplayResult]) -> None:
    """The monitoring run judged the predictions of the window, with quality from joined outcomes."""
    assert live
    folder = max((loop.workspace.folder / "pipeline-runs").glob("monitoring-*"))
    result = read_json(str(folder / "monitor" / "result"))

    assert result["rows"] == sum(live["first"].bundles.values())
    assert result["outcomes"] > 1_000
    assert 0.5 < result["quality"]["roc_auc"]["value"] < 1
    assert (folder / "draw" / "drift").read_text().lstrip().lower().startswith("<")
