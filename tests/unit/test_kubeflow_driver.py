"""Drivers of Kubeflow Pipelines without pods: what is changed in a run, and that each driver is asked once."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.cluster.follow import Follower
from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.driving import drive
from seatrial.kubeflow_driver.launcher import with_own_launcher
from seatrial.kubeflow_driver.service import DriverService
from seatrial.kubeflow_driver.workflows import (
    DRIVERS,
    Outcome,
    OutputPath,
    Waiting,
    answering,
    is_held,
    letting_go,
    waiting_in,
)
from seatrial.local_runs import StepEvent

Object = dict[str, Any]

FINISHED = "2026-01-02T03:04:05Z"
CONTAINER_DRIVER = {
    "name": "system-container-driver",
    "inputs": {"parameters": [{"name": "component"}, {"name": "iteration-index", "default": "-1"}]},
    "outputs": {
        "parameters": [
            {
                "name": "pod-spec-patch",
                "valueFrom": {"path": "/tmp/outputs/pod-spec-patch", "default": ""},  # noqa: S108
            },
            {
                "name": "condition",
                "valueFrom": {"path": "/tmp/outputs/condition", "default": "true"},  # noqa: S108
            },
        ]
    },
    "metadata": {},
    "container": {
        "name": "",
        "image": "driver:1",
        "command": ["driver"],
        "args": [
            "--run_id",
            "{{workflow.uid}}",
            "--run_name",
            "{{workflow.name}}",
            "--component",
            "{{inputs.parameters.component}}",
            "--iteration_index",
            "{{inputs.parameters.iteration-index}}",
            "--pod_spec_patch_path",
            "{{outputs.parameters.pod-spec-patch.path}}",
            "--condition_path",
            "{{outputs.parameters.condition.path}}",
            "--http_proxy",
            "",
        ],
    },
}
DAG_DRIVER = {
    "name": "system-dag-driver",
    "inputs": {"parameters": [{"name": "component"}]},
    "outputs": {
        "parameters": [{"name": "execution-id", "valueFrom": {"path": "/tmp/outputs/execution-id"}}]  # noqa: S108
    },
    "container": {
        "image": "driver:1",
        "command": ["driver"],
        "args": [
            "--component={{inputs.parameters.component}}",
            "--execution_id_path",
            "{{outputs.parameters.execution-id.path}}",
        ],
    },
}
STEP = {"name": "system-container-impl", "container": {"args": ["{{inputs.parameters.pod-spec-patch}}"]}}


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch, as RFC 7396 says it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@pytest.fixture
def held() -> Object:
    """A run that Argo has looked at once, and holds."""
    return {
        "metadata": {
            "name": "training-abc",
            "uid": "0f0f",
            "resourceVersion": "7",
            "creationTimestamp": FINISHED,
        },
        "spec": {"suspend": True, "templates": copy.deepcopy([CONTAINER_DRIVER, STEP, DAG_DRIVER])},
        "status": {"phase": "Running"},
    }


def begun(held: Object, template: Object = CONTAINER_DRIVER, *, component: str = "{}") -> Object:
    """The same run, let go, and Argo having come to one of its drivers."""
    inputs = {"component": component, "iteration-index": "-1"}
    run = merged(held, letting_go(held))
    (waits,) = [each for each in run["spec"]["templates"] if each["name"] == template["name"]]
    run["status"]["nodes"] = {
        "training-abc-1": {
            "id": "training-abc-1",
            "type": "Suspend",
            "phase": "Running",
            "startedAt": FINISHED,
            "templateName": template["name"],
            "inputs": {"parameters": [{"name": name, "value": value} for name, value in inputs.items()]},
            "outputs": {"parameters": copy.deepcopy(waits["outputs"]["parameters"])},
        },
        "training-abc-2": {
            "id": "training-abc-2",
            "type": "Pod",
            "phase": "Running",
            "templateName": STEP["name"],
        },
    }
    return dict(run)


def test_a_held_run_is_let_go_once(held: Object) -> None:
    """What Argo has not looked at, what somebody suspends later, and what was let go is left alone."""
    assert is_held(held)
    # One that waited for its turn.
    assert is_held(merged(held, {"status": {"phase": "Pending"}}))
    let_go = merged(held, letting_go(held))
    assert let_go["spec"]["suspend"] is False
    assert not is_held(let_go)
    assert not is_held(merged(let_go, {"spec": {"suspend": True}}))
    assert not is_held(merged(held, {"status": None}))
    assert not is_held(merged(held, {"spec": {"suspend": None}}))


def test_drivers_need_no_container(held: Object) -> None:
    """Their templates wait for the outputs that they made; a step's own stays as it is."""
    driver, step, dag = merged(held, letting_go(held))["spec"]["templates"]

    assert step == STEP
    assert (driver["suspend"], dag["suspend"]) == ({}, {})
    assert not {"container"} & {*driver, *dag}
    assert driver["inputs"] == CONTAINER_DRIVER["inputs"]
    assert driver["outputs"]["parameters"] == [
        {"name": "pod-spec-patch", "valueFrom": {"supplied": {}, "default": ""}},
        {"name": "condition", "valueFrom": {"supplied": {}, "default": "true"}},
    ]
    assert dag["outputs"]["parameters"] == [{"name": "execution-id", "valueFrom": {"supplied": {}}}]


