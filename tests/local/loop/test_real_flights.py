"""Real flights go round the loop: trained, served, recorded, watched, and answered by a newer model in the end.

The file is in the order of the loop: what is live trains the model anew, so it comes after what the first
training is asked for. All of it is one file, so that tests side by side train the model once.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.contract import LoadedContract
from seatrial.data_tests import validate
from seatrial.demo import serving
from seatrial.features import compute_features
from seatrial.feedback import join_outcomes, read_predictions
from seatrial.local_runs import StepEvent, run_locally
from seatrial.model_check import load_features
from seatrial.promotion import read_pointer
from seatrial.registry import list_versions
from seatrial.replay import ReplayResult, replay
from seatrial.sources import ingest, read_source
from seatrial.steps.files import read_dataset, read_json
from seatrial.tables import Tables
from seatrial.training import to_onnx, to_skops, train_candidates
from seatrial.triggers import trigger_log
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace
from support.loop import TRAINED_AS_OF, Loop

START, MIDDLE, END = (datetime(2013, 3, day, tzinfo=UTC) for day in (1, 3, 4))


@pytest.fixture(scope="module")
def loop(flights: LoadedContract, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """The model, trained on January and February."""
    workspace = Workspace.open(tmp_path_factory.mktemp("loop") / "workspace")
    events: list[StepEvent] = []
    arguments = {"model": str(flights.folder), "environment": "local", "as_of": TRAINED_AS_OF}
    training = run_locally("training", arguments, workspace, tell=events.append)
    return Loop(flights, workspace, training, events)


def test_a_run_ends_in_a_bundle_that_serves(loop: Loop) -> None:
    """The environment's pointer names a verified bundle with a verdict for every gate, none failed."""
    pointer = read_pointer(loop.workspace, "local", "flights")
    assert pointer.digest is not None
    bundle = load_bundle(loop.workspace, pointer.digest, open_trust_root(loop.workspace))

    assert loop.training.output is True
    assert (pointer.generation, pointer.as_of) == (1, TRAINED_AS_OF)
    assert {v.check for v in bundle.verdicts} == {"data_tests", *loop.loaded.contract.gates.model_fields_set}
    assert [v.check for v in bundle.verdicts if v.outcome is Outcome.FAIL] == []
    assert {"model.onnx", "model.skops", "features.py", "model.yaml", "baseline.json", "card.md"} <= set(
        bundle.files
    )
    assert bundle.manifest.data["flights"]["rows"] == 51_801


def test_the_registry_shows_the_version(loop: Loop) -> None:
    """MLflow has one version, tagged with digest and data versions, with the environment as its alias."""
    (version,) = list_versions(loop.workspace, "flights")

    assert version.digest == read_pointer(loop.workspace, "local", "flights").digest
    assert version.aliases == ["local"]
    assert version.tags["seatrial.verdict"] == "pass"
    assert "seatrial.data.flights" in version.tags


def test_each_step_says_what_it_decided(loop: Loop) -> None:
    """Every step of the pipeline tells a person at least one line."""
    said = {event.step for event in loop.events if event.kind == "said"}

    assert set(loop.training.seconds) <= said


def test_the_report_lies_in_the_workspace(loop: Loop) -> None:
    """The run's report is one HTML file with the verdicts."""
    page = loop.workspace.get(f"runs/flights/{loop.training.name}/report.html")

    assert page is not None
    assert b"quality" in page.lower()


def test_the_same_rows_code_and_contract_give_the_same_model(loop: Loop) -> None:
    """Training again on the run's rows, in another process, gives the bytes that are in the bundle."""
    folder = loop.training.folder
    parts = [read_dataset(str(folder / "split" / name)) for name in ("training", "validation")]
    again = train_candidates(loop.loaded, *parts, progress=lambda _: None)
    digest = read_pointer(loop.workspace, "local", "flights").digest
    assert digest is not None
    bundle = load_bundle(loop.workspace, digest, open_trust_root(loop.workspace))

    assert to_onnx(again.estimator, len(again.schema.columns)) == bundle.files["model.onnx"]
    assert to_skops(again.estimator) == bundle.files["model.skops"]
    assert again.schema == bundle.schema.features


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
