"""The command line with ``--kind``, where the machine or kind is not as it needs them; kind is a script here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("measured_processes")

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 120
NAME = "pier"
KIND = """#!/bin/sh
echo "$*" >> "$KIND_FOLDER/log"
case "$*" in
    "get clusters") echo {clusters} ;;
    "get nodes "*) echo {name}-control-plane ;;
    "create "*)
        printf 'Creating cluster "{name}" ...\\n • {step} 📦   ...\\n' >&2
        exec {python} -S -c "import time; time.sleep(3600)" ;;
esac
"""
Machine = Callable[..., dict[str, str]]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Make a machine that has only what is named, and return its environment."""

    def make(*, kind: bool = True, docker: bool = True, clusters: str = "", step: str = "") -> dict[str, str]:
        commands = tmp_path / "bin"
        commands.mkdir()
        script = KIND.format(clusters=clusters, name=NAME, step=step, python=sys.executable)
        for wanted, name, text in ((kind, "kind", script), (docker, "docker", "#!/bin/sh\n")):
            if wanted:
                (commands / name).write_text(text)
                (commands / name).chmod(0o755)
        settings = {"PATH": str(commands), "KUBECONFIG": str(tmp_path / "config"), "COLUMNS": "400"}
        kept = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}
        return {**kept, **settings, "KIND_CLUSTER_NAME": NAME, "KIND_FOLDER": str(tmp_path)}

    return make


def seatrial(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    # A shell starts what is in its background with Ctrl-C ignored, and children inherit that, but not a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [Path(sys.executable).parent / "seatrial", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    try:
        printed, said = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    return process.returncode, printed + said


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_kind_that_is_missing_is_named(machine: Machine) -> None:
    """With the version that the tests ran with; also where a cluster shall be deleted."""
    environment = machine(kind=False)

    for command in ("up", "down"):
        code, said = ended(seatrial(environment, command, "--kind"))

        assert code == 20
        assert "The command 'kind' is not on PATH." in said
        assert "which the tests ran with" in said


def test_an_engine_that_is_missing_is_named(machine: Machine) -> None:
    """Before kind is asked, which would tell it in its own way."""
    code, said = ended(seatrial(machine(docker=False), "up", "--kind"))

    assert code == 20
    assert "No container engine answers: neither docker nor podman." in said


def test_a_cluster_that_cannot_be_reached_is_told_with_each_way_out(machine: Machine) -> None:
    """One of the name is there, and the kubeconfig does not know it."""
    code, said = ended(seatrial(machine(clusters=NAME), "up", "--kind", "--yes"))

    assert code == 18
    assert f"kind has a cluster {NAME}, but it can't be reached." in said
    for way in (f"docker start {NAME}-control-plane", "kind export kubeconfig", "kind delete cluster"):
        assert way in said


def test_a_cluster_of_unknown_origin_is_not_deleted(machine: Machine, tmp_path: Path) -> None:
    """Who made it stands in it; where it does not answer it stays, also with --yes."""
    code, said = ended(seatrial(machine(clusters=NAME), "down", "--kind", "--yes"))

    assert code == 18
    assert "can't be known, so it stays" in said
    assert not [line for line in log(tmp_path) if line.startswith("delete")]


def test_another_context_beside_kind_is_refused(machine: Machine) -> None:
    """Both name a cluster, and not the same."""
    code, said = ended(seatrial(machine(), "up", "--kind", "--context", "kind-quay"))

    assert code == 18
    assert f"whose context is kind-{NAME}. Got --context kind-quay instead." in said


def test_a_cluster_that_is_not_there_needs_no_deletion(machine: Machine) -> None:
    """That is said, and is no error."""
    code, said = ended(seatrial(machine(clusters="quay"), "down", "--kind"))

    assert code == 0
    assert "There is no such kind cluster." in said


@pytest.mark.parametrize(
    ("step", "deleted"), [("Ensuring node image (a:1)", False), ("Preparing nodes", True)]
)
def test_a_making_that_is_interrupted_leaves_nothing(
    machine: Machine, tmp_path: Path, step: str, deleted: bool
) -> None:
    """Ctrl-C ends kind; nodes that it had begun go, and before it began any there is nothing to delete."""
    process = seatrial(machine(step=step), "up", "--kind")
    assert process.stdout is not None
    line = process.stdout.readline()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while step not in line:
        assert time.monotonic() < deadline, line
        line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    code, _ = ended(process)

    assert code == 130
    assert [line for line in log(tmp_path) if line.startswith("delete")] == (
        [f"delete cluster --name {NAME}"] if deleted else []
    )
