"""Compacting, retaining and erasing feedback beside a server that writes it."""

from __future__ import annotations

import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import polars as pl
from tests.local.serving.conftest import SEATRIAL, Ferry, crossings, outputs

from seatrial.contract import load_contract
from seatrial.contract.schema import Contract, Feedback
from seatrial.feedback import FeedbackLog, Shipper, join_outcomes, upkeep
from seatrial.feedback.ids import first_id_at, new_id
from seatrial.feedback.joining import read_outcomes, read_recorded
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.workspace import Workspace
from support.feedback_records import outcome, prediction

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)


def test_upkeep_beside_a_shipper_loses_nothing(ferry: Ferry, tmp_path: Path) -> None:
    """While a server ships, compacting, retaining and erasing take their turns; each row is there once or erased."""
    workspace, tables = ferry.workspace, feedback_tables(ferry.workspace, "ferry")
    kept = load_contract(ferry.folder).contract.model_copy(
        update={"feedback": Feedback(retention=timedelta(days=300), versions=timedelta(hours=1))}
    )
    doomed: set[str] = set()
    names: set[str] = set()
    said: list[str] = []
    with closing(FeedbackLog(tmp_path / "log")) as log:
        shipper = Shipper(log, tables, every=0.01, report=said.append)
        shipper.start()
        for round_ in range(8):
            for _ in range(20):
                name = new_id()
                names.add(name)
                log.append(prediction(name)).result()
                log.append(outcome(name, 1.0, received_at=time.time_ns() // 1_000)).result()
            shipped = set(read_recorded(ferry.workspace, "ferry").collect()["prediction_id"])
            erased = set(sorted(shipped - doomed)[:5])
            upkeep.erase(ferry.workspace, "ferry", erased)
            doomed |= erased
            (upkeep.compact if round_ % 2 else _retain)(workspace, kept)
        shipper.stop()
    rows = read_recorded(ferry.workspace, "ferry").collect()["prediction_id"].to_list()
    assert len(rows) == len(set(rows))
    assert set(rows) == names - doomed
    assert len(doomed) >= 20
    # An outcome may have been shipped after its prediction was erased.
    outcomes = read_outcomes(ferry.workspace, "ferry").collect()["prediction_id"].to_list()
    assert len(outcomes) == len(set(outcomes))
    assert names - doomed <= set(outcomes)


def _retain(workspace: Workspace, contract: Contract) -> None:
    upkeep.retain(workspace, contract, now=datetime.now(UTC))


def test_upkeep_by_the_contract_that_is_served(ferry: Ferry, tmp_path: Path) -> None:
    """Where there is no contract but in the served bundle, as in a pod, compacting and retaining go by that one."""
    (elsewhere := tmp_path / "elsewhere").mkdir()
    model = ferry.folder / "model.yaml"
    model.write_text(f"{model.read_text()}feedback: {{retention: 1h}}\n")
    ferry.promote(ferry.make_bundle(seed=4))
    old = f"{first_id_at(datetime.now(UTC) - timedelta(hours=2))}-7000-8000-{1:012x}"
    with closing(FeedbackLog(tmp_path / "log")) as log:
        log.append(prediction(old, new_id())).result()
        ship(log, feedback_tables(ferry.workspace, "ferry"))
    assert old in set(read_recorded(ferry.workspace, "ferry").collect()["prediction_id"])

    for action in ("compact", "retain"):
        for environment, code in (("local", 0), ("nowhere", 10)):
            command = [SEATRIAL, "feedback", action, "ferry", "--env", environment, "-w", str(ferry.root)]
            done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stderr
        assert "serves no bundle of 'ferry' yet" in done.stderr
    left = set(read_recorded(ferry.workspace, "ferry").collect()["prediction_id"])
    assert old not in left
    assert len(left) == 1


def test_a_subject_is_erased_beside_the_server(ferry: Ferry) -> None:
    """What a running server has not shipped is waited for; then the subject is gone, and the others are not."""
    subject = ROWS[3]["crossing_id"]
    with ferry.serve("--ship-every", "0.2") as server:
        names = outputs(server.infer(ROWS[:10]))["prediction_id"]
        server.feedback(*({"prediction_id": name, "value": True} for name in names))
        command = [SEATRIAL, "feedback", "erase", str(ferry.folder), "--subject", f"crossing_id={subject}"]
        command += ["-w", str(ferry.root), "--json"]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert orjson.loads(done.stdout)["predictions"] == 1
        later = outputs(server.infer(ROWS[10:12]))["prediction_id"]
        assert server.stop() == 0
    left = [*names[:3], *names[4:], *later]
    joined = join_outcomes(ferry.workspace, "ferry")
    assert sorted(joined["prediction_id"]) == sorted(left)
    assert joined["outcome"].drop_nulls().len() == 9
    feedback = ferry.root / "tables" / "ferry" / "feedback"
    data = [path for path in feedback.rglob("*.parquet") if "_delta_log" not in path.parts]
    assert not [path for path in data if subject in str(pl.read_parquet(path).rows())]
    assert not [path for path in feedback.rglob("*.json") if subject in path.read_text()]
