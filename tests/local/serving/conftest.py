"""A small real model, its signed bundles in a workspace, and a real server process.

The model says whether a ferry will be late. It is trained once a test session; each test gets a
copy of the workspace, so that it may promote, tamper and ingest as it likes.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import orjson
import polars as pl
import pytest

from seatrial.bundle import BundleSchema, InputColumn, load_bundle, open_signer, open_trust_root, write_bundle
from seatrial.contract import load_contract
from seatrial.data_tests import validate
from seatrial.features import FeatureSchema, compute_features
from seatrial.model_check import load_features
from seatrial.promotion import promote, read_pointer
from seatrial.sources import ingest
from seatrial.tables import Tables
from seatrial.verdicts import Outcome, Verdict
from seatrial.workspace import Workspace

SEATRIAL = str(Path(sys.executable).with_name("seatrial"))
START = datetime(2024, 1, 1, tzinfo=UTC)
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)

CONTRACT = """\
version: 1
name: ferry
description: Says half an hour before a crossing whether it will be late.
owner: tests@example.com
tables:
  crossings:
    source: {kind: file, path: crossings.csv}
    key: [crossing_id]
    time: departs_at
    columns:
      crossing_id: {type: string, required: true}
      departs_at: {type: time, required: true}
      line: {type: string, required: true}
      wind: {type: number}
      passengers: {type: integer}
      holiday: {type: boolean}
      arrived_at: {type: time}
      late: {type: boolean}
prediction:
  table: crossings
  inputs: [crossing_id, departs_at, line, wind, passengers, holiday]
label: {column: late, time: arrived_at}
split: {validation: 7d, test: 7d}
candidates:
  - {name: logistic, estimator: sklearn.linear_model.LogisticRegression, complexity: 1, encoding: ordinal}
costs: {missed: 5, false_alarm: 1}
gates:
  minimum_quality: {metric: roc_auc, minimum: 0.5}
  parity: {maximum_difference: 0.001}
serving: {maximum_request_bytes: 1000000, maximum_rows: 2000}
"""

FEATURES = """\
import polars as pl

from seatrial.features import Features, History

FEATURES = Features(
    known_at=pl.col("departs_at") - pl.duration(minutes=30),
    parts=(
        History("line_late", "crossings", by=("line",), time="arrived_at", value="late", windows=("1d", "7d")),
    ),
    expressions={
        "wind": pl.col("wind"),
        "passengers": pl.col("passengers"),
        "holiday": pl.col("holiday"),
        "line": pl.col("line"),
        "hour": pl.col("departs_at").dt.hour(),
    },
)
"""


def crossings(days: int, *, start: datetime = START, seed: int = 1) -> list[dict[str, Any]]:
    """Return invented crossings: four lines, one an hour each, late more often in strong wind."""
    chance = random.Random(seed)
    rows = []
    for hour in range(24 * days):
        for line in ("north", "south", "east", "west"):
            departs = start + timedelta(hours=hour, minutes=chance.randrange(60))
            wind = round(chance.uniform(0, 30), 1)
            late = chance.random() < 0.1 + wind / 40
            cancelled = chance.random() < 0.03
            arrived = departs + timedelta(minutes=40 + (35 if late else chance.randrange(10)))
            rows.append(
                {
                    "crossing_id": f"{line}-{hour:05d}-{start:%m%d}",
                    "departs_at": departs,
                    "line": line,
                    "wind": None if chance.random() < 0.05 else wind,
                    "passengers": None if chance.random() < 0.05 else chance.randrange(400),
                    "holiday": chance.random() < 0.1,
                    "arrived_at": None if cancelled else arrived,
                    "late": None if cancelled else late,
                }
            )
    return rows


INPUTS = ("crossing_id", "departs_at", "line", "wind", "passengers", "holiday")
DATATYPES = {"wind": "FP64", "passengers": "INT64", "holiday": "BOOL"}


def infer_body(rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return the request that asks for predictions of ``rows``."""
    tensors = [
        {
            "name": name,
            "shape": [len(rows)],
            "datatype": DATATYPES.get(name, "BYTES"),
            "data": [row[name] for row in rows],
        }
        for name in INPUTS
    ]
    return {"inputs": tensors, **more}


