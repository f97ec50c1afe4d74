"""The watchdog ends what hangs, and nothing else."""

from __future__ import annotations

import itertools
import threading

from seatrial.server.watchdog import watching


def test_loop_that_hangs_is_ended() -> None:
    """When no tick comes any more, the end is called, once."""
    ended = threading.Event()
    calls: list[None] = []

    def end() -> None:
        calls.append(None)
        ended.set()

    with watching(lambda: 1.0, 0.2, end):
        assert ended.wait(60)
    assert len(calls) == 1


def test_loop_that_ticks_goes_on() -> None:
    """However long it runs, a loop that ticks is not ended: ten times the looks that a hanging one gets."""
    count = itertools.count()
    looked = threading.Event()

    def ticks() -> float:
        found = next(count)
        if found > 200:
            looked.set()
        return float(found)

    ended: list[None] = []
    with watching(ticks, 0.2, lambda: ended.append(None)):
        assert looked.wait(60)
    assert ended == []
