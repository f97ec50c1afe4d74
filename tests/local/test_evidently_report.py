"""The real evidently draws a real window, without unpickling, without the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("measured_processes")

DRAW = """
import sys
from seatrial.bundle import forbid_unpickling

forbid_unpickling()
sys.addaudithook(lambda event, _: event in ("socket.connect", "socket.getaddrinfo") and sys.exit(3))

import orjson
from datetime import datetime
from pathlib import Path
import numpy as np
import polars as pl
from seatrial.bundle import Bundle, BundleSchema, InputColumn, Manifest
from seatrial.features import FeatureColumn, FeatureSchema
from seatrial.monitoring.evidently_report import write_drift_report

columns = (
    FeatureColumn(name="crosswind_kt", kind="number"),
    FeatureColumn(name="gustiness_kt", kind="number"),
    FeatureColumn(name="carrier_name", kind="category", categories=("Zephyrair", "Boreasjet")),
)
schema = BundleSchema(
    table="flights", key=("id",), inputs=(InputColumn(name="id", type="string", required=True),),
    features=FeatureSchema(columns=columns), label="late", label_time=None, threshold=0.5,
)
generator = np.random.default_rng(1)


def draw(rows, shift):
    numbers = generator.normal(shift, size=rows)
    return np.column_stack([numbers, np.full(rows, np.nan), generator.choice([-2, -1, 0, 1], rows)])


background = [[None if np.isnan(v) else v for v in row] for row in draw(600, 0).tolist()]
files = {
    "model.yaml": Path(sys.argv[1]).read_bytes(),
    "schema.json": schema.model_dump_json().encode(),
    "background.json": orjson.dumps({"columns": schema.features.names, "rows": background}),
}
manifest = Manifest(model="flights", created="2013-07-01", run="r", data={}, files=())
bundle = Bundle("a" * 64, manifest, files, "me")
features = pl.Series(draw(8_000, 2).tolist(), dtype=pl.List(pl.Float32))
joined = pl.DataFrame({"bundle": ["a" * 64] * 8_000, "features": features})
out = Path(sys.argv[2])
write_drift_report(bundle, joined, out / "one" / "drift.html", seed=1)
write_drift_report(bundle, joined.clear(), out / "empty.html", seed=1)
"""


def test_evidently_draws_without_network_and_without_unpickling(tmp_path: Path) -> None:
    """The report of a sample names features and categories, and leaves an empty feature out."""
    contract = Path(__file__).parents[2] / "models" / "flights" / "model.yaml"
    done = subprocess.run(
        [sys.executable, "-c", DRAW, contract, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    page = (tmp_path / "one" / "drift.html").read_text(encoding="utf-8")
    assert all(
        word in page
        for word in ("crosswind_kt", "carrier_name", "Zephyrair", "Boreasjet", "(missing)", "(unseen)")
    )
    assert "gustiness_kt" not in page
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?https?:", page)
    assert "no predictions of this bundle" in (tmp_path / "empty.html").read_text(encoding="utf-8")
