"""What was answered is stored, once, whatever happens to the server."""

from __future__ import annotations

import http.client
import os
import random
import resource
import subprocess
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from tests.local.serving.conftest import Ferry, Server, crossings, infer_body, outputs, wait_for

from seatrial.feedback import join_outcomes, read_predictions
from seatrial.feedback.joining import read_outcomes

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
KILLS = 6
CLIENTS = 4


@dataclass
class Client:
    """A client that predicts and reports outcomes until the server is gone, and notes what was confirmed."""

    server: Server
    number: int
    predicted: dict[str, float] = field(default_factory=dict)
    settled: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        chance = random.Random(self.number)
        with closing(
            http.client.HTTPConnection(self.server.address.removeprefix("http://"), timeout=10)
        ) as connection:
            try:
                while True:
                    self._once(connection, chance)
            except (OSError, http.client.HTTPException):
                return

    def _once(self, connection: http.client.HTTPConnection, chance: random.Random) -> None:
        first = chance.randrange(80)
        content = self._post(connection, "infer", infer_body(ROWS[first : first + chance.randrange(1, 5)]))
        found = {output["name"]: output["data"] for output in content["outputs"]}
        self.predicted.update(zip(found["prediction_id"], found["probability"], strict=True))
        name, value = found["prediction_id"][0], float(chance.random() < 0.5)
        content = self._post(connection, "feedback", {"prediction_id": name, "value": value})
        assert content["counts"]["accepted"] == 1
        self.settled[name] = value

    @staticmethod
    def _post(connection: http.client.HTTPConnection, what: str, body: Any) -> Any:
        connection.request(
            "POST", f"/v2/models/ferry/{what}", orjson.dumps(body), {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        content = orjson.loads(answer.read())
        assert answer.status == 200, content
        return content


def test_kill_9_under_load_loses_nothing(ferry: Ferry) -> None:
    """Killed again and again while it answers and ships: all that was confirmed is stored exactly once."""
    chance = random.Random(9)
    clients: list[Client] = []
    for round_ in range(KILLS):
        # Shipping is as frequent as it gets, so that kills fall into it too.
        with ferry.serve("--ship-every", "0.1") as server:
            started = [Client(server, 100 * round_ + number) for number in range(CLIENTS)]
            threads = [threading.Thread(target=client.run) for client in started]
            for thread in threads:
                thread.start()
            # The moment of the kill is what is random here, not a wait for something.
            time.sleep(chance.uniform(0.2, 0.8))
            server.process.kill()
            for thread in threads:
                thread.join()
            clients += started
    with ferry.serve() as server:
        assert server.stop() == 0
    predicted = {name: value for client in clients for name, value in client.predicted.items()}
    settled = {name: value for client in clients for name, value in client.settled.items()}
    assert len(predicted) > 100
    rows = pl.concat([read_predictions(ferry.workspace, "ferry")])
    stored = dict(rows.select("prediction_id", "probability").iter_rows())
    assert {name: stored.get(name) for name in predicted} == predicted
    raw = read_raw_ids(ferry)
    assert len(set(raw)) == len(raw)
    outcomes = read_outcomes(ferry.workspace, "ferry").collect()
    assert outcomes["prediction_id"].is_unique().all()
    told = dict(outcomes.select("prediction_id", "value").iter_rows())
    assert {name: told.get(name) for name in settled} == settled
    # What was logged and not answered any more is at most what was on its way at each kill.
    assert len(stored) - len(predicted) <= KILLS * CLIENTS * 4
    assert list((ferry.root / "serving" / "ferry" / "feedback-log").glob("*.segment")) == []


def test_servers_side_by_side_ship_what_one_left_behind(ferry: Ferry, tmp_path: Path) -> None:
    """Two servers keep their logs beside each other; what the one that is killed had answered, the other ships."""
    logs = tmp_path / "logs"
    shipping = ("--collect-logs", "--ship-every", "0.2")
    with ferry.serve("--log-folder", str(logs / "first"), *shipping[:1], "--ship-every", "600") as first:
        names = outputs(first.infer(ROWS[:20]))["prediction_id"]
        with ferry.serve("--log-folder", str(logs / "second"), *shipping) as second:
            answer = second.feedback({"prediction_id": names[0], "value": True})
            assert (answer.status, answer.content["counts"]["unknown"]) == (202, 1)
            first.process.kill()
            first.process.wait()
            for path in (logs / "first").iterdir():
                os.utime(path, (0, 0))
            wait_for(lambda: not (logs / "first").exists(), "the other one to ship the log")
            assert second.stop() == 0
    assert read_predictions(ferry.workspace, "ferry")["prediction_id"].to_list() == sorted(names)
    joined = join_outcomes(ferry.workspace, "ferry")
    assert joined.filter(pl.col("outcome").is_not_null())["prediction_id"].to_list() == names[:1]


def read_raw_ids(ferry: Ferry) -> list[str]:
    """Return the ids as they are in the table, before reading makes them distinct."""
    from seatrial.feedback.shipping import feedback_tables

    return feedback_tables(ferry.workspace, "ferry").read("predictions").collect()["prediction_id"].to_list()


def test_segment_at_its_size_limit_is_answered_503(ferry: Ferry) -> None:
    """When the file system refuses to write, requests get a 503 and leave no trace; the server goes on."""
    limit = 64 * 1024
    with ferry.serve("--ship-every", "600") as server:
        (names,) = [outputs(server.infer(ROWS[:1]))["prediction_id"]]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        answers = [server.infer(ROWS[:50]) for _ in range(12)]
        refused = [answer for answer in answers if answer.status == 503]
        assert refused
        assert {answer.status for answer in answers} == {200, 503}
        assert refused[0].headers["retry-after"] == "1"
        assert "cannot be written" in refused[0].content["error"]
        for answer in answers:
            names += outputs(answer)["prediction_id"] if answer.status == 200 else []
        resource.prlimit(
            server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        names += outputs(server.infer(ROWS[:50]))["prediction_id"]
        assert server.stop() == 0
    assert read_predictions(ferry.workspace, "ferry")["prediction_id"].to_list() == sorted(names)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 1 MiB; it needs the right to mount one."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        all(file.write(b"x" * 4096) for _ in iter(int, 1))


def test_full_disk_heals(ferry: Ferry, small_disk: Path) -> None:
    """With a full disk nothing is answered that is not stored; with room again all is as before."""
    names: list[str] = []
    with ferry.serve("--ship-every", "600", "--log-folder", str(small_disk / "log")) as server:
        names += outputs(server.infer(ROWS[:2]))["prediction_id"]
        ballast = small_disk / "ballast"
        fill(ballast)
        # The segment has room ahead for some of these.
        answers = [server.infer(ROWS[:20]) for _ in range(40)]
        assert answers[-1].status == 503
        feedback = server.feedback({"prediction_id": names[0], "value": True})
        assert feedback.status in (200, 503)
        for answer in answers:
            names += outputs(answer)["prediction_id"] if answer.status == 200 else []
        assert server.get("/v2/health/live").status == 200
        ballast.unlink()
        names += outputs(server.infer(ROWS[:20]))["prediction_id"]
        assert server.stop() == 0
    assert read_predictions(ferry.workspace, "ferry")["prediction_id"].to_list() == sorted(names)


def test_store_that_is_away_only_delays(ferry: Ferry) -> None:
    """While the tables cannot be written the server answers; afterwards all of it gets there."""
    tables = ferry.root / "tables" / "ferry" / "feedback"
    tables.write_text("a file where the folder of the tables should be")
    with ferry.serve("--ship-every", "0.1") as server:
        names = outputs(server.infer(ROWS[:5]))["prediction_id"]
        wait_for(lambda: "was not shipped" in server.errors, "shipping to fail")
        names += outputs(server.infer(ROWS[:5]))["prediction_id"]
        tables.unlink()
        wait_for(lambda: read_predictions(ferry.workspace, "ferry").height == 10, "the log to be shipped")
    assert read_predictions(ferry.workspace, "ferry")["prediction_id"].to_list() == sorted(names)


def test_log_folder_has_one_server(ferry: Ferry) -> None:
    """A second server on the same log is refused, with the way out, and the first goes on."""
    with ferry.serve() as server:
        second = subprocess.run(
            [*server.process.args[:-2], "--address-file", os.devnull],  # type: ignore[index]
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 16
        assert f"in use by process {server.process.pid}" in second.stderr.replace("\n", " ")
        assert "--log-folder" in second.stderr
        assert "Traceback" not in second.stderr
        assert server.infer(ROWS[:1]).status == 200
