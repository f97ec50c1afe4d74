"""Kills a whole run from within one of its steps; Python imports this file itself when its folder is on the path.

``KILL_STEP`` names the step. ``KILL_AT`` says when: ``put 3`` is the step's third write to the store,
``copy 1`` its first file that goes to MLflow. The process group dies as by ``kill -9``, before that write.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import seatrial.workspace

STEP = os.environ["KILL_STEP"]
WHAT, NUMBER = os.environ["KILL_AT"].split()
_writes = itertools.count(1)


def _count() -> None:
    if sys.argv[-2:] == ["--function_to_execute", STEP] and next(_writes) == int(NUMBER):
        os.killpg(0, signal.SIGKILL)


def _copied(event: str, arguments: tuple[object, ...]) -> None:
    if event == "shutil.copyfile" and "mlartifacts" in str(arguments[1]):
        _count()


if WHAT == "put":
    real_write = seatrial.workspace.write_file

    def write_file(path: Path, content: bytes, *, replace: bool) -> bool:
        _count()
        return real_write(path, content, replace=replace)

    seatrial.workspace.write_file = write_file
else:
    sys.addaudithook(_copied)
