"""A served model's private fields are nowhere on disk, and all that needs the records still works."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import pytest
from tests.local.serving.conftest import FEATURES, Ferry, crossings, outputs
from tests.local.serving.test_load import figures

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.feedback import join_outcomes
from seatrial.monitoring.monitor import features_matrix
from seatrial.server.service import Service

SECRET = "ada-lovelace"
PLACE = "under-the-bridge"
ROWS = [
    {**row, "crossing_id": f"{SECRET}-{number}", "line": PLACE}
    for number, row in enumerate(crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC))[:6])
]
WITHOUT = re.sub(r"    parts=\(.*?\n    \),\n", "", FEATURES, flags=re.DOTALL).replace(
    '"line": pl.col("line"),', ""
)


@pytest.fixture
def discreet(ferry: Ferry) -> Ferry:
    """The model with its key hashed and its line dropped, and no feature of either."""
    contract = ferry.folder / "model.yaml"
    text = contract.read_text()
    text = text.replace("crossing_id: {type: string,", "crossing_id: {private: hash, type: string,")
    contract.write_text(text.replace("line: {type: string,", "line: {private: drop, type: string,"))
    (ferry.folder / "features.py").write_text(WITHOUT)
    ferry.promote(ferry.make_bundle(seed=7, **{"features.py": WITHOUT.encode()}))
    return ferry


def holders(root: Path) -> list[Path]:
    """Return the files of a folder that hold a private value, or a part of one."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return [path for path in files if re.search(rb"lovelace|the-bridge", path.read_bytes())]


def test_private_fields_never_touch_the_disk(discreet: Ferry) -> None:
    """Neither segments, tables, figures nor the server's words hold them; outcomes, monitoring, restarts work."""
    log = discreet.root / "serving" / "ferry" / "feedback-log"
    with discreet.serve("--ship-every", "600") as server:
        names = outputs(server.infer(ROWS))["prediction_id"]
        assert server.infer([{**ROWS[0], "wind": "far"}]).status == 400
        assert server.feedback({"prediction_id": names[0], "value": True}).content["counts"]["accepted"] == 1
        assert len(list(log.glob("*.segment"))) == 1
        assert holders(discreet.root) == []
        assert not [name for name in figures(server) if "lovelace" in name]
        assert server.stop() == 0
        assert "lovelace" not in server.errors
    with discreet.serve() as server:
        told = server.feedback(
            {"prediction_id": names[0], "value": True}, {"prediction_id": names[1], "value": False}
        )
        assert told.content["counts"] == {"accepted": 1, "repeated": 1, "changed": 0, "unknown": 0}
        assert server.stop() == 0
    assert holders(discreet.root) == []

    joined = join_outcomes(discreet.workspace, "ferry")
    assert joined["prediction_id"].to_list() == sorted(names)
    assert joined["outcome"].drop_nulls().len() == 2
    inputs = pl.DataFrame([orjson.loads(text) for text in joined["inputs"]], infer_schema_length=None)
    assert inputs["line"].to_list() == [None] * 6
    assert inputs["crossing_id"].str.starts_with("hash:").all()
    assert inputs["crossing_id"].n_unique() == 6
    assert joined["key"].to_list() == [f'["{hashed}"]' for hashed in inputs["crossing_id"]]
    bundle = load_bundle(discreet.workspace, discreet.digests[-1], open_trust_root(discreet.workspace))
    assert features_matrix(joined, bundle).shape == (6, len(bundle.schema.features.columns))


def test_a_fault_of_ours_is_told_without_its_text(
    discreet: Ferry, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody expected may hold a client's values, so only its class and its place are told."""
    from types import SimpleNamespace

    from seatrial.server.http import Application
    from seatrial.server.metrics import Metrics
    from seatrial.server.model import load_model

    model = load_model(discreet.workspace, "ferry", discreet.digests[-1], open_trust_root(discreet.workspace))
    holder = SimpleNamespace(current=model, name="ferry")
    service = Service(holder, None, None, None, Metrics())  # type: ignore[arg-type]

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(Service, "infer", fail)
    said: list[bytes] = []
    exchange = SimpleNamespace(
        path="/v2/models/ferry/infer",
        method="POST",
        headers={},
        body=b"{}",
        peer="",
        started=0.0,
        trace=None,
        reply=lambda _, body, **__: said.append(body),
    )
    Application(service).handle(exchange)  # type: ignore[arg-type]
    assert "ZeroDivisionError" in caplog.text
    assert "in fail" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET.encode() not in said[0]
