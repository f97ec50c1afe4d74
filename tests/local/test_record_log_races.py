"""Many processes at one log: every number has one winner, and time agrees with the numbers."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from seatrial.record_log import RecordLog
from seatrial.workspace import Workspace
from support.processes import say_go, started

PROCESSES = 16
SECONDS = 3


def _race(root: Path) -> dict[str, list[dict[str, Any]]]:
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(started("append_records.py", root, f"p{n}", str(SECONDS)))
            for n in range(PROCESSES)
        ]
        say_go(racers)
        outputs = [racer.communicate(timeout=120) for racer in racers]
    assert [error for _, error in outputs] == [""] * PROCESSES
    return {f"p{n}": [json.loads(line) for line in out.splitlines()] for n, (out, _) in enumerate(outputs)}


def test_races_for_the_next_record_are_linearizable(tmp_path: Path) -> None:
    """Sixteen processes append and look at once: exactly one winner a number, and nobody looks back.

    A history is linearizable if each operation can be put at one instant between its begin and its
    end (Herlihy and Wing 1990). Here the numbers give the order, so it is enough that no record
    was finished before one with a smaller number was begun, and that a look saw all that was
    finished before it and nothing that was begun after it.
    """
    events = _race(tmp_path)

    log = RecordLog(Workspace.open(tmp_path), "pointers/a").all()
    won = {
        event["number"]: (name, event)
        for name, found in events.items()
        for event in found
        if event["what"] == "won"
    }
    claims = sum(event["what"] == "won" for found in events.values() for event in found)
    assert claims == len(won) == len(log) > PROCESSES
    assert any(event["what"] == "lost" for found in events.values() for event in found)
    assert [record.number for record in log] == list(range(1, len(log) + 1))
    for record in log:
        name, event = won[record.number]
        assert record.content == {"by": name, "turn": event["turn"]}
    began = [won[number][1]["began"] for number in sorted(won)]
    ended = [won[number][1]["ended"] for number in sorted(won)]
    for earlier in range(len(log) - 1):
        assert began[earlier] < min(ended[earlier + 1 :])
    for look in (event for found in events.values() for event in found if event["what"] == "look"):
        assert all(end >= look["began"] for end in ended[look["number"] :])
        if look["number"]:
            assert began[look["number"] - 1] < look["ended"]


def test_a_writer_killed_at_any_moment_leaves_whole_records(tmp_path: Path) -> None:
    """After kill -9 the log has no hole and no half record, and the next writer goes on."""
    acknowledged = 0
    for kill in range(8):
        with started("append_records.py", tmp_path, f"p{kill}", "60") as writer:
            say_go([writer])
            assert writer.stdout is not None
            writer.stdout.readline()  # It has begun.
            time.sleep(0.01 * kill)  # The moment of the kill, not a wait for something.
            writer.kill()
            said = [json.loads(line) for line in writer.stdout.read().splitlines() if line.endswith("}")]
        acknowledged += sum(event["what"] == "won" for event in said)

    log = RecordLog(Workspace.open(tmp_path), "pointers/a")
    records = log.all()
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert len(records) >= acknowledged > 0
    assert log.append({"by": "the next"}, after=len(records)).number == len(records) + 1
