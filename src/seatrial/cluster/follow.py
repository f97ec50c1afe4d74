"""Follow a run on the cluster: the same events as of a run on this machine, read from its workflow and its pods.

It looks once a second and remembers what it has told. Nothing that it does changes the run, so whoever stops
following it stops nothing else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from seatrial.cluster.context import Cluster
from seatrial.cluster.observe import unhealthy
from seatrial.cluster.workflow import Attempt, Step, Workflow, read_workflow
from seatrial.errors import ClusterError, ContractError, RunError, SeatrialError, UsageError
from seatrial.images import PIPELINE_IMAGE
from seatrial.local_runs import StepEvent
from seatrial.steps.files import FAILURE, PROGRESS, rebuild_failure

POLL_SECONDS = 1.0
BEGIN_SECONDS = 120.0
"""How long a run may take to get its workflow."""
DRIVER_SERVICE = "deployment/ml-pipeline-driver"
"""What decides what steps need, where they have no drivers' pods."""
DECIDE_SECONDS = 15.0
"""How long that may take before whoever follows is told."""
_VERDICT = re.compile(r"(PASS|WARN|FAIL) +([^:]+): *(.*)")
_WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/{}/workflows"

ReadArchive = Callable[[str], str]
"""Returns the log of a pod that is gone, by Argo's id of it."""


@dataclass(frozen=True)
class Said:
    """A verdict that a step told of.

    Attributes:
        step: The step.
        outcome: ``pass``, ``warn`` or ``fail``.
        check: What was checked.
        measured: Value and bound, in words.
    """

    step: str
    outcome: str
    check: str
    measured: str


@dataclass
class Followed:
    """What was seen of a run.

    Attributes:
        workflow: How it is now.
        verdicts: The verdicts that its steps told of.
        lines: What each step told, by its name.
        failures: The errors of ours that ended a try of a step, by its name; the last one counts.
    """

    workflow: Workflow | None = None
    verdicts: list[Said] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)


class Follower:
    """Follows one run.

    Args:
        cluster: The cluster.
        run_id: Id of the run.
        tell: Is told each event as it happens.
        read_archive: Reads the log of a pod that is gone.
    """

    def __init__(
        self, cluster: Cluster, run_id: str, tell: Callable[[StepEvent], None], read_archive: ReadArchive
    ) -> None:
        self._cluster = cluster
        self._run_id = run_id
        self._tell = tell
        self._read_archive = read_archive
        self._phases: dict[str, str] = {}
        self._read: dict[str, int] = {}
        self._closed: set[str] = set()
        self._undecided: tuple[str, float] = ("", 0.0)
        self.seen = Followed()

    def follow(self) -> Followed:
        """Follow it to its end.

        Raises:
            RunError: if its workflow does not come or has vanished.
            ClusterError: if the API server is away or refuses.
        """
        begun, away = time.monotonic(), 0
        while True:
            try:
                workflow = self._look()
                away = 0
            except ClusterError:
                away += 1  # The API server of a local cluster may pause; the run does not.
                if away > BEGIN_SECONDS / POLL_SECONDS:
                    raise
                workflow = self.seen.workflow
            if workflow is not None and workflow.ended:
                return self.seen
            if self.seen.workflow is None and time.monotonic() - begun > BEGIN_SECONDS:
                raise RunError(
                    f"The run {self._run_id} has no workflow after {BEGIN_SECONDS:.0f} s.",
                    remedy="Look whether the controllers are healthy: seatrial status",
                )
            time.sleep(POLL_SECONDS)

    def _look(self) -> Workflow | None:
        """Look once, and tell what is new."""
        found = self._cluster.api.list(
            _WORKFLOWS.format(self._cluster.namespace), labelSelector=f"pipeline/runid={self._run_id}"
        )
        if not found:
            if self.seen.workflow is None:
                return None
            raise RunError(
                f"The workflow of the run {self._run_id} has been deleted while it was followed.",
                remedy=f"What is left of it: seatrial logs {self._run_id}",
            )
        self.seen.workflow = workflow = read_workflow(found[0])
        for step in workflow.steps:
            self._follow_step(step)
        self._follow_turn(workflow)
        self._follow_decision(workflow)
        return workflow

    def _follow_turn(self, workflow: Workflow) -> None:
        """Tell that a run waits for others: Argo lets only so many work at a time, and says so nowhere else."""
        if workflow.waits_for_its_turn and self._moves("turn", workflow.phase):
            text = "WAIT for its turn: as many runs are at work as may be at a time (controller.parallelism)"
            self._tell(StepEvent("the run", "said", text, 0.0))

    def _follow_decision(self, workflow: Workflow) -> None:
        """Tell of a decision that does not come: nothing else would say why the run stands still."""
        if workflow.undecided != self._undecided[0]:
            self._undecided = (workflow.undecided, time.monotonic())
        late = workflow.undecided and time.monotonic() - self._undecided[1] > DECIDE_SECONDS
        if late and self._moves("undecided", workflow.undecided):
            text = f"WAIT {DRIVER_SERVICE} has not decided for {DECIDE_SECONDS:.0f} s what comes next: seatrial status"
            self._tell(StepEvent("the run", "said", text, 0.0))

    def _follow_step(self, step: Step) -> None:
        for number, attempt in enumerate(step.attempts):
            is_last = number == len(step.attempts) - 1
            if attempt.phase in {"", "Pending"}:
                continue
            if self._moves(f"{attempt.pod}/began", "Running"):
                self._say(step, "started", "")
            self._read_lines(step, attempt)
            if attempt.failed and not is_last and self._moves(f"{attempt.pod}/again", attempt.phase):
                self._say(step, "said", f"RETRY {self._why(step, attempt)}")
        if step.waits_for and self._moves(f"{step.name}/waits", step.waits_for):
            self._say(step, "said", f"WAIT {step.waits_for}")
        if step.state in {"succeeded", "failed", "cached"} and self._moves(f"{step.name}/end", step.state):
            words = {"succeeded": "SUCCESS", "failed": "FAILURE", "cached": "CACHED"}
            self._say(step, "ended", words[step.state])

    def _why(self, step: Step, attempt: Attempt) -> str:
        """Why a try failed, in a line: our own error, else Argo's first words, which the end of the log follows."""
        said = self.seen.failures.get(step.name)
        return said["message"] if said else first_words(attempt.message) or "it failed"

    def _moves(self, key: str, phase: str) -> bool:
        """Whether this is news, which it is once."""
        if self._phases.get(key) == phase:
            return False
        self._phases[key] = phase
        return True

    def _read_lines(self, step: Step, attempt: Attempt) -> None:
        """Tell the new lines of a pod's log; a pod that has ended is read once more and never again."""
        if attempt.pod in self._closed:
            return
        log = read_log(self._cluster, attempt, self._read_archive if attempt.finished else None)
        lines = log.splitlines()
        if attempt.finished is None and not log.endswith("\n"):
            lines = lines[:-1]  # The last one may be half a line.
        new = lines[self._read.get(attempt.pod, 0) :]
        self._read[attempt.pod] = max(len(lines), self._read.get(attempt.pod, 0))
        if attempt.finished is not None:
            self._closed.add(attempt.pod)
        for line in new:
            if line.startswith(FAILURE):
                self.seen.failures[step.name] = orjson.loads(line.removeprefix(FAILURE))
            elif line.startswith(PROGRESS):
                self._hear(step, line.removeprefix(PROGRESS))

    def _hear(self, step: Step, text: str) -> None:
        self.seen.lines.setdefault(step.name, []).append(text)
        if found := _VERDICT.fullmatch(text):
            self.seen.verdicts.append(Said(step.name, found[1].lower(), found[2].strip(), found[3].strip()))
        self._say(step, "said", text)

    def _say(self, step: Step, kind: Any, text: str) -> None:
        self._tell(StepEvent(step.name, kind, text, step.seconds))


