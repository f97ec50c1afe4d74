"""Servers side by side: one model, one core for the server and another for the load, one table.

Every contender is started once and sleeps (SIGSTOP) while another is measured; the rounds go through all of them in
turn, and medians of the rounds are compared. Before anything is timed, all have to answer the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from contenders import CONTENDERS, ECHO, HERE, ROOT, Contender, Running, Task
from inputs import asked_rows, infer_body, parts, plain_matrix, served_model, workspace_of
from load import write_requests
from picture import draw
from rich.console import Console
from rich.table import Table
from summary import BOUNDS, Cell, ratios_of

RESULTS = ROOT / "build" / "benchmarks"
FOLDER = RESULTS / "serving"
SERVER_CORE, LOAD_CORE = 0, 1
BODIES = {1: 2_000, 100: 50}
"""How many requests with so many rows are asked in turn."""
CHECKED_ROWS = 50
TOLERANCE = 1e-5
QUICK = {"connections": [16], "rows": [1], "repeats": 1, "seconds": 2.0}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        contenders: Which servers.
        connections: At so many connections each.
        rows: With so many rows a request each.
        repeats: Rounds.
        seconds: Of each measurement, warm-up included.
    """

    contenders: list[Contender]
    connections: list[int]
    rows: list[int]
    repeats: int
    seconds: float


def read_plan() -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    keys = [contender.key for contender in CONTENDERS]
    parser.add_argument("--quick", action="store_true", help="16 connections, single rows, one round of 2 s")
    parser.add_argument("--only", help=f"some of {','.join(keys)}; the others' last figures stay")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rows", type=int, nargs="+", default=sorted(BODIES), choices=sorted(BODIES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    if given.quick:
        vars(given).update(QUICK)
    only = given.only.split(",") if given.only else keys
    if unknown := set(only) - set(keys):
        parser.error(f"There is no {', '.join(sorted(unknown))}. There are: {', '.join(keys)}.")
    chosen = [contender for contender in CONTENDERS if contender.key in only]
    return Plan(chosen, given.connections, given.rows, given.repeats, given.seconds)


