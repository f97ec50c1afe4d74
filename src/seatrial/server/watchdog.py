"""Ends a server whose event loop hangs, so that whoever started it starts another.

Predictions are computed in the event loop, and a model's expression may never return, or not before the clients have
gone. Nobody else is answered then, and no time limit within the loop could say so. A thread beside it counts the
loop's ticks: if none comes for too long, it writes down where every thread is, and ends the process. Nothing that was
answered is lost by that: it is in the feedback log.

Time is counted in looks, not by a clock: a process that was stopped, or whose machine slept, did not look either, and
is not ended when it wakes up. What hangs and never lets go of Python's lock keeps this thread waiting, too.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
from collections.abc import Callable, Iterator

EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h: an internal fault."""
_LOOKS = 20
_log = logging.getLogger("seatrial.server")


def _end() -> None:
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_CODE)


@contextlib.contextmanager
def watching(ticks: Callable[[], float], limit: float, end: Callable[[], None] = _end) -> Iterator[None]:
    """Watch a loop within the ``with`` block.

    Args:
        ticks: Returns what changes with each tick of the loop; ticks must be much closer than the limit.
        limit: Seconds without a tick after which the process is ended.
        end: Ends it.
    """
    done = threading.Event()

    def look() -> None:
        seen, looks = ticks(), 0
        while not done.wait(limit / _LOOKS):
            now = ticks()
            seen, looks = now, (looks + 1 if now == seen else 0)
            if looks >= _LOOKS:
                _log.critical(
                    "Nothing was answered for %g seconds: a prediction hangs. The server ends; its threads are at:",
                    limit,
                )
                end()
                return

    thread = threading.Thread(target=look, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
