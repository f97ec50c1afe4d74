"""A day of requests and outcomes, as fast as they go, and what they do to the server's memory.

A day at ten requests a second is 864,000. The load asks without a pause; beside it, a client brings outcomes of
predictions that it asked for itself, and the log is shipped into the tables every two seconds all the while.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import orjson
from bench import FOLDER, LOAD_CORE, RESULTS, SERVER_CORE, Bench, Plan
from contenders import CONTENDERS, HERE, Running
from load import read_requests

CONNECTIONS = 16
OUTCOME_PAUSE = 0.02
EVERY_SECONDS = 5.0
WARM_UP_SECONDS = 10.0


class Outcomes(threading.Thread):
    """Asks for predictions and brings their outcomes, until it is told to stop.

    Args:
        running: The server.
        bodies: What it asks.
    """

    def __init__(self, running: Running, bodies: list[bytes]) -> None:
        super().__init__(daemon=True)
        self.brought = 0
        self.stopped = threading.Event()
        self._running = running
        self._bodies = bodies

    def run(self) -> None:
        """Ask and bring."""
        while not self.stopped.wait(OUTCOME_PAUSE):
            answer = self._running.answer(self._bodies[self.brought % len(self._bodies)])
            (name,) = next(
                output["data"] for output in answer["outputs"] if output["name"] == "prediction_id"
            )
            body = orjson.dumps({"prediction_id": name, "value": self.brought % 4 == 0})
            self._running.answer(body, "/v2/models/flights/feedback")
            self.brought += 1


def main() -> None:
    """Run as long as it takes, print memory over time, and write ``soak.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=864_000, help="how many; a day at ten a second")
    parser.add_argument("--minutes", type=float, default=60.0, help="at most so many")
    given = parser.parse_args()
    (ours,) = (contender for contender in CONTENDERS if contender.key == "ours")
    bench = Bench(Plan([ours], [CONNECTIONS], [1], 1, EVERY_SECONDS))
    asked = FOLDER / "ours-1.requests"
    bodies = [request.partition(b"\r\n\r\n")[2] for request in read_requests(asked)]
    seen: list[tuple[float, int, float]] = []
    with bench.start(ours) as running:
        bench.check(running)
        _load(running, asked, WARM_UP_SECONDS)
        outcomes = Outcomes(running, bodies)
        outcomes.start()
        started, answered = time.monotonic(), 0
        seen.append((0.0, 0, running.memory_mib()))
        while answered < given.requests and time.monotonic() - started < 60 * given.minutes:
            answered += _load(running, asked, EVERY_SECONDS)
            seen.append((time.monotonic() - started, answered, running.memory_mib()))
            print(f"{seen[-1][0]:6.0f} s  {answered:9,} requests  {seen[-1][2]:7.1f} MiB", flush=True)
        outcomes.stopped.set()
        outcomes.join()
    before, after = seen[0][2], seen[-1][2]
    half = seen[len(seen) // 2][2]
    print(
        f"{answered:,} requests, {outcomes.brought:,} outcomes: {before:.1f} MiB before (warm), {half:.1f} at half, "
        f"{after:.1f} after."
    )
    content = {"requests": answered, "outcomes": outcomes.brought, "seen": seen}
    (RESULTS / "soak.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))


def _load(running: Running, asked: Path, seconds: float) -> int:
    command = [sys.executable, HERE / "load.py", "--port", running.port, "--connections", CONNECTIONS]
    command += ["--requests", asked, "--core", LOAD_CORE, "--seconds", seconds, "--warm-up", 0]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)  # noqa: S603 -- our own script
    return int(orjson.loads(done.stdout)["answers"])


if __name__ == "__main__":
    assert SERVER_CORE != LOAD_CORE
    main()
