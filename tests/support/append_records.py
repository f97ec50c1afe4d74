"""A process that races others for the next number of a log: ``ROOT NAME SECONDS``.

It prints one JSON line for each look and each append, with the instants before and after, by a
clock that all processes of a machine share.
"""

import json
import random
import sys
import time

from seatrial.errors import PointerMovedError
from seatrial.record_log import RecordLog
from seatrial.workspace import Workspace


def main() -> None:
    """Look and append until the time is over."""
    root, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    log = RecordLog(Workspace.open(root), "pointers/a")
    sys.stdin.readline()  # All start when the test says so.
    end = time.monotonic() + seconds
    turn = 0
    while time.monotonic() < end:
        turn += 1
        began = time.monotonic_ns()
        last = log.last()
        seen = last.number if last else 0
        say("look", seen, began)
        if random.random() < 0.2:
            continue
        began = time.monotonic_ns()
        try:
            say("won", log.append({"by": name, "turn": turn}, after=seen).number, began, turn)
        except PointerMovedError:
            say("lost", seen + 1, began)


def say(what: str, number: int, began: int, turn: int = 0) -> None:
    """Print what happened."""
    line = {"what": what, "number": number, "began": began, "ended": time.monotonic_ns(), "turn": turn}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
