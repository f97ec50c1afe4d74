"""The demonstration: real flights go round the whole loop on one machine, with no cluster.

January to June are history: a model is trained on them and served. July to December arrive as
live traffic, month by month, in simulated time: requests two hours before each departure, outcomes
when the flights landed. When a month is over, the monitoring pipeline takes its data in, judges
the live window, and trains a challenger if the contract says so, while the next month's requests
already come; if the challenger passes its gates, the server takes it without dropping a request.

Everything here is what a user would run: the two pipelines, ``seatrial serve``, and HTTP. Only the first
month's drift is drawn beside them, by the monitoring pipeline's own step: nothing waits for it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import orjson
import polars as pl

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.contract.schema import parse_duration
from seatrial.data_tests import validate
from seatrial.errors import SeatrialError, UsageError
from seatrial.features import compute_features
from seatrial.feedback import read_predictions
from seatrial.live_traffic import SLOT, Traffic
from seatrial.local_runs import LocalRun, StepEvent, run_locally
from seatrial.model_check import check_model
from seatrial.promotion import read_pointer
from seatrial.replay import ReplayResult
from seatrial.report import drift_key, monitor_key, report_key
from seatrial.sources import Period, ingest, read_source
from seatrial.step_processes import StepProcesses
from seatrial.steps.files import read_json
from seatrial.tables import Tables
from seatrial.triggers import cool_down_until, trigger_log
from seatrial.workspace import Workspace

MODEL = "flights"
ENVIRONMENT = "local"
HISTORY_UNTIL = "2013-06"
LIVE_MONTHS = ("2013-07", "2013-08", "2013-09", "2013-10", "2013-11", "2013-12")
FEED = "weather"
MARKER = ".seatrial-demo"
START_SECONDS = 60.0
LOOK_SECONDS = 0.1
SHIP_SECONDS = 60.0
ROWS_TOGETHER = 100
"""Flights in a request after the first live month, in which each flight has a request of its own."""
ASKED_BEFORE = timedelta(hours=2)
PACE = 1.5
"""How long a month of traffic lasts, as a share of the first training, while another model may be trained: so its
challenger comes before the month is over."""
DRAW = (
    "import os, sys; os.nice(10); from seatrial.steps.watching import draw_drift; draw_drift(*sys.argv[1:])"
)
"""The monitoring pipeline's step that evidently draws by, as a process that takes what the others leave."""
DRAW_SECONDS = 900.0


@dataclass
class Month:
    """What happened in a month of live traffic.

    Attributes:
        name: The month.
        requests: HTTP requests for predictions.
        rows: Flights that were asked about.
        failed: Requests that were not answered as they should be.
        latency_milliseconds: Median and 99th percentile of a request.
        outcomes: Outcomes that were sent.
        bundles: Rows that each bundle answered.
        verdicts: The monitor's verdicts: outcome and value by check.
        drifted: Features that have drifted.
        causes: The rules that asked for a retraining.
        retrained: Whether a challenger was trained.
        challenger: Verdict and gain of the challenger, if one was trained.
    """

    name: str
    requests: int = 0
    rows: int = 0
    failed: int = 0
    latency_milliseconds: tuple[float, float] = (0.0, 0.0)
    outcomes: int = 0
    bundles: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    drifted: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    retrained: bool = False
    challenger: dict[str, Any] | None = None


@dataclass
class Summary:
    """What the demonstration showed.

    Attributes:
        workspace: Where everything lies.
        seconds: Wall-clock time of each stage.
        training: The first training: candidates, figures on the test rows, cost against doing nothing.
        months: The live months.
        parity: Served feature values that equal those that training computes: compared and equal.
        reports: What to look at, by name.
    """

    workspace: str
    seconds: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    months: list[Month] = field(default_factory=list)
    parity: dict[str, int] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)


class Narrator(Protocol):
    """How the demonstration tells what happens; the command line prints it."""

    def stage(self, title: str) -> None:
        """Say that a stage begins."""

    def resume(self) -> None:
        """Say that a pipeline has ended, so that live traffic is to be seen again."""

    def event(self, event: StepEvent) -> None:
        """Say what a pipeline's step did."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Say how far live traffic has come."""

    def note(self, line: str) -> None:
        """Say something else."""


