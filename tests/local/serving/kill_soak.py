"""Kill the server at random moments under load, let the object store go away and come back, and account.

``python -m tests.local.serving.kill_soak --kills 1000 --requests 1000000 --seconds 300 --folder FOLDER`` is a
slice of the full run: the folder keeps what was done, so the next call goes on, until there were so many
kills. Each call ends with an account over all of them: every id that was answered is stored, exactly once.

The server's own code takes no part in the account: the tables are read by polars, the clients note
what they were told.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from tests.local.serving.conftest import (
    CONTRACT,
    FEATURES,
    SEATRIAL,
    Ferry,
    crossings,
    infer_body,
)

from seatrial.feedback.segments import scan
from support.stoppable_store import BUCKET, StoppableStore

CONNECTIONS = 16
MOST_ROWS = 4
SHIP_EVERY = "0.3"
START_SECONDS = 240
PREFIX = "soak"
EVERY_KILLED_STARTING = 10
"""Of so many kills one falls into the start."""


@dataclass
class Noted:
    """What clients were told by the servers so far, and what was done to these.

    Attributes:
        answered: Ids of the predictions that were answered.
        settled: Outcomes that were confirmed, by their prediction.
        requests: Requests for predictions that were answered.
        refused: Requests that got a 503.
        kills: Servers that were killed.
        starting: Of these, before they answered.
        waiting: Of these, with segments that were not shipped.
        away: Of these, while the store was away.
        torn: Of these, with a record that was cut off.
        outages: How often the store was killed.
    """

    answered: set[str] = field(default_factory=set)
    settled: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    refused: int = 0
    kills: int = 0
    starting: int = 0
    waiting: int = 0
    away: int = 0
    torn: int = 0
    outages: int = 0

    def facts(self) -> dict[str, int]:
        """Return the figures."""
        figures = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return {**figures, "answered": len(self.answered), "settled": len(self.settled)}


class Notebook:
    """Keeps what was noted in files, so that a run may be stopped after any kill and gone on with.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._figures = folder / "figures.json"
        self._answered = folder / "answered.txt"
        self._settled = folder / "settled.txt"
        self._kept: set[str] = set()
        self._kept_outcomes = 0

    def read(self) -> Noted:
        """Return what was noted in earlier runs."""
        if not self._figures.exists():
            return Noted()
        figures = orjson.loads(self._figures.read_bytes())
        self._kept = set(self._answered.read_text().split())
        lines = (line.split() for line in self._settled.read_text().splitlines())
        settled = {name: float(value) for name, value in lines}
        self._kept_outcomes = len(settled)
        return Noted(answered=set(self._kept), settled=settled, **figures)

    def write(self, noted: Noted) -> None:
        """Add what is new."""
        new = noted.answered - self._kept
        outcomes = list(noted.settled.items())[self._kept_outcomes :]
        with self._answered.open("a") as file:
            file.writelines(f"{name}\n" for name in new)
        with self._settled.open("a") as file:
            file.writelines(f"{name} {value}\n" for name, value in outcomes)
        self._kept |= new
        self._kept_outcomes += len(outcomes)
        figures = {name: value for name, value in vars(noted).items() if isinstance(value, int)}
        self._figures.write_bytes(orjson.dumps(figures))


@dataclass(frozen=True)
class Load:
    """Clients that ask one server until it is gone."""

    address: str
    noted: Noted
    seed: int

    def run(self) -> None:
        """Ask over all connections; return when each has lost its server."""
        asyncio.run(self._all())

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(number) for number in range(CONNECTIONS)))

    async def _one(self, number: int) -> None:
        host, port = self.address.removeprefix("http://").split(":")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                await self._talk(reader, writer, random.Random(f"{self.seed}/{number}"))
            finally:
                writer.close()

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random
    ) -> None:
        own: list[str] = []
        while True:
            status, content = await _ask(reader, writer, chance.choice(_REQUESTS))
            self._note(status, content, own)
            if own and chance.random() < 0.2:
                name, value = own.pop(chance.randrange(len(own))), float(chance.random() < 0.5)
                outcome = orjson.dumps({"prediction_id": name, "value": value})
                status, content = await _ask(reader, writer, _request("feedback", outcome))
                assert status in (200, 503), content
                if status == 200:
                    self.noted.settled[name] = value

    def _note(self, status: int, content: bytes, own: list[str]) -> None:
        if status == 503:
            self.noted.refused += 1
            return
        assert status == 200, content
        (names,) = (one["data"] for one in orjson.loads(content)["outputs"] if one["name"] == "prediction_id")
        before = len(self.noted.answered)
        self.noted.answered.update(names)
        assert len(self.noted.answered) == before + len(names), "an id was given twice"
        self.noted.requests += 1
        own += names


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


