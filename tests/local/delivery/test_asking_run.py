"""A run that asks a person, under kfp.local: it waits, and takes yes, no, or nobody's answer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.local.serving.conftest import wait_for

from seatrial.errors import ApprovalError, ContractError, UsageError
from seatrial.local_runs import LocalRun, StepEvent, run_locally
from seatrial.promotion import pointer_log, read_pointer
from seatrial.promotion.questions import answer, read_question
from seatrial.workspace import Workspace
from support.bundles import VERDICTS, bundle_files, make_bundle
from support.small_model import CONTRACT, loaded_model, write_model

pytestmark = pytest.mark.usefixtures("measured_processes")

RUN = "training-2026"
ASKS = "\nenvironments:\n  staging: {promotion: manual, ask_for: 60s}\n  test: {promotion: automatic}\n"


class Asking:
    """The step of one run, a process of its own as everywhere, and the thread that waits for it."""

    def __init__(self, root: Path, *, contract: str = CONTRACT + ASKS, **files: Any) -> None:
        self.workspace = Workspace.open(root / "workspace")
        self.model = write_model(root, contract=contract).parent
        self.digest = make_bundle(self.workspace, bundle_files(contract=contract, **files))
        self.found = root / "found.json"
        found = {"run": RUN, "as_of": "2024-04-01T00:00:00+00:00", "evaluation": {"champion": None}}
        self.found.write_bytes(orjson.dumps(found))
        self._root = root
        self.approved: bool | None = None
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> bool | None:
        """Wait until the step has ended, and return what it put out."""
        self._thread.join(240)
        assert not self._thread.is_alive()
        return self.approved

    def _run(self) -> None:
        program = (
            "import sys\n"
            "from seatrial.steps import approval\n"
            "print(approval.wait_for_approval(*sys.argv[1:]))\n"
        )
        arguments = [
            str(self.model),
            self.workspace.root,
            "staging",
            self.digest,
            "report.html",
            str(self.found),
        ]
        variables = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{self._root}/mlflow.db"}
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=variables,
        )
        self.log = done.stdout + done.stderr
        self.approved = done.stdout.strip().splitlines()[-1] == "True" if done.returncode == 0 else None

    def is_asking(self) -> bool:
        """Whether the question is there."""
        return self.workspace.get(f"questions/{RUN}/question.json") is not None


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    """A run whose gates passed, of a contract by which it asks."""
    return Asking(tmp_path)


def test_a_no_serves_nothing(asking: Asking) -> None:
    """The step ends with False, says who said so and why, and the answer cannot be changed."""
    asking.start()
    wait_for(asking.is_asking, "the question", 120)
    answer(asking.workspace, RUN, approved=False, comment="the slices are worse")

    assert asking.end() is False
    assert "said no. the slices are worse" in asking.log
    assert "seatrial: waiting until" in asking.log
    assert f"seatrial approve {RUN}" in asking.log
    assert read_pointer(asking.workspace, "staging", "visits").digest is None
    with pytest.raises(ApprovalError, match=f"The run {RUN} was answered already by .*: no."):
        answer(asking.workspace, RUN, approved=True)


@pytest.mark.parametrize(
    ("contract", "verdicts", "said"),
    [
        (CONTRACT, VERDICTS, "not asked: the contract has no ask_for for staging"),
        (CONTRACT + ASKS, [{**VERDICTS[0], "outcome": "fail"}, *VERDICTS[1:]], "not asked: a gate failed"),
        (CONTRACT + ASKS.replace("60s", "1s"), VERDICTS, "not promoted: nobody answered in time"),
    ],
)
def test_without_a_yes_nothing_is_served(tmp_path: Path, contract: str, verdicts: Any, said: str) -> None:
    """Nobody is asked without need, and silence is a no."""
    asking = Asking(tmp_path, contract=contract, verdicts=verdicts)
    asking.start()

    assert asking.end() is False
    assert said in asking.log
    assert read_pointer(asking.workspace, "staging", "visits").digest is None


def test_who_answers_late_is_told(tmp_path: Path) -> None:
    """After its time a run waits no more, and a run that asks nothing is named with those that do."""
    asking = Asking(tmp_path, contract=CONTRACT + ASKS.replace("60s", "1s"))
    asking.start()
    asking.end()

    with pytest.raises(ApprovalError, match="waits no more"):
        answer(asking.workspace, RUN, approved=True)
    with pytest.raises(UsageError, match=f"asks nothing in .* Those that do: {RUN}."):
        answer(asking.workspace, "another", approved=True)


def test_a_step_that_was_killed_waits_for_the_same_answer(asking: Asking, tmp_path: Path) -> None:
    """Tried again, it asks the same question until the same time; the answer given meanwhile counts."""
    asking.start()
    wait_for(asking.is_asking, "the question", 120)
    asked = read_question(asking.workspace, RUN)
    answer(asking.workspace, RUN, approved=False)
    asking.end()

    again = Asking.__new__(Asking)
    again.__dict__.update({**asking.__dict__, "_thread": threading.Thread(target=again._run)})
    again.start()

    assert again.end() is False
    assert read_question(asking.workspace, RUN) == asked


@pytest.mark.parametrize(
    "wrong", ["promotion: automatic, ask_for: 1h", "promotion: manual, approvals: 1, ask_for: 1h"]
)
def test_a_run_does_not_ask_where_persons_sign(tmp_path: Path, wrong: str) -> None:
    """A word that nobody signed is not enough where the contract wants signatures, and none is needed elsewhere."""
    with pytest.raises(ContractError, match="ask_for needs promotion: manual, and no approvals"):
        loaded_model(tmp_path, contract=CONTRACT + f"\nenvironments:\n  staging: {{{wrong}}}\n")


@pytest.mark.long
def test_a_pipeline_waits_for_a_yes_and_serves(tmp_path: Path) -> None:
    """The training pipeline under kfp.local asks in its log, and serves what a person allows."""
    model = write_model(tmp_path, contract=CONTRACT + ASKS.replace("60s", "1h"), rows=1500)
    workspace = Workspace.open(tmp_path / "workspace")
    events: list[StepEvent] = []
    runs: list[LocalRun] = []
    arguments = {
        "model": str(model.parent),
        "environment": "staging",
        "as_of": "2024-04-01T00:00:00+00:00",
    }
    helper = threading.Thread(target=_say_yes, args=(workspace,))
    helper.start()
    runs.append(run_locally("training", arguments, workspace, tell=events.append))
    helper.join(60)

    (record,) = pointer_log(workspace, "staging", "visits").all()
    assert record.content["reason"].startswith("approved by ")
    assert record.content["reason"].endswith("looked at it")
    said = [event.text for event in events if event.step == "register" and event.kind == "said"]
    assert any(f"seatrial approve {runs[0].name}" in line for line in said)


def _say_yes(workspace: Workspace) -> None:
    wait_for(lambda: bool(workspace.list("questions")), "the question", 400)
    run = workspace.list("questions")[0].split("/")[1]
    answer(workspace, run, approved=True, comment="looked at it")
