"""What ``seatrial init`` makes of a file is trained by the real pipeline, served, and monitored."""

from __future__ import annotations

import csv
import random
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.local.serving.conftest import Server, outputs, wait_for

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.feedback import join_outcomes
from seatrial.init_model import init_model
from seatrial.init_model.readme import example_request
from seatrial.local_runs import run_locally
from seatrial.monitoring import monitor
from seatrial.promotion import read_pointer
from seatrial.workspace import Workspace
from support.measured import measured

ROWS = 600


def write_orders(path: Path, *, timed: bool) -> None:
    """Write orders of which some are returned: those of one shop, and heavy ones; names are hard on purpose."""
    chance = random.Random(3)
    at = datetime(2025, 1, 1, tzinfo=UTC)
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, delimiter=";")
        lines.writerow(
            ["order id", "shop", "<script>", "it's ünïcode: #1", "outcome", *["ordered at"] * timed]
        )
        for number in range(ROWS):
            at += timedelta(hours=chance.randrange(1, 8))
            shop, weight = chance.choice(["north", "south", "east"]), chance.gauss(0, 1)
            likely = 0.1 + 0.4 * (shop == "east") + 0.3 * (weight > 0.5)
            outcome = "returned" if chance.random() < likely else "kept"
            when = [f"{at:%Y-%m-%d %H:%M}"] * timed
            lines.writerow(
                [f"A-{number}", shop, f"{weight:.3f}".replace(".", ","), chance.randrange(9), outcome, *when]
            )


@pytest.mark.parametrize("timed", [False, True], ids=["without time", "with time"])
def test_a_new_model_goes_round_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timed: bool
) -> None:
    """Init, the training pipeline with a small budget, the gates, a server, an outcome, and the monitor."""
    monkeypatch.chdir(tmp_path)
    write_orders(tmp_path / "orders.csv", timed=timed)
    made = init_model("orders", Path("orders.csv"))
    contract = made.folder / "model.yaml"
    contract.write_text(contract.read_text().replace("trials: 8", "trials: 1"))
    workspace = Workspace.open(tmp_path / "workspace")
    arguments = {"model": str(made.folder), "environment": "local", "as_of": ""}
    with measured() if timed else nullcontext():  # Both run the same steps.
        run = run_locally("training", arguments, workspace, tell=lambda _: None)
    pointer = read_pointer(workspace, "local", "orders")
    assert run.output is True
    assert pointer.digest is not None
    bundle = load_bundle(workspace, pointer.digest, open_trust_root(workspace))
    assert bundle.schema.features.names == ["shop", "<script>", "it's ünïcode: #1"]

    began = datetime(2020, 1, 1, tzinfo=UTC)
    with Server(tmp_path / "workspace", ["--ship-every", "0.2"], {}, model="orders") as server:
        answer = outputs(server.post("/v2/models/orders/infer", example_request(made.proposal)))
        assert 0 < answer["probability"][0] < 1
        outcome = {"prediction_id": answer["prediction_id"][0], "value": 1}
        assert server.post("/v2/models/orders/feedback", outcome).status == 200
        wait_for(
            lambda: join_outcomes(workspace, "orders", start=began)["outcome"].to_list() == [1.0],
            "the outcome to come into the tables",
        )
        assert server.stop() == 0
    end = datetime.now(UTC) + timedelta(hours=1)
    result = monitor(bundle, join_outcomes(workspace, "orders"), start=began, end=end)
    assert (result.rows, result.outcomes) == (1, 1)
