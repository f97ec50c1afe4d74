"""A process that races others for the pointer of an environment: ``ROOT NAME MOVES``.

It prints one JSON line for each move that it won or lost, with the instants before and after, by a
clock that all processes of a machine share. Between its moves it writes records that move nothing.
"""

import json
import random
import sys
import time

from seatrial.errors import PointerMovedError
from seatrial.promotion.pointer import PROMOTION, ROLL_BACK, append, move, read_pointer
from seatrial.workspace import Workspace


def main() -> None:
    """Try to move so many times."""
    root, name, moves = sys.argv[1], sys.argv[2], int(sys.argv[3])
    workspace = Workspace.open(root)
    sys.stdin.readline()  # All start when the test says so.
    for turn in range(moves):
        seen = read_pointer(workspace, "production", "ferry")
        if random.random() < 0.3:
            try:
                append(workspace, "production", "ferry", {"kind": "gates", "digest": name}, expected=seen)
            except PointerMovedError:
                continue
        time.sleep(random.random() / 100)
        kind = ROLL_BACK if random.random() < 0.3 else PROMOTION
        content = {"kind": kind, "digest": f"{name}-{turn}", "by": name}
        began = time.monotonic_ns()
        try:
            number: int | None = move(workspace, "production", "ferry", content, expected=seen).generation
        except PointerMovedError:
            number = None
        line = {"saw": seen.generation, "number": number, "digest": content["digest"], "began": began}
        print(json.dumps({**line, "ended": time.monotonic_ns()}), flush=True)


if __name__ == "__main__":
    main()
