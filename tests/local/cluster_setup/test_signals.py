"""A command of the set-up ends when it is told to, also where it is a container's first process."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("measured_processes")

NOBODY = "tcp://127.0.0.1:1"
AS_FIRST = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")
"""Start a process as the first one of its namespace, which no signal ends that it does not handle."""


def _can_be_first() -> bool:
    return (
        bool(shutil.which(AS_FIRST[0])) and subprocess.run([*AS_FIRST, "true"], check=False).returncode == 0
    )


def test_the_first_process_ends_on_sigterm() -> None:
    """What waits for an address that never answers ends when its pod is deleted, and does not have to be killed."""
    if not _can_be_first():
        pytest.skip("this machine makes no namespace of processes (unshare)")
    # Its first child sends the signal: from outside, the process has another number.
    script = (
        "import os, signal, subprocess, sys, threading\n"
        "from seatrial.cluster_setup import entry, wait\n"
        "assert os.getpid() == 1\n"
        "entry.say = lambda line: (print(line, flush=True), os.kill(1, signal.SIGTERM))\n"
        "wait.say = entry.say\n"
        f"entry.run(lambda: wait.wait_for([{NOBODY!r}], limit_seconds=60))\n"
    )

    done = subprocess.run(
        [*AS_FIRST, sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert f"waiting for {NOBODY}" in done.stdout