@pytest.mark.parametrize(
    "other",
    [
        {"volumes": [{"name": "ca-bundle"}]},
        {"container": {"args": ["--something_new", "{{workflow.priority}}"]}},
        {"container": {"args": ["--something_new", "{{inputs.parameters.unheard-of}}"]}},
        {"name": "somebody-elses-driver"},
    ],
)
def test_a_driver_that_cannot_be_run_here_keeps_its_pod(held: Object, other: Object) -> None:
    """Nothing is guessed: the run goes on as without this service."""
    held["spec"]["templates"][0] = unknown = merged(CONTAINER_DRIVER, other)
    let_go = merged(held, letting_go(held))

    assert let_go["spec"]["suspend"] is False
    assert let_go["spec"]["templates"][0] == unknown
    assert list(json.loads(let_go["metadata"]["annotations"][DRIVERS])) == ["system-dag-driver"]


def test_a_driver_is_started_with_what_its_pod_would_be(held: Object) -> None:
    """Inputs, the run's own name and id, and paths for what it puts out."""
    (waiting,) = waiting_in(begun(held, component='{"a": 1}'))

    assert waiting.arguments == (
        *("--run_id", "0f0f", "--run_name", "training-abc", "--component", '{"a": 1}'),
        *("--iteration_index", "-1", "--pod_spec_patch_path", OutputPath("pod-spec-patch")),
        *("--condition_path", OutputPath("condition"), "--http_proxy", ""),
    )


@given(text=st.text())
@pytest.mark.parametrize(
    "around", ["{text}", "{{{{workflow.uid}}}} {text}", "{{{{outputs.parameters.condition.path}}}}"]
)
def test_a_value_is_never_taken_for_a_variable(around: str, text: str) -> None:
    """A step's own text may hold braces, and the name of a file that it would then overwrite."""
    component = around.format(text=text)
    held = {
        "metadata": {"name": "n", "uid": "u", "resourceVersion": "1", "creationTimestamp": FINISHED},
        "spec": {"suspend": True, "templates": [copy.deepcopy(CONTAINER_DRIVER)]},
        "status": {"phase": "Running"},
    }
    (waiting,) = waiting_in(begun(held, component=component))

    assert waiting.arguments[5] == component