def _request(what: str, body: bytes) -> bytes:
    head = f"POST /v2/models/ferry/{what} HTTP/1.1\r\nhost: soak\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _some_requests() -> list[bytes]:
    rows, chance = crossings(1), random.Random(1)
    bodies = [
        infer_body(rows[first : first + min(chance.randrange(1, 2 * MOST_ROWS), MOST_ROWS)])
        for first in range(60)
    ]
    return [_request("infer", orjson.dumps(body)) for body in bodies]


_REQUESTS = _some_requests()


class Soak:
    """One folder's run: a model in an object store, servers that are killed, and what was noted.

    Args:
        folder: Where everything is; an earlier run there goes on.
        seed: Seed of all that is random, but the machine.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._notebook = Notebook(folder)
        self.noted = self._notebook.read()
        self._folder = folder
        self._chance = random.Random(f"{seed}/{self.noted.kills}")
        self._logs = folder / "log"
        self._ferry = self._make()
        self._store = StoppableStore(folder / "store")
        self._store.start()
        self._store.upload(self._ferry.root, PREFIX) if not self.noted.kills else None
        self._calm = threading.Event()

    def _make(self) -> Ferry:
        model = self._folder / "ferry"
        ferry = Ferry(model, self._folder / "workspace")
        if not model.exists():
            model.mkdir(parents=True)
            (model / "model.yaml").write_text(CONTRACT)
            (model / "features.py").write_text(FEATURES)
            ferry.ingest(crossings(31))
            ferry.promote(ferry.make_bundle())
        return ferry

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a server."""
        trusted = str(self._ferry.root / "keys" / "trusted")
        return {**os.environ, **self._store.settings, "SEATRIAL_TRUST": trusted}

    def run(self, *, kills: int, requests: int, seconds: float) -> None:
        """Kill servers until there were ``kills``, or so many seconds have passed."""
        end = time.monotonic() + seconds
        outages = threading.Thread(target=self._break_the_store)
        outages.start()
        try:
            while self.noted.kills < kills and time.monotonic() < end:
                left = max(requests - self.noted.requests, 0) / (kills - self.noted.kills)
                self._kill_one(self._chance.uniform(0, 2 * left))
                self._notebook.write(self.noted)
                if self.noted.kills % 10 == 0:
                    self._say()
        finally:
            self._calm.set()
            outages.join()
        self._finish()

    def _say(self) -> None:
        print(json.dumps(self.noted.facts()), flush=True)

    def _break_the_store(self) -> None:
        while not self._calm.wait(self._chance.uniform(2, 8)):
            self._store.kill()
            self.noted.outages += 1
            self._calm.wait(self._chance.uniform(0.5, 4))
            self._store.start()

    def _start(self) -> tuple[subprocess.Popen[bytes], Path]:
        address = self._folder / "address"
        address.unlink(missing_ok=True)
        command = [SEATRIAL, "serve", "ferry", "--workspace", f"s3://{BUCKET}/{PREFIX}", "--port", "0"]
        command += ["--address-file", str(address), "--log-folder", str(self._logs)]
        with (self._folder / "server.log").open("ab") as said:
            process = subprocess.Popen(
                [*command, "--ship-every", SHIP_EVERY],
                stdout=said,
                stderr=said,
                env=self.settings,
                cwd=self._folder,
            )
        return process, address

    def _kill_one(self, requests: float) -> None:
        process, address = self._start()
        try:
            self._ask_and_kill(process, address, requests)
        finally:
            process.kill()

    def _ask_and_kill(self, process: subprocess.Popen[bytes], address: Path, requests: float) -> None:
        if self._chance.random() < 1 / EVERY_KILLED_STARTING:
            time.sleep(self._chance.uniform(0, 1.5))
            self.noted.starting += not address.exists()
            self._kill(process)
            return
        if not self._wait_for(process, address):
            return
        load = Load(address.read_text(), self.noted, self._chance.randrange(2**32))
        thread = threading.Thread(target=load.run)
        thread.start()
        target = self.noted.requests + requests
        # The moment of the kill is what is random here; a store that is away must not make it late.
        end = time.monotonic() + 60
        while self.noted.requests < target and time.monotonic() < end and thread.is_alive():
            time.sleep(0.001)
        self._kill(process)
        thread.join()

    def _wait_for(self, process: subprocess.Popen[bytes], address: Path) -> bool:
        """Wait until a server answers; return False if it ended, because the store was away."""
        end = time.monotonic() + START_SECONDS
        while not address.exists():
            if process.poll() is not None:
                return False
            assert time.monotonic() < end, "the server does not start"
            time.sleep(0.01)
        return True

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        segments = list(self._logs.glob("*.segment"))
        self.noted.kills += 1
        self.noted.away += not self._store.is_up
        self.noted.waiting += bool(segments)
        tails = (segment.read_bytes().rstrip(b"\0") for segment in segments)
        self.noted.torn += any(scan(tail).torn for tail in tails)

    def _finish(self) -> None:
        """Let a last server ship everything."""
        process, address = self._start()
        assert self._wait_for(process, address), (self._folder / "server.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0, (self._folder / "server.log").read_text()
        assert list(self._logs.glob("*.segment")) == []

    def close(self) -> None:
        """End the store."""
        self._store.kill()

    def account(self) -> dict[str, Any]:
        """Compare what clients were told with what the tables hold."""
        stored = self._read("predictions", "prediction_id")["prediction_id"]
        outcomes = self._read("outcomes", "prediction_id", "value")
        told = dict(outcomes.iter_rows())
        settled = self.noted.settled
        return {
            **self.noted.facts(),
            "stored": len(stored),
            "lost": len(self.noted.answered - set(stored)),
            "twice": len(stored) - stored.n_unique(),
            "unanswered": len(set(stored) - self.noted.answered),
            "outcomes": outcomes.height,
            "outcomes_lost": sum(told.get(name) != value for name, value in settled.items()),
            "outcomes_twice": outcomes.height - len(told),
            "damaged_segments": len(list(self._logs.glob("*.damaged"))),
        }

    def _read(self, table: str, *columns: str) -> pl.DataFrame:
        settings = self._store.settings
        uri = f"s3://{BUCKET}/{PREFIX}/tables/ferry/feedback/{table}"
        return pl.scan_delta(uri, storage_options=settings).select(columns).collect()


def faults(account: dict[str, Any]) -> list[str]:
    """Return what is wrong with an account; nothing, if each answered id is stored once."""
    wrong = [
        f"{name} is {account[name]}"
        for name in ("lost", "twice", "outcomes_lost", "outcomes_twice", "damaged_segments")
        if account[name]
    ]
    # What was recorded and not answered any more was on its way at a kill.
    if account["unanswered"] > account["kills"] * CONNECTIONS * MOST_ROWS:
        wrong.append(f"unanswered is {account['unanswered']}")
    return wrong


def main() -> int:
    """Run a slice, print the account, and return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=1_000, help="servers to kill in all")
    parser.add_argument("--requests", type=int, default=1_000_000, help="requests to answer in all")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="most seconds of this call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="folder that keeps the run; a call in it goes on")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that nothing that was started stays.
    try:
        with tempfile.TemporaryDirectory() as passing:
            soak = Soak(chosen.folder or Path(passing), chosen.seed)
            try:
                soak.run(kills=chosen.kills, requests=chosen.requests, seconds=chosen.seconds)
                account = soak.account()
            finally:
                soak.close()
    except pytest.skip.Exception as skipped:
        print(f"Skipped: {skipped}", file=sys.stderr)
        return 1
    print(json.dumps(account, indent=2))
    wrong = faults(account)
    print("Every answered id is stored, exactly once." if not wrong else f"WRONG: {'; '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