def background(names: list[str], rows: list[list[float]]) -> bytes:
    """Return the rows that a bundle is explained against, as training writes them."""
    plain = [[None if value != value else value for value in row] for row in rows]  # noqa: PLR0124 -- NaN
    return orjson.dumps({"columns": names, "rows": plain})


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("departs_at", "arrived_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    ).write_csv(path)


@dataclass
class Ferry:
    """The model's folder, a workspace with its data and bundles, and what a test does with them."""

    folder: Path
    root: Path
    digests: list[str] = field(default_factory=list)

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root)

    def ingest(self, rows: list[dict[str, Any]], as_of: datetime = AS_OF) -> None:
        """Make ``rows`` what the source holds, and take in the periods that it has."""
        write_csv(self.folder / "crossings.csv", rows)
        loaded = load_contract(self.folder)
        months = sorted({f"{row['departs_at']:%Y-%m}" for row in rows})
        ingest(loaded, self.workspace, periods=months, until=as_of, replace=True)
        validate(loaded, self.workspace, as_of=as_of)

    def features_of(self, rows: list[dict[str, Any]]) -> pl.DataFrame:
        """Compute features in batch, from the valid tables."""
        loaded = load_contract(self.folder)
        tables = {"crossings": Tables(self.workspace, "ferry", "valid").read("crossings")}
        frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
            pl.col("departs_at", "arrived_at").cast(pl.Datetime("us", "UTC"))
        )
        return compute_features(load_features(loaded), frame, tables)

    def make_bundle(self, *, seed: int = 0, **changed: bytes) -> str:
        """Train on what is valid and write a signed bundle."""
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        loaded = load_contract(self.folder)
        rows = Tables(self.workspace, "ferry", "valid").read("crossings").collect()
        labelled = rows.drop_nulls("late")
        features = self.features_of(labelled.to_dicts())
        schema = FeatureSchema.fit(features)
        matrix = schema.encode(features)
        model = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=0.1 / (1 + seed)))
        model.fit(matrix, labelled["late"].cast(pl.Int64).to_numpy())
        onnx = to_onnx(
            model,
            initial_types=[("features", FloatTensorType([None, matrix.shape[1]]))],
            options={"zipmap": False},
            target_opset={"": 21, "ai.onnx.ml": 3},
        )
        contract = loaded.contract
        columns = contract.tables["crossings"].columns
        bundle_schema = BundleSchema(
            table="crossings",
            key=("crossing_id",),
            inputs=tuple(
                InputColumn(name=name, type=columns[name].type, required=columns[name].required)
                for name in INPUTS
            ),
            features=schema,
            label="late",
            label_time="arrived_at",
            threshold=0.4,
        )
        checks = ("data_tests", "minimum_quality", "parity")
        verdicts = [Verdict(check=check, outcome=Outcome.PASS) for check in checks]
        files = {
            "model.yaml": loaded.text.encode(),
            "features.py": FEATURES.encode(),
            "schema.json": bundle_schema.model_dump_json().encode(),
            "model.onnx": onnx.SerializeToString(),
            "verdicts.json": orjson.dumps([verdict.model_dump() for verdict in verdicts]),
            "baseline.json": b"{}",
            "background.json": background(schema.names, matrix[:50].tolist()),
            "metrics.json": orjson.dumps({"seed": seed}),
            **changed,
        }
        digest = write_bundle(
            self.workspace,
            files,
            model="ferry",
            run=f"run-{seed}",
            data={},
            signer=open_signer(self.workspace),
        )
        self.digests.append(digest)
        return digest

    def promote(self, digest: str) -> None:
        """Let the environment ``local`` serve a bundle."""
        bundle = load_bundle(self.workspace, digest, open_trust_root(self.workspace))
        expected = read_pointer(self.workspace, "local", "ferry")
        promote(self.workspace, bundle, environment="local", expected=expected, reason="test", as_of=AS_OF)

    def serve(self, *arguments: str, **environment: str) -> Server:
        """Start a server process, which is ended with the ``with`` block."""
        return Server(self.root, list(arguments), environment)


