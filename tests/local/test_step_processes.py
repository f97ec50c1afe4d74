"""Steps as forks of a process that has the libraries: they are as apart as processes, and none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from seatrial.step_processes import StepProcesses
from support.processes import SUPPORT, environment, started
from support.steps import step_command

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="steps are forked on Linux only")


@pytest.fixture(scope="module")
def processes() -> Iterator[StepProcesses]:
    """What starts steps."""
    with StepProcesses() as running:
        yield running


def refuse(*_: object) -> int:
    """Fail where a step would be started without a fork."""
    raise AssertionError


def numbers(said: str) -> list[int]:
    """The step's process and its parent's, from what it said."""
    line = next(line for line in said.splitlines() if line.startswith("step "))
    return [int(word) for word in line.split()[1:]]


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("pass", 0, "step"),
        ("raise SystemExit(3)", 3, "step"),
        ("raise ValueError('what was wrong')", 1, "ValueError: what was wrong"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "step"),
        ("import subprocess; subprocess.run(['echo', 'from below'], check=True)", 0, "from below"),
    ],
)
def test_a_step_ends_as_a_process_does(
    processes: StepProcesses, capsys: pytest.CaptureFixture[str], body: str, code: int, says: str
) -> None:
    """Its exit code, its trace and what it and its children print are those of a process of its own."""
    assert processes.run(step_command(body), otherwise=refuse) == code
    assert says in capsys.readouterr().out


def test_steps_share_nothing_but_what_was_imported(
    processes: StepProcesses, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a process of its own, with the environment and the folder of whoever asks at that moment."""
    seen = []
    for value in ("first", "second"):
        monkeypatch.setenv("SEATRIAL_SEEN", value)
        body = (
            "import sys; sys.modules['left_behind'] = 1"
            if value == "first"
            else "import sys; assert 'left_behind' not in sys.modules"
        )
        assert (
            processes.run(
                step_command(f"import os; print(os.environ['SEATRIAL_SEEN']); {body}"), otherwise=refuse
            )
            == 0
        )
        said = capsys.readouterr().out
        assert value in said.splitlines()
        seen.append(numbers(said))

    (first, parent), (second, same_parent) = seen
    assert first != second
    assert parent == same_parent != os.getpid()


def test_another_command_is_run_as_it_was(processes: StepProcesses) -> None:
    """What is no Python component of kfp's is left to kfp."""
    asked: list[object] = []

    def otherwise(*arguments: object) -> int:
        asked.append(arguments)
        return 7

    assert processes.run(["sh", "-c", "true"], {"A": "b"}, otherwise=otherwise) == 7
    assert asked == [(["sh", "-c", "true"], {"A": "b"})]


@contextmanager
def sleeping_step() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that runs a step which sleeps; yields it, and the step and its parent."""
    with started("step_runner.py", "import time; time.sleep(1000)") as runner:
        assert runner.stdout is not None
        said = runner.stdout.readline()
        while not said.startswith("step "):
            assert runner.poll() is None
            said = runner.stdout.readline()
        yield runner, numbers(said)


def wait_until_ended(numbers_: list[int]) -> None:
    """Wait until none of these processes runs; one that nobody has collected yet does not."""
    deadline = time.monotonic() + 120
    while any(psutil.pid_exists(n) and psutil.Process(n).status() != psutil.STATUS_ZOMBIE for n in numbers_):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(by: signal.Signals) -> None:
    """Whoever runs a step is interrupted, or killed: the step and what it was forked from end too."""
    with sleeping_step() as (runner, steps):
        runner.send_signal(by)
        runner.wait(120)
        wait_until_ended(steps)


def test_a_step_survives_the_loss_of_its_parent_and_counts_as_failed() -> None:
    """If the process that forks is killed, nobody can say how the step ended: it has failed."""
    script = [sys.executable, str(SUPPORT / "step_runner.py"), "import os; os.kill(os.getppid(), 9)"]
    ended = subprocess.run(
        script, env=environment(), capture_output=True, text=True, check=False, timeout=240
    )

    assert ended.returncode == 1
    assert "step " in ended.stdout


@pytest.mark.usefixtures("measured_processes")
def test_no_handler_is_between_a_step_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM ends a step and its parent as the system does it, whatever set a handler when Python began."""
    body = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    with StepProcesses() as measured:
        assert measured.run(step_command(body), otherwise=refuse) == 0
        said = capsys.readouterr().out
        _, parent = numbers(said)
        assert "True" in said.splitlines()
        caught = next(
            line
            for line in Path(f"/proc/{parent}/status").read_text().splitlines()
            if line.startswith("SigCgt")
        )
    assert not int(caught.split()[1], 16) & 1 << (signal.SIGTERM - 1)


def test_a_step_finds_the_name_of_the_processor_known(processes: StepProcesses) -> None:
    """What a library takes a second to find out, and keeps, is found out once for all steps."""
    body = (
        "import sys; util = sys.modules.get('codecarbon.core.util'); "
        "raise SystemExit(0 if util and util.detect_cpu_model.cache_info().currsize else 3)"
    )
    deadline = time.monotonic() + 60
    while (code := processes.run(step_command(body), otherwise=refuse)) == 3 and time.monotonic() < deadline:
        time.sleep(0.5)  # Its turn comes while nothing else is asked for.
    assert code == 0