def read_log(cluster: Cluster, attempt: Attempt, read_archive: ReadArchive | None) -> str:
    """Return what a step's pod printed: from the pod while it is there, else from the archive.

    Args:
        cluster: The cluster.
        attempt: The pod.
        read_archive: Reads the archive; None for a pod that still works.

    Raises:
        ClusterError: if the API server or Kubeflow Pipelines is away or refuses.
    """
    log = cluster.api.log(cluster.namespace, attempt.pod, "main")
    return log if log or read_archive is None else read_archive(attempt.node)


def first_words(message: str) -> str:
    """Return the beginning of what Argo says of a pod: it goes on with the end of the pod's log."""
    return message.split(": ", 1)[0] if message.startswith("Error (exit code") else message.split("\n", 1)[0]


def failure_of(seen: Followed, cluster: Cluster, run_id: str) -> SeatrialError:
    """Return the error that ended a run: our own where a step told of one, else what Argo says of its pod.

    Args:
        seen: What was seen of the run.
        cluster: The cluster.
        run_id: Id of the run.

    Raises:
        ClusterError: if the API server is away or refuses.
    """
    workflow = seen.workflow
    steps = [step for step in (workflow.steps if workflow else []) if step.state == "failed"]
    for step in steps:
        said = seen.failures.get(step.name)
        if said is not None:
            error = rebuild_failure(said)
            if isinstance(error, ContractError | UsageError):
                error.remedy = (
                    f"{error.remedy} The contract is read from the image {PIPELINE_IMAGE}: after a change, "
                    "build it anew with `make images` and load it with `seatrial up`."
                ).strip()
            return error
    parts = unhealthy(cluster)
    around = f"\nNot healthy in the platform:\n{parts}" if parts else ""
    look = f"Read its log: seatrial logs {run_id[:8]}"
    if steps:
        last = steps[0].attempts[-1] if steps[0].attempts else None
        tries = f" after {len(steps[0].attempts)} tries" if len(steps[0].attempts) > 1 else ""
        why = first_words(last.message) if last and last.message else "its pod ended without its outputs"
        return RunError(
            f"The step {steps[0].name} failed{tries}: {why}{around}", remedy=f"{look} {steps[0].name}"
        )
    if workflow and workflow.drivers:
        name, driver = next(iter(workflow.drivers.items()))
        return RunError(
            f"The step {name} could not begin: {first_words(driver.message) or 'its driver failed'}{around}",
            remedy=f"kubectl logs {f'{driver.pod} -c main' if driver.pod else DRIVER_SERVICE} "
            f"-n {cluster.namespace}; then: seatrial status",
        )
    why = first_words(workflow.message) if workflow and workflow.message else "no step says why"
    return RunError(f"The run failed: {why}{around}", remedy=look)