@dataclass
class Response:
    """What the server answered."""

    status: int
    content: Any
    headers: dict[str, str]


class Server:
    """A server process of our own."""

    def __init__(
        self,
        root: Path,
        arguments: list[str],
        environment: dict[str, str],
        *,
        model: str = "ferry",
        program: tuple[str, ...] = (SEATRIAL,),
    ) -> None:
        self._address_file = root.parent / f"address-{time.monotonic_ns()}"
        self._errors = root.parent / f"stderr-{time.monotonic_ns()}"
        command = [*program, "serve", model, "--workspace", str(root), "--port", "0"]
        command += ["--address-file", str(self._address_file), *arguments]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **environment}
            )

    def __enter__(self) -> Self:
        wait_for(
            lambda: self._address_file.exists() or self.process.poll() is not None, "the server to start"
        )
        assert self.process.poll() is None, self.errors
        self.address = self._address_file.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def errors(self) -> str:
        """What the server wrote to its standard error."""
        return self._errors.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the server and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def get(self, path: str) -> Response:
        return self._send(path, None, {}, "GET")

    def post(self, path: str, body: Any, **headers: str) -> Response:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        shown = {"content-type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self._send(path, data, shown, "POST")

    def infer(self, rows: list[dict[str, Any]], **more: Any) -> Response:
        return self.post("/v2/models/ferry/infer", infer_body(rows, **more))

    def feedback(self, *outcomes: dict[str, Any]) -> Response:
        return self.post("/v2/models/ferry/feedback", {"outcomes": list(outcomes)})

    def _send(self, path: str, body: bytes | None, headers: dict[str, str], method: str) -> Response:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Response(answer.status, orjson.loads(answer.read()), dict(answer.headers))


def outputs(response: Response) -> dict[str, list[Any]]:
    """Return the outputs of an answer, by their names."""
    assert response.status == 200, response.content
    return {output["name"]: output["data"] for output in response.content["outputs"]}


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until ``condition`` holds, and fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def trained_ferry(tmp_path_factory: pytest.TempPathFactory) -> Ferry:
    base = tmp_path_factory.mktemp("ferry-session")
    folder = base / "ferry"
    folder.mkdir()
    (folder / "model.yaml").write_text(CONTRACT)
    (folder / "features.py").write_text(FEATURES)
    made = Ferry(folder, base / "workspace")
    made.ingest(crossings(31))
    for seed in range(2):
        made.make_bundle(seed=seed)
    made.promote(made.digests[0])
    return made


@pytest.fixture
def ferry(trained_ferry: Ferry, tmp_path: Path) -> Iterator[Ferry]:
    """A copy of the model's folder and workspace, for one test."""
    shutil.copytree(trained_ferry.folder, tmp_path / "ferry")
    shutil.copytree(trained_ferry.root, tmp_path / "workspace")
    with contextlib.chdir(tmp_path):
        yield Ferry(tmp_path / "ferry", tmp_path / "workspace", list(trained_ferry.digests))


@pytest.fixture(scope="module")
def server(trained_ferry: Ferry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that speaks all protocols; a module that wants another one has its own fixture."""
    log = tmp_path_factory.mktemp("log")
    arguments = ("--grpc-port", "0", "--log-folder", str(log), "--ship-every", "600")
    with trained_ferry.serve(*arguments) as started:
        yield started
        assert "Traceback" not in started.errors