def prepare_folder(folder: Path) -> Workspace:
    """Make the demonstration's folder anew; what an earlier demonstration left there is removed.

    Raises:
        UsageError: if the folder has files and was not made by a demonstration.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(
            f"The folder {folder} has files that no demonstration has made.",
            remedy="Name an empty folder with --folder.",
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return Workspace.open(folder / "workspace")


@contextmanager
def serving(workspace: Workspace, model: str, folder: Path) -> Iterator[str]:
    """Run ``seatrial serve`` as a process of its own, and stop it at the end.

    Yields:
        The server's address.

    Raises:
        SeatrialError: if it does not get ready; its log says why.
    """
    address, log = folder / "server.address", folder / "server.log"
    command = [sys.executable, "-m", "seatrial", "serve", model, "--env", ENVIRONMENT]
    command += ["--workspace", workspace.root, "--port", "0", "--address-file", str(address)]
    command += ["--ship-every", "2", "--exit-with-parent"]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603
    try:
        yield _wait_for_address(process, address, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_address(process: subprocess.Popen[bytes], address: Path, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if address.is_file() and (text := address.read_text(encoding="utf-8").strip()):
            return text
        time.sleep(0.05)
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
    raise SeatrialError(f"The server did not get ready: {' '.join(last)}", remedy=f"Its log is in {log}.")


def _wait_for_table(url: str, table: str, version: int) -> None:
    """Wait until the server's features know a table at this version or a later one."""
    _wait_for(url, f"version {version} of {table}", lambda said: said["tables"].get(table, -1) >= version)


def _wait_for_bundle(url: str, digest: str | None) -> None:
    """Wait until the server answers by this bundle."""
    _wait_for(url, f"the bundle {str(digest)[:12]}", lambda said: said["bundle"] == digest)