def test_the_run_is_told_what_the_driver_put_out(held: Object) -> None:
    """Its node has ended well, with a value for each output: the driver's, else the default."""
    run = begun(held)
    (waiting,) = waiting_in(run)
    change = answering(run, waiting, Outcome({"pod-spec-patch": "{...}"}, None, FINISHED))
    assert change is not None
    told = merged(run, change)

    assert change["metadata"] == {"resourceVersion": "7"}
    node = told["status"]["nodes"]["training-abc-1"]
    assert (node["phase"], node["finishedAt"]) == ("Succeeded", FINISHED)
    assert node["outputs"]["parameters"] == [
        {"name": "pod-spec-patch", "value": "{...}"},
        {"name": "condition", "value": "true"},
    ]
    assert told["status"]["nodes"]["training-abc-2"] == run["status"]["nodes"]["training-abc-2"]
    assert waiting_in(told) == []
    assert answering(told, waiting, Outcome({}, None, FINISHED)) is None


def test_a_failure_is_the_message_of_the_step(held: Object) -> None:
    """Argo's settings decide by it whether the driver is asked again."""
    run = begun(held)
    (waiting,) = waiting_in(run)
    change = answering(run, waiting, Outcome({}, "Error (exit code 1): no such input", FINISHED))
    assert change is not None

    node = merged(run, change)["status"]["nodes"]["training-abc-1"]
    assert (node["phase"], node["message"]) == ("Failed", "Error (exit code 1): no such input")


def test_an_output_that_is_missing_is_a_failure(held: Object) -> None:
    """A driver that says that it succeeded and does not say the id of its execution has not."""
    run = begun(held, DAG_DRIVER)
    (waiting,) = waiting_in(run)
    change = answering(run, waiting, Outcome({}, None, FINISHED))
    assert change is not None

    node = merged(run, change)["status"]["nodes"]["training-abc-1"]
    assert (node["phase"], node["message"]) == ("Failed", "The driver did not put out execution-id")


def test_a_driver_that_is_tried_again_is_another_one(held: Object) -> None:
    """Argo gives the node its old id, and another start."""
    run = begun(held)
    (first,) = waiting_in(run)
    run["status"]["nodes"]["training-abc-1"]["startedAt"] = "2026-01-02T03:05:00Z"
    (second,) = waiting_in(run)

    assert first != second
    assert answering(run, first, Outcome({}, None, FINISHED)) is None