class Bench:
    """Prepares what is asked, and measures.

    Args:
        plan: What is measured.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        workspace = workspace_of(FOLDER)
        self._home = workspace.folder
        self._model = served_model(workspace)
        self._rows = asked_rows(workspace, self._model)
        self._onnx = FOLDER / "model.onnx"
        self._onnx.write_bytes(self._model.bundle.files["model.onnx"])
        self.bundle = self._model.digest
        for rows in BODIES:
            self._write_requests(rows)

    def _write_requests(self, rows: int) -> None:
        chosen = list(parts(self._rows, rows, BODIES[rows]))
        features = [plain_matrix(self._model.predict(part).features) for part in chosen]
        names = self._model.schema.features.names
        for contender in self._plan.contenders:
            bodies = [
                infer_body(self._model, part)
                if contender.ask is None
                else orjson.dumps(contender.ask(matrix, names))
                for part, matrix in zip(chosen, features, strict=True)
            ]
            write_requests(self._requests(contender, rows), contender.target, bodies)

    @staticmethod
    def _requests(contender: Contender, rows: int) -> Path:
        return FOLDER / f"{contender.key}-{rows}.requests"

    def start(self, contender: Contender) -> Running:
        """Start a contender."""
        names = self._model.schema.features.names
        return Running(contender, Task(self._home, self._onnx, names, FOLDER / contender.key), SERVER_CORE)

    def check(self, running: Running) -> None:
        """Wait for a contender, and have it answer what the bundle's own model answers.

        Raises:
            SystemExit: if it answers otherwise.
        """
        rows, contender = self._rows[:CHECKED_ROWS], running.contender
        predicted = self._model.predict(rows)
        names = self._model.schema.features.names
        body = (
            infer_body(self._model, rows)
            if contender.ask is None
            else orjson.dumps(contender.ask(plain_matrix(predicted.features), names))
        )
        running.wait(body)
        if contender.read is None:
            return
        answered = np.asarray(contender.read(running.answer(body)), dtype=np.float64)
        difference = np.abs(answered - np.asarray(predicted.probability)).max()
        if not difference <= TOLERANCE:
            sys.exit(
                f"{contender.name} answers otherwise than the bundle's model, by up to {difference:.2g}."
            )

    def measure(self, running: Running, connections: int, rows: int) -> dict[str, float]:
        """Put the load on a contender once."""
        command = [sys.executable, HERE / "load.py", "--port", running.port, "--connections", connections]
        command += ["--requests", self._requests(running.contender, rows), "--core", LOAD_CORE]
        command += ["--seconds", self._plan.seconds]
        before = running.processor_seconds()
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)  # noqa: S603 -- our own script
        if done.returncode != 0:
            sys.exit(
                f"{running.contender.name}, {connections} connections, {rows} rows: {done.stderr[-2000:]}"
            )
        seen = json.loads(done.stdout)
        took = running.processor_seconds() - before
        more = {"processor_us": 1e6 * took / seen["answers_with_warm_up"], "memory_mib": running.memory_mib()}
        return {**seen, **more}


def run(bench: Bench, plan: Plan, console: Console) -> dict[str, Cell]:
    """Measure every cell of the plan in every round."""
    cells: dict[str, Cell] = {}
    with contextlib.ExitStack() as stack:
        runnings = []
        for contender in plan.contenders:
            console.print(f"starting {contender.name}")
            running = stack.enter_context(bench.start(contender))
            bench.check(running)
            running.sleep()
            runnings.append(running)
        for _ in range(plan.repeats):
            for rows in plan.rows:
                for connections in plan.connections:
                    for running in runnings:
                        key = running.contender.key
                        running.wake()
                        seen = bench.measure(running, connections, rows)
                        running.sleep()
                        cell = cells.setdefault(f"{key}/{connections}/{rows}", Cell(key, connections, rows))
                        cell.seen.append(seen)
                        console.print(
                            f"  {running.contender.name}, {connections} connections, {rows} rows:"
                            f" {seen['throughput']:,.0f} requests/s, p99 {1000 * seen['p99']:.3g} ms,"
                            f" {seen['processor_us']:,.0f} us of processor time"
                        )
    return cells


def show(cells: dict[str, Cell]) -> Table:
    """Return the table of all cells."""
    table = Table(title="Medians; one core for the server, one for the load", title_justify="left")
    for name in ("rows", "connections", "server"):
        table.add_column(name, justify="left" if name == "server" else "right")
    for name in ("requests/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "MiB", "of the echo"):
        table.add_column(name, justify="right")
    names = {contender.key: contender.name for contender in CONTENDERS}
    for rows in sorted({cell.rows for cell in cells.values()}):
        for connections in sorted({cell.connections for cell in cells.values() if cell.rows == rows}):
            echo = cells.get(f"{ECHO}/{connections}/{rows}")
            for key, name in names.items():
                cell = cells.get(f"{key}/{connections}/{rows}")
                if cell is None:
                    continue
                table.add_row(
                    *(str(rows), str(connections), name, f"{cell.median('throughput'):,.0f}"),
                    *(f"{1000 * cell.median(p):.3g}" for p in ("p50", "p99", "p99.9")),
                    f"{cell.median('processor_us'):,.0f}",
                    f"{cell.median('memory_mib'):,.0f}",
                    f"{cell.median('throughput') / echo.median('throughput'):.1%}" if echo else "",
                )
            table.add_section()
    return table


def main() -> None:
    """Measure, and write table, JSON and picture."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    if (cores := os.cpu_count() or 1) <= LOAD_CORE:
        sys.exit(f"Server and load need a core each. Got {cores}.")
    plan = read_plan()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The benchmark was told to stop."))  # the servers, too
    load_before = os.getloadavg()[0]
    bench = Bench(plan)
    found = run(bench, plan, console)
    path = RESULTS / "serving.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    kept = before.get("cells", []) if before.get("bundle") == bench.bundle else []
    cells = {cell.key: cell for cell in map(Cell.from_json, kept)} | found
    for cell in found.values():
        cell.at, cell.load_before = time.strftime("%Y-%m-%dT%H:%M:%S"), load_before
    ratios, by_processor = ratios_of(cells), ratios_of(cells, by_processor_time=True)
    console.print(show(cells))
    for name, value in ratios.items():
        bound = BOUNDS.get(name)
        said = "" if bound is None else f"  ({bound})  {'reached' if bound.met(value) else 'missed'}"
        busy = f"; by processor time {by_processor[name]:.3g}" if name in by_processor else ""
        console.print(f"{name}: {value:.3g}{said}{busy}")
    path.write_text(
        json.dumps(
            {
                "bundle": bench.bundle,
                "ratios": ratios,
                "ratios_by_processor_time": by_processor,
                "bounds": {name: bound.met(ratios[name]) for name, bound in BOUNDS.items() if name in ratios},
                "cells": [cell.to_json() for cell in cells.values()],
            },
            indent=2,
        )
    )
    draw(cells, RESULTS / "serving.svg")
    console.print(f"written: {path}, {RESULTS / 'serving.svg'}")


if __name__ == "__main__":
    main()