def _wait_for(url: str, what: str, is_there: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/v2/models/{MODEL}") as answer:  # noqa: S310 -- our own server's address
            if is_there(orjson.loads(answer.read())["parameters"]):
                return
        time.sleep(LOOK_SECONDS)
    raise SeatrialError(f"The server did not take {what} within {START_SECONDS:g} s.")


class Demo:
    """One demonstration.

    Args:
        folder: Where everything goes.
        months: The live months.
        narrator: Who tells what happens.
    """

    def __init__(self, folder: Path, months: tuple[str, ...], narrator: Narrator) -> None:
        self._folder = folder
        self._months = months
        self._narrator = narrator
        self._workspace = prepare_folder(folder)
        self._loaded = check_model(MODEL)
        self._processes = StepProcesses()
        self._drawing: subprocess.Popen[bytes] | None = None
        self._drawing_log = folder / "drawing.log"
        self.summary = Summary(self._workspace.root)

    def run(self) -> Summary:
        """Go round the loop.

        Returns:
            What it showed; also written to ``summary.json`` in the folder.

        Raises:
            SeatrialError: if a part of the loop failed.
        """
        started = time.perf_counter()
        with self._processes, ThreadPoolExecutor(1) as beside:
            rows = self._train(beside).result()
            with serving(self._workspace, MODEL, self._folder) as url:
                self._narrator.note(f"serving at {url}")
                self._go_live(Traffic(self._loaded, rows, url, self._narrator.progress))
        self._compare_features()
        self.summary.seconds["total"] = time.perf_counter() - started
        content = orjson.dumps(asdict(self.summary), option=orjson.OPT_INDENT_2)
        (self._folder / "summary.json").write_bytes(content)
        return self.summary

    def _go_live(self, traffic: Traffic) -> None:
        try:
            self._live(traffic)
            self._finish_drawing()
        finally:
            traffic.stop()
            if self._drawing is not None:
                self._drawing.kill()
                self._drawing.wait()

    @contextmanager
    def _stage(self, name: str, title: str) -> Iterator[None]:
        self._narrator.stage(title)
        started = time.perf_counter()
        yield
        self.summary.seconds[name] = time.perf_counter() - started

    def _pipeline(
        self,
        name: str,
        month: str,
        tell: Callable[[StepEvent], None] | None = None,
        **arguments: str | bool,
    ) -> LocalRun:
        instant = Period.parse(month).end.isoformat()
        arguments |= {
            "model": str(self._loaded.folder.resolve()),
            "environment": ENVIRONMENT,
            "as_of": instant,
        }
        try:
            return run_locally(
                name,
                arguments,
                self._workspace,
                tell=tell or self._narrator.event,
                processes=self._processes,
            )
        finally:
            self._narrator.resume()

    def _train(self, beside: ThreadPoolExecutor) -> Future[pl.DataFrame]:
        """Train the first model; return the flights to come, read while steps run that need one core alone."""
        coming: list[Future[pl.DataFrame]] = []

        def tell(event: StepEvent) -> None:
            self._narrator.event(event)
            if (event.step, event.kind) == ("train", "ended"):
                coming.append(beside.submit(self._read_ahead))

        with self._stage("training", "January to June are history: train, judge, bundle, register"):
            run = self._pipeline("training", HISTORY_UNTIL, tell)
        self.summary.seconds |= {f"training.{step}": seconds for step, seconds in run.seconds.items()}
        found = read_json(str(run.folder / "gates" / "found"))
        metrics = found["evaluation"]["metrics"]
        self.summary.training = {
            "candidates": [
                {key: candidate[key] for key in ("name", "metrics", "seconds", "chosen")}
                for candidate in found["training"]["candidates"]
            ],
            "test": {
                name: metrics[name] for name in ("roc_auc", "average_precision", "brier_score", "cost_ratio")
            },
            "rows": {"training": found["training"]["rows"], "test": found["evaluation"]["rows"]},
            "gates": {verdict["check"]: verdict["outcome"] for verdict in found["verdicts"]},
        }
        self.summary.reports["training"] = self._workspace.uri(report_key(MODEL, run.name))
        if not run.output:
            raise SeatrialError(
                "The first model did not pass its gates.",
                remedy=f"Look at {self.summary.reports['training']}",
            )
        return coming[0]

    def _read_ahead(self) -> pl.DataFrame:
        self._feed_weather(self._months[0])
        return read_source(self._loaded, self._loaded.contract.prediction.table)

    def _live(self, traffic: Traffic) -> None:
        self._narrator.stage(f"{self._months[0]} arrives as live traffic: a request for each flight")
        traffic.start(self._months[0], 1)
        for name, following in zip_longest(self._months, self._months[1:]):
            month = Month(name)
            with self._stage(f"{name}.live", ""):
                version = self._feed_weather(following) if following else 0
                result = traffic.finish()
                if following:
                    # Traffic never stops: the next month begins while this one is looked at.
                    _wait_for_table(traffic.url, FEED, version)
                    self._pace(traffic, name)
                    traffic.start(following, ROWS_TOGETHER)
                self._end_of(month, result)
            with self._stage(
                f"{name}.monitoring", f"{name} is over: take its data in, and look at what was live"
            ):
                self._look_back(month, traffic)
            self.summary.months.append(month)

    def _feed_weather(self, month: str) -> int:
        """Bring a month of weather, as its hourly feed would; a request sees none that is later than it.

        Returns:
            The version of the table that has it.
        """
        end = Period.parse(month).end
        ingest(self._loaded, self._workspace, periods=[month], tables=[FEED], until=end)
        validate(self._loaded, self._workspace, as_of=end, tables=[FEED])
        table = Tables(self._workspace, MODEL, "valid").open(FEED)
        assert table is not None
        return table.version()

    def _window(self, month: str) -> tuple[datetime, datetime]:
        """When a month's flights are asked about: from its first departure on, two hours earlier."""
        period = Period.parse(month)
        return period.start - ASKED_BEFORE, period.end - ASKED_BEFORE

    def _end_of(self, month: Month, result: ReplayResult) -> None:
        month.requests, month.failed = result.requests, result.failures
        month.rows = sum(result.bundles.values())
        month.latency_milliseconds = (result.p50, result.p99)
        month.outcomes = result.outcomes
        answered = self._shipped(month)
        counts = answered["bundle"].value_counts(sort=True)
        month.bundles = {str(bundle)[:12]: int(count) for bundle, count in counts.iter_rows()}
        self._narrator.note(
            f"{month.rows:,} flights in {month.requests:,} requests, {month.failed} failed, "
            f"{month.latency_milliseconds[0]:.1f} ms median, {month.latency_milliseconds[1]:.1f} ms p99; "
            f"{month.outcomes:,} outcomes"
        )

    def _shipped(self, month: Month) -> pl.DataFrame:
        """Wait until every answered prediction of a month is in the tables, and return them."""
        start, end = self._window(month.name)
        deadline = time.monotonic() + SHIP_SECONDS
        while True:
            found = read_predictions(self._workspace, MODEL, start=start, end=end)
            if found.height >= month.rows:
                return found
            if time.monotonic() > deadline:
                raise SeatrialError(
                    f"Of {month.rows:,} answered predictions of {month.name} {found.height:,} are in the tables."
                )
            time.sleep(0.2)

    def _pace(self, traffic: Traffic, month: str) -> None:
        """Let traffic take its time if another model may be trained once this month is over."""
        start, end = self._window(month)
        resting = cool_down_until(self._loaded.contract.triggers, trigger_log(self._workspace, MODEL))
        traffic.is_held = resting is None or resting <= end
        seconds = PACE * self.summary.seconds["training"] * (parse_duration(SLOT) / (end - start))
        traffic.pause = seconds if traffic.is_held else 0.0

    def _look_back(self, month: Month, traffic: Traffic) -> None:
        start, _ = self._window(month.name)
        before = read_pointer(self._workspace, ENVIRONMENT, MODEL)
        run = self._pipeline("monitoring", month.name, start=start.isoformat(), draw_drift=False)
        result = read_json(str(run.folder / "monitor" / "result"))
        month.verdicts = {
            v["check"]: {key: v[key] for key in ("outcome", "value", "bound")} for v in result["verdicts"]
        }
        month.drifted = [c["name"] for c in (result["drift"] or {"columns": []})["columns"] if c["drifted"]]
        decision = read_json(str(run.folder / "trigger" / "decision"))
        month.causes = [rule["name"] for rule in decision["rules"] if rule["fires"]]
        month.retrained = bool(decision["fires"])
        reports, address = self.summary.reports, self._workspace.uri
        reports[f"monitoring {month.name}"] = address(monitor_key(MODEL, run.name))
        if self._drawing is None:
            self._drawing = self._draw(run)
            reports[f"drift {month.name} (evidently)"] = address(drift_key(MODEL, run.name))
        if month.retrained:
            reports[f"retraining {month.name}"] = address(report_key(MODEL, run.name))
            month.challenger = self._challenger(run, before.digest)
            _wait_for_bundle(traffic.url, read_pointer(self._workspace, ENVIRONMENT, MODEL).digest)
        traffic.is_held = False

    def _draw(self, run: LocalRun) -> subprocess.Popen[bytes]:
        """Begin to draw the drift of a run's window."""
        result, page = run.folder / "monitor" / "result", run.folder / "drift.html"
        command = [sys.executable, "-c", DRAW, str(self._loaded.folder.resolve()), self._workspace.root]
        with self._drawing_log.open("w", encoding="utf-8") as log:
            return subprocess.Popen(  # noqa: S603 -- a step of ours
                [*command, run.name, str(result), str(page)], stdout=log, stderr=subprocess.STDOUT
            )

    def _finish_drawing(self) -> None:
        assert self._drawing is not None
        try:
            ended = self._drawing.wait(DRAW_SECONDS)
        except subprocess.TimeoutExpired:
            ended = None
        if ended != 0:
            raise SeatrialError(
                "Evidently did not draw the drift.", remedy=f"Its log is in {self._drawing_log}."
            )

    def _challenger(self, run: LocalRun, champion: str | None) -> dict[str, Any]:
        found = read_json(str(run.folder / "gates" / "found"))
        after = read_pointer(self._workspace, ENVIRONMENT, MODEL)
        against = found["evaluation"]["champion"]
        return {
            "served": after.digest != champion,
            "digest": str(after.digest)[:12],
            "failed": [v["check"] for v in found["verdicts"] if v["outcome"] == "fail"],
            "roc_auc": found["evaluation"]["metrics"]["roc_auc"],
            "champion_roc_auc": against["metrics"]["roc_auc"] if against else None,
            "gain": against["differences"]["average_precision"] if against else None,
        }

    def _compare_features(self) -> None:
        """Compare what the server computed for the first live month with what training computes of it now."""
        with self._stage("parity", "Are the features that were served those that training computes?"):
            start, end = self._window(self._months[0])
            served = read_predictions(self._workspace, MODEL, start=start, end=end)
            digest = served["bundle"].mode()[0]
            served = served.filter(pl.col("bundle") == digest)
            bundle = load_bundle(self._workspace, digest, open_trust_root(self._workspace))
            valid = Tables(self._workspace, MODEL, "valid")
            tables = {name: valid.read(name) for name in self._loaded.contract.tables}
            key = bundle.schema.key[0]
            rows = valid.read(bundle.schema.table).collect()
            asked = served.select(
                pl.col("key").str.json_decode(pl.List(pl.String)).list.first().alias(key), "features"
            )
            both = asked.join(rows, on=key, how="inner")
            inputs = both.select([column.name for column in bundle.schema.inputs])
            made = compute_features(bundle.features, inputs, tables, use=bundle.schema.features.names)
            offline = pl.Series(bundle.schema.features.encode(made).flatten())
            online = both["features"].explode()
            equal = (offline.eq_missing(online) | (offline.is_nan() & online.is_nan())).sum()
            self.summary.parity = {"rows": both.height, "values": offline.len(), "equal": int(equal)}
            self._narrator.note(f"{equal:,} of {offline.len():,} values of {both.height:,} rows are the same")


def peak_memory() -> int:
    """Return the largest memory that a process of this demonstration has had, in bytes."""
    import resource

    return 1024 * max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def stop_children() -> None:
    """Stop whatever steps still run, after Ctrl-C."""
    import psutil

    children = psutil.Process(os.getpid()).children(recursive=True)
    for child in children:
        child.terminate()
    for child in psutil.wait_procs(children, timeout=10)[1]:
        child.kill()