def test_a_compressed_run_is_told_the_same(held: Object) -> None:
    """Argo compresses the nodes of a large workflow, and reads them again."""
    run = begun(held)
    packed = copy.deepcopy(run)
    packed["status"]["compressedNodes"] = base64.b64encode(
        gzip.compress(json.dumps(packed["status"].pop("nodes")).encode())
    ).decode()
    outcome = Outcome({"pod-spec-patch": "{...}"}, None, FINISHED)
    told = []
    for each in (run, packed):
        (waiting,) = waiting_in(each)
        change = answering(each, waiting, outcome)
        assert change is not None
        told.append(merged(each, change)["status"])

    assert "nodes" not in told[1]
    assert json.loads(gzip.decompress(base64.b64decode(told[1]["compressedNodes"]))) == told[0]["nodes"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program with a driver's flags: puts out what it was given, and counts how often it was started."""
    path = tmp_path / "driver"
    path.write_text(
        f"""#!/bin/sh
echo started >> {tmp_path}/starts
while [ $# -gt 0 ]; do
  case "$1" in
    --component) said="$2" ;;
    --pod_spec_patch_path) patch="$2" ;;
  esac
  shift
done
case "$said" in
  fail) echo "many words"; echo "F driver.go] code = Unavailable" >&2; exit 3 ;;
  hang) exec sleep 60 ;;
esac
printf '%s' "$said" > "$patch"
"""
    )
    path.chmod(0o700)
    return path


def for_component(said: str) -> Waiting:
    """A step that waits, whose component says this."""
    arguments = ("--component", said, "--pod_spec_patch_path", OutputPath("pod-spec-patch"))
    return Waiting("training-abc", "0f0f", "training-abc-1", FINISHED, arguments)


def test_what_a_driver_writes_is_read(program: Path) -> None:
    """Arguments reach it as they are, and its files come back."""
    outcome = drive(program, for_component('{"text": "two words; $HOME"}'), seconds=10)

    assert (dict(outcome.values), outcome.failure) == (
        {"pod-spec-patch": '{"text": "two words; $HOME"}'},
        None,
    )


def test_a_driver_that_fails_says_why(program: Path) -> None:
    """Its exit code, and the end of what it printed."""
    outcome = drive(program, for_component("fail"), seconds=10)

    assert outcome.failure == "Error (exit code 3): many words\nF driver.go] code = Unavailable"


def test_a_driver_that_hangs_is_ended(program: Path) -> None:
    """In words that Argo tries again for."""
    outcome = drive(program, for_component("hang"), seconds=0.2)

    assert outcome.failure is not None
    assert outcome.failure.startswith("code = DeadlineExceeded: the driver worked for 0.2 seconds")


def test_a_driver_that_is_not_there_is_named(tmp_path: Path) -> None:
    """An image without it is a fault of the installation."""
    outcome = drive(tmp_path / "nothing", for_component("{}"), seconds=1)

    assert outcome.failure == f"The driver {tmp_path}/nothing cannot be started: No such file or directory"


def test_a_step_is_started_by_the_launcher_of_its_image() -> None:
    """Where its image has one; no container hands it another. All else of the patch is as the driver wrote it."""
    main = {"name": "main", "image": "steps:1", "command": ["/kfp-launcher/launch", "--run_id", "0f0f", "--"]}
    patch = json.dumps({"containers": [main], "nodeSelector": {"disk": "ssd"}})
    changed = json.loads(with_own_launcher(patch, {"steps:1": "/opt/launcher"}))

    assert changed == {
        "containers": [{**main, "command": ["/opt/launcher", "--run_id", "0f0f", "--"]}],
        "initContainers": [{"name": "kfp-launcher", "$patch": "delete"}],
        "nodeSelector": {"disk": "ssd"},
    }


@pytest.mark.parametrize(
    "patch",
    [
        "",
        "{}",
        '{"containers":[{"name":"main","image":"other:1","command":["/kfp-launcher/launch"]}]}',
        '{"containers":[{"name":"main","image":"steps:1","command":["sh"]}]}',
        '{"containers":[{"name":"main","image":"steps:1"}]}',
    ],
)
def test_other_steps_are_handed_theirs(patch: str) -> None:
    """An image that nobody named, and a step that no launcher starts, are left alone."""
    assert with_own_launcher(patch, {"steps:1": "/opt/launcher"}) == patch


class RunsInMemory:
    """The workflows of a namespace that keeps versions as Kubernetes does.

    Args:
        run: The only one.
    """

    def __init__(self, run: Object) -> None:
        self.run, self.conflicts, self.away = run, 0, 0

    def changes(self) -> Iterator[tuple[Object, bool]]:
        """Tell the same state three times, as a watch that begins anew may."""
        for _ in range(3):
            yield copy.deepcopy(self.run), False

    def get(self, name: str) -> Object | None:
        """Return it, unless Kubernetes is away."""
        assert name == self.run["metadata"]["name"]
        if self.away:
            self.away -= 1
            raise ClusterError("Kubernetes does not show it.")
        return copy.deepcopy(self.run)

    def patch(self, name: str, change: Object) -> Object | None:
        """Change it, unless somebody was faster."""
        assert name == self.run["metadata"]["name"]
        version = self.run["metadata"]["resourceVersion"]
        if self.conflicts:
            self.conflicts -= 1
            self.run["metadata"]["resourceVersion"] = str(int(version) + 1)
        if change["metadata"]["resourceVersion"] != self.run["metadata"]["resourceVersion"]:
            return None
        self.run = merged(self.run, change)
        self.run["metadata"]["resourceVersion"] = str(int(version) + 1)
        return copy.deepcopy(self.run)


def served(runs: RunsInMemory, program: Path) -> None:
    """Let a service look once, and end it."""
    service = DriverService(runs, program, at_once=2, seconds=10)
    service.look()
    while any(thread.name.startswith("driver") for thread in threading.enumerate()) and waits(runs.run):
        time.sleep(0.01)
    service.close()


def waits(run: Object) -> bool:
    """Whether a run waits for a service."""
    return is_held(run) or bool(waiting_in(run))


def test_a_service_lets_go_and_answers_once(held: Object, program: Path) -> None:
    """However often it is told the same, and whoever writes at the same time."""
    runs = RunsInMemory(held)
    served(runs, program)
    assert runs.run["spec"]["suspend"] is False

    runs = RunsInMemory(begun(held))
    runs.conflicts = 3
    served(runs, program)
    node = runs.run["status"]["nodes"]["training-abc-1"]
    assert node["outputs"]["parameters"][0]["value"] == "{}"
    assert (program.parent / "starts").read_text() == "started\n"


def test_an_answer_outlasts_an_outage(held: Object, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a driver put out is told when Kubernetes answers again, and the driver is not asked twice."""
    monkeypatch.setattr("seatrial.kubeflow_driver.service.PAUSE_SECONDS", 0.01)
    runs = RunsInMemory(begun(held))
    runs.away = 5
    served(runs, program)

    assert runs.run["status"]["nodes"]["training-abc-1"]["phase"] == "Succeeded"
    assert (program.parent / "starts").read_text() == "started\n"


def test_a_run_that_cannot_be_read_stops_no_other(
    held: Object, program: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may make workflows could else stop all runs with one."""
    runs = RunsInMemory(begun(held))
    broken = {
        "metadata": {"name": "odd", "uid": "1", "resourceVersion": "1", "annotations": {DRIVERS: "no JSON"}},
        "status": {"nodes": {}},
    }
    told = [broken, runs.run]
    monkey = DriverService(runs, program, at_once=1, seconds=10)
    for each in told:
        monkey.consider(each)
    while waits(runs.run):
        time.sleep(0.01)
    monkey.close()

    assert "odd: cannot be read" in capsys.readouterr().out


class Told:
    """A cluster whose list of workflows says one after another."""

    def __init__(self, *runs: Object) -> None:
        self.runs, self.namespace, self.api = list(runs), "seatrial", self

    def list(self, _path: str, **_query: str) -> list[Object]:
        """Return the next, and the last again and again."""
        return [self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]]


def test_who_follows_is_told_that_a_run_waits_for_its_turn(
    held: Object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, however long it waits; not of one whose turn has come, which Argo calls Pending all the same."""
    monkeypatch.setattr("seatrial.cluster.follow.POLL_SECONDS", 0.0)
    why = "Workflow processing has been postponed because too many workflows are already running"
    its_turn = merged(held, {"status": {"phase": "Pending", "message": why}})
    waiting = merged(its_turn, {"spec": {"suspend": None}})
    over = merged(held, {"status": {"phase": "Succeeded"}})
    for runs, times in (((waiting, waiting, its_turn, held, over), 1), ((its_turn, held, over), 0)):
        told: list[StepEvent] = []
        Follower(Told(*runs), "0f0f", told.append, lambda _node: "").follow()  # type: ignore[arg-type]
        assert [event.text.partition(":")[0] for event in told] == ["WAIT for its turn"] * times


def test_who_follows_is_told_that_nobody_decides(held: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that the service does not let go, or does not answer, stands still with a reason, told once each."""
    monkeypatch.setattr("seatrial.cluster.follow.POLL_SECONDS", 0.0)
    monkeypatch.setattr("seatrial.cluster.follow.DECIDE_SECONDS", -1.0)
    run = begun(held)
    over = merged(run, {"status": {"phase": "Succeeded", "nodes": None}})
    told: list[StepEvent] = []
    Follower(Told(held, held, run, run, over), "0f0f", told.append, lambda _node: "").follow()  # type: ignore[arg-type]

    assert [(event.step, event.text.split(" has ")[0]) for event in told] == [
        ("the run", "WAIT deployment/ml-pipeline-driver")
    ] * 2
