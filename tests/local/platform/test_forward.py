"""A forwarded port stays up while it is wanted, and leaves no kubectl behind; kubectl is a script of ours here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from seatrial.cluster.context import Cluster
from seatrial.cluster.forward import Forward
from seatrial.errors import ClusterError, SeatrialError
from seatrial.kubernetes_api import Kubernetes
from support.kubeconfig import write_kubeconfig
from support.processes import SUPPORT

pytestmark = pytest.mark.usefixtures("measured_processes")

PATIENCE_SECONDS = 120
CONTEXT = "harbour"
UNTIL_CTRL_C = f"""
import time
from seatrial.kubernetes_api import Kubernetes
from seatrial.cluster.context import Cluster
from seatrial.cluster.forward import Forward
with Forward(Cluster(Kubernetes({CONTEXT!r}), "seatrial"), "lighthouse", 80) as forward:
    print(forward.address, flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the scripted kubectl on PATH, its log, and a kubeconfig."""
    command = tmp_path / "bin" / "kubectl"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -S {SUPPORT / "one_connection_kubectl.py"} "$@"\n')
    command.chmod(0o755)
    write_kubeconfig(tmp_path / "config", CONTEXT, "http://127.0.0.1:1")
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("KUBECTL_FOLDER", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config")
    )
    return tmp_path


def forward(tell: Callable[[SeatrialError], None] | None = None) -> Forward:
    return Forward(Cluster(Kubernetes(CONTEXT), "seatrial"), "lighthouse", 80, tell=tell)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 -- of this machine
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


def started(folder: Path) -> list[int]:
    """The processes that kubectl was so far, the last one last."""
    return [int(line) for line in (folder / "log").read_text().split()]


def is_gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_a_connection_that_fails_does_not_end_it(folder: Path) -> None:
    """Nobody asks for it: kubectl is there again at the same address, and again after the next failure."""
    with forward() as opened:
        address = opened.address
        for ended in (1, 2, 3):
            assert not answers(f"{address}/fail")
            wait_until(lambda: answers(address), "the address to answer again")
            assert opened.address == address
            assert len(started(folder)) > ended

    assert all(is_gone(process) for process in started(folder))


def test_a_service_that_is_away_is_told_once_and_waited_for(folder: Path) -> None:
    """While no pod is there the reason is told a single time; once one is, the same address answers."""
    told: list[str] = []
    with forward(lambda error: told.append(error.message)) as opened:
        (folder / "away").touch()
        assert not answers(f"{opened.address}/fail")
        wait_until(lambda: len(started(folder)) > 3, "several attempts")
        (folder / "away").unlink()
        wait_until(lambda: answers(opened.address), "the address to answer again")

    assert len(told) == 1
    assert "The service lighthouse of context harbour" in told[0]
    assert "no pod of the service runs" in told[0]


def test_a_service_that_was_never_there_is_an_error(folder: Path) -> None:
    """Entering says what kubectl said, and leaves no process."""
    (folder / "away").touch()

    with pytest.raises(ClusterError, match="no pod of the service runs"), forward():
        pytest.fail("it was entered")

    assert all(is_gone(process) for process in started(folder))


def test_asking_for_it_waits_until_it_listens(folder: Path) -> None:
    """After ``ensure`` the address answers at once, also where kubectl has just ended."""
    with forward() as opened:
        for _ in range(3):
            assert not answers(f"{opened.address}/fail")
            wait_until(lambda: is_gone(started(folder)[-1]) or answers(opened.address), "the end of kubectl")
            opened.ensure()
            assert answers(opened.address)


def test_nothing_is_started_after_the_end(folder: Path) -> None:
    """What was closed stays closed, also for who asks for it again."""
    with forward() as opened:
        pass
    opened.ensure()

    assert len(started(folder)) == 1
    assert not answers(opened.address)


def test_ctrl_c_leaves_no_kubectl_behind(folder: Path) -> None:
    """The interrupt ends the program, and the program kubectl, also the one that it has started anew."""
    # A shell starts what is in its background with Ctrl-C ignored, and children inherit that, but not a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", UNTIL_CTRL_C], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert not answers(f"{address}/fail")
        wait_until(lambda: answers(address), "the address to answer again")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode != 0
    assert len(started(folder)) > 1
    assert all(is_gone(process) for process in started(folder))
