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
from seatrial.feedback.ids import new_id
from seatrial.feedback.joining import read_outcomes, read_recorded
from seatrial.feedback.shipping import feedback_tables
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
