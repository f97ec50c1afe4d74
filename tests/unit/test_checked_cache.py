"""Kubeflow's cache with somebody who looks: what is taken again, how drivers ask for it, and who knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.cluster_setup.object_store import StoredVersion
from seatrial.errors import ClusterError, StoreError
from seatrial.kubeflow_driver.checked_cache import Check, CheckedCache
from seatrial.kubeflow_driver.driving import Door, drive
from seatrial.kubeflow_driver.kept import CLOCKS_APART, WITHOUT_OBJECTS, why_changed, why_not_again
from seatrial.kubeflow_driver.lineage import Artifact, Lineage
from seatrial.kubeflow_driver.messages import MESSAGES
from seatrial.kubeflow_driver.workflows import OutputPath, Waiting
from support.raw_grpc import Answers, answering

ENDED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENDED_SAID = "2026-01-02T03:04:05.000+00:00"
KEY = "v2/artifacts/kept/run/keep/uuid/kept"
KEPT = Artifact(f"minio://mlpipeline/{KEY}", "system.Dataset", ENDED)
LIST, CREATE = "/api.TaskService/ListTasksV1", "/api.TaskService/CreateTaskV1"


class Bucket:
    """A bucket that keeps versions, or does not.

    Args:
        versions: Whether it does.
    """

    def __init__(self, *, versions: bool) -> None:
        self._versions, self._states = versions, dict[str, list[StoredVersion]]()

    def put(self, key: str, at: datetime) -> None:
        """Write an object."""
        self._add(StoredVersion(key, at, newest=True, deleted=False))

    def remove(self, key: str, at: datetime) -> None:
        """Delete an object."""
        if self._versions:
            self._add(StoredVersion(key, at, newest=True, deleted=True))
        else:
            self._states.pop(key, None)

    def below(self, _: str, prefix: str) -> list[StoredVersion]:
        """List it."""
        return [one for key, states in self._states.items() if key.startswith(prefix) for one in states]

    def _add(self, state: StoredVersion) -> None:
        before = self._states.get(state.key, []) if self._versions else []
        older = [StoredVersion(one.key, one.modified, newest=False, deleted=one.deleted) for one in before]
        self._states[state.key] = [state, *older]


def touched(bucket: Bucket, names: set[str], done: list[tuple[str, str]], at: datetime) -> Bucket:
    """A bucket in which a step left files, and somebody did something later."""
    for name in names:
        bucket.put(KEY + name, ENDED - timedelta(seconds=1))
    for deed, name in done:
        getattr(bucket, deed)(KEY + name, at)
    return bucket


files = st.sets(st.sampled_from(["", "/a", "/b/c"]), min_size=1)
deeds = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), st.sampled_from(["", "/a", "/b/c", "/new"])), max_size=4
)
later = st.integers(0, 10**6).map(lambda seconds: ENDED + timedelta(seconds=seconds))


@given(files, deeds, later)
def test_with_versions_whatever_was_touched_is_told(
    names: set[str], done: list[tuple[str, str]], at: datetime
) -> None:
    """What is done to an object of the step, within the same moment too, and what is added later (K6)."""
    bucket = touched(Bucket(versions=True), names, done, at)

    told = why_not_again([KEPT], bucket.below)
    if not done:
        assert told == ""
    elif at > ENDED + CLOCKS_APART or any(name in names for _, name in done):
        assert told


@given(files, deeds, later)
def test_without_versions_what_is_younger_or_gone_is_told(
    names: set[str], done: list[tuple[str, str]], at: datetime
) -> None:
    """What is there and older than the step's end is taken; one file fewer of several shows in no list (K6)."""
    bucket = touched(Bucket(versions=False), names, done, at)

    there = bucket.below("mlpipeline", KEY)
    expected = not there or max(one.modified for one in there) > ENDED + CLOCKS_APART
    assert bool(why_not_again([KEPT], bucket.below)) == expected


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ([], f"{KEY} is gone"),
        ([(f"{KEY}2", 0, True, False)], f"{KEY} is gone"),
        (
            [(KEY, 60, True, False)],
            f"{KEY} was written at {ENDED_SAID.replace('04:', '05:')}, and its step had ended at {ENDED_SAID}",
        ),
        (
            [(KEY, 2, True, False), (KEY, 0, False, False)],
            f"{KEY} was written more than once, the first time at {ENDED_SAID} or before",
        ),
        ([(KEY, 1, True, True)], f"{KEY} was deleted at 2026-01-02T03:04:06.000+00:00"),
    ],
    ids=["gone", "only a namesake", "younger", "twice", "deleted"],
)
def test_the_object_and_the_reason_are_said(found: list[tuple[str, int, bool, bool]], why: str) -> None:
    """Who wonders why a step ran again finds what to look at."""
    versions = [
        StoredVersion(key, ENDED + timedelta(seconds=seconds), newest=newest, deleted=deleted)
        for key, seconds, newest, deleted in found
    ]
    assert why_changed(KEY, "system.Dataset", ENDED, versions) == why


def test_each_artifact_is_looked_at() -> None:
    """One that is gone beside one that is there; and the last one's time is the step's end."""
    bucket = Bucket(versions=False)
    bucket.put(KEY, ENDED + timedelta(minutes=1))
    late = Artifact(f"minio://mlpipeline/{KEY}-2", "system.Model", ENDED + timedelta(minutes=2))
    assert why_not_again([KEPT, late], bucket.below) == f"mlpipeline/{KEY}-2 is gone"

    bucket.put(f"{KEY}-2", ENDED + timedelta(minutes=2))
    assert why_not_again([KEPT, late], bucket.below) == ""


@pytest.mark.parametrize("kind", sorted(WITHOUT_OBJECTS))
def test_metrics_need_no_object(kind: str) -> None:
    """Their numbers are in the lineage; where a step wrote a file all the same, it is looked at."""
    bucket, metrics = Bucket(versions=True), Artifact(KEPT.uri, kind, ENDED)
    assert why_not_again([metrics], bucket.below) == ""

    bucket.put(KEY, ENDED)
    bucket.remove(KEY, ENDED)
    assert "was deleted" in why_not_again([metrics], bucket.below)


@pytest.mark.parametrize(
    "uri",
    ["s3://elsewhere/kept", "https://example.org/kept", "minio://mlpipeline", "minio://mlpipeline/", ""],
)
def test_what_is_elsewhere_is_not_taken(uri: str) -> None:
    """Nobody can look there, and a whole bucket is no artifact."""
    why = why_not_again([Artifact(uri, "system.Model", ENDED)], Bucket(versions=True).below)

    assert why == f"{uri!r} is not in the steps' object store"


def test_a_step_that_left_nothing_runs_again() -> None:
    """Such as one that made a volume claim, which may be gone."""
    assert why_not_again([], Bucket(versions=True).below) == "it left nothing that could be looked at"


STEP = (
    "0a440801100a18032a130a097461736b5f6e616d6512061a046b6565703a1973797374656d2e436f6e7461696e6572457865"
    "637574696f6e40dec894dea23448dec894dea234"
)
EVENTS = (
    "0a17080110011a080a0612046b657074200328dec894dea2340a17080210011a080a0612046b657074200428dec894dea234"
    "0a17080310011a080a0612046b657074200428dec894dea234"
)
LEFT = (
    "0a5e0802100b1a386d696e696f3a2f2f6d6c706970656c696e652f76322f6172746966616374732f6b6570742f356231652f"
    "6b6565702f306630662f6b6570743002420e73797374656d2e4461746173657448dbc894dea23450dbc894dea2340a610803"
    "100c1a3b6d696e696f3a2f2f6d6c706970656c696e652f76322f6172746966616374732f6b6570742f356231652f6b656570"
    "2f306630662f6d6574726963733002420e73797374656d2e4d65747269637348dcc894dea23450dcc894dea234"
)
RECORDED = {"GetExecutionsByID": STEP, "GetEventsByExecutionIDs": EVENTS, "GetArtifactsByID": LEFT}
"""What ML Metadata 1.17.1 answered of a step with one input, a data set and metrics."""


@contextmanager
def lineage(answers: dict[str, str], asked: list[tuple[str, list[int]]]) -> Iterator[Lineage]:
    """A lineage that answers with bytes; a call without any is refused."""

    def answer(call: str, request: bytes) -> bytes | grpc.StatusCode:
        name = call.removeprefix("/ml_metadata.MetadataStoreService/")
        asked.append((name, list(MESSAGES["Ids"].FromString(request).ids)))
        return bytes.fromhex(answers[name]) if name in answers else grpc.StatusCode.UNAVAILABLE

    with answering(answer) as address:
        found = Lineage(address)
        yield found
        found.close()


def test_what_a_step_left_is_read() -> None:
    """Of the outputs, not of the inputs, whose artifact is the first."""
    asked: list[tuple[str, list[int]]] = []
    with lineage(RECORDED, asked) as found:
        left = found.left_by(1)

    root, when = (
        "minio://mlpipeline/v2/artifacts/kept/5b1e/keep/0f0f",
        datetime(2026, 11, 30, 9, 24, 29, 0, UTC),
    )
    assert left == [
        Artifact(f"{root}/kept", "system.Dataset", when + timedelta(milliseconds=915)),
        Artifact(f"{root}/metrics", "system.Metrics", when + timedelta(milliseconds=916)),
    ]
    assert asked == [
        ("GetExecutionsByID", [1]),
        ("GetEventsByExecutionIDs", [1]),
        ("GetArtifactsByID", [2, 3]),
    ]


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"GetExecutionsByID": ""}, "The lineage has no step 1 that ended well"),
        ({"GetExecutionsByID": "0a0408011802"}, "The lineage has no step 1 that ended well"),
        ({**RECORDED, "GetArtifactsByID": ""}, "The lineage does not know all that the step 1 left"),
        ({"GetExecutionsByID": STEP}, "The lineage does not answer GetEventsByExecutionIDs: UNAVAILABLE"),
    ],
    ids=["lost", "at work", "artifacts lost", "away"],
)
def test_a_lineage_that_does_not_know_says_so(answers: dict[str, str], why: str) -> None:
    """A step is named to others before its end is in the lineage; and a lineage may have been taken back."""
    with lineage(answers, []) as found, pytest.raises(ClusterError, match=why):
        found.left_by(1)


def earlier(*executions: str) -> bytes:
    """An answer of Kubeflow's API that names earlier steps, with a field that is not read here."""
    tasks = [
        MESSAGES["Task"](pipelineName="pipeline/kept", runId="5b1e", mlmdExecutionID=execution)
        for execution in executions
    ]
    return bytes(MESSAGES["Tasks"](tasks=tasks).SerializeToString()) + b"\x18\x01"


@contextmanager
def asking(answers: Answers, check: Check) -> Iterator[grpc.Channel]:
    """A channel to a checked cache in front of an API."""
    with answering(answers) as api:
        cache = CheckedCache(api, check, at_once=2)
        with grpc.insecure_channel(f"{cache.door.host}:{cache.door.port}") as channel:
            yield channel
        cache.close()


def test_what_is_as_it_was_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """To the byte as the API named it, by the step's id in the lineage."""
    looked: list[int] = []

    def check(execution: int) -> str:
        looked.append(execution)
        return ""

    with asking(lambda *_: earlier("7"), check) as channel:
        assert channel.unary_unary(LIST)(b"") == earlier("7")
    assert looked == [7]
    assert "pipeline/kept: what run 5b1e left as 7 is taken again" in capsys.readouterr().out


def _raising(error: Exception) -> Check:
    def check(_: int) -> str:
        raise error

    return check


@pytest.mark.parametrize(
    ("execution", "check", "why"),
    [
        ("7", lambda _: "mlpipeline/kept is gone", "mlpipeline/kept is gone"),
        ("7", _raising(ClusterError("The lineage does not answer.")), "The lineage does not answer"),
        ("7", _raising(StoreError("The object store refused to list it.")), "The object store refused"),
        ("7", _raising(KeyError("odd")), "KeyError: 'odd'"),
        ("", lambda _: "", "invalid literal for int"),
    ],
    ids=["changed", "lineage away", "store away", "a fault of ours", "no id"],
)
def test_what_may_have_changed_is_not_named(
    execution: str, check: Check, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The driver hears of no earlier step, and lets its own run; the log says why (K6)."""
    with asking(lambda *_: earlier(execution), check) as channel:
        assert channel.unary_unary(LIST)(b"") == b""
    told = capsys.readouterr().out
    assert f"what run 5b1e left as {execution} is not taken again: " in told
    assert why in told


def test_no_earlier_step_is_none_here_either() -> None:
    """The first run of a step."""
    with asking(lambda *_: b"", _raising(KeyError())) as channel:
        assert channel.unary_unary(LIST)(b"") == b""


def test_other_calls_and_failures_are_handed_on() -> None:
    """A driver that is told that the API is away fails in words that Argo tries again for."""

    def answer(call: str, request: bytes) -> bytes | grpc.StatusCode:
        return call.encode() + request if call == CREATE else grpc.StatusCode.UNAVAILABLE

    with asking(answer, lambda _: "") as channel:
        assert channel.unary_unary(CREATE)(b"!") == f"{CREATE}!".encode()
        with pytest.raises(grpc.RpcError) as failed:
            channel.unary_unary(LIST)(b"")
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.UNAVAILABLE, "told so")


@pytest.fixture
def teller(tmp_path: Path) -> Path:
    """A program that puts out how a driver is started, in a step's patch."""
    path = tmp_path / "driver"
    path.write_text(
        """#!/usr/bin/env python3
import json, os, sys
words = sys.argv[1:]
at = words.index("--pod_spec_patch_path") + 1
told = {name: value for name, value in os.environ.items() if name.startswith(("ML_PIPELINE", "AWS"))}
container = {"name": "main", "command": ["launch", *words[:at - 1]], "args": ["--executor_input", "{}"]}
with open(words[at], "w") as file:
    json.dump({"containers": [container], "told": told}, file)
"""
    )
    path.chmod(0o700)
    return path


@pytest.mark.parametrize("door", [None, Door("127.0.0.1", 4711)], ids=["cache off", "cache on"])
def test_a_driver_asks_at_the_door_and_the_step_does_not(
    teller: Path, monkeypatch: pytest.MonkeyPatch, door: Door | None
) -> None:
    """Told by variables, as 2.14.3, or by arguments, as 2.17.0, which hands them on; the keys stay here."""
    monkeypatch.setenv("ML_PIPELINE_SERVICE_HOST", "ml-pipeline")
    monkeypatch.setenv("ML_PIPELINE_SERVICE_PORT_GRPC", "8887")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    told = ["--ml_pipeline_server_address", "ml-pipeline.seatrial.svc.cluster.local"]
    told += ["--ml_pipeline_server_port", "8887"]
    arguments = (*told, "--pod_spec_patch_path", OutputPath("pod-spec-patch"))
    outcome = drive(teller, Waiting("run", "0f", "node", "then", arguments), seconds=30, door=door)

    assert outcome.failure is None
    patch = json.loads(outcome.values["pod-spec-patch"])
    assert patch["containers"] == [
        {"name": "main", "command": ["launch", *told], "args": ["--executor_input", "{}"]}
    ]
    at = {"ML_PIPELINE_SERVICE_HOST": "ml-pipeline", "ML_PIPELINE_SERVICE_PORT_GRPC": "8887"}
    if door:
        at = {"ML_PIPELINE_SERVICE_HOST": "127.0.0.1", "ML_PIPELINE_SERVICE_PORT_GRPC": "4711"}
        assert patch["told"] == at
    else:
        assert patch["told"].items() >= at.items()


def test_a_driver_is_started_with_the_door(teller: Path) -> None:
    """By its arguments, where it has them: the patch of a step is the one place where they are changed back."""
    teller.write_text(teller.read_text().replace('"launch", *words[:at - 1]', '"-".join(words[:at - 1])'))
    arguments = (
        *("--ml_pipeline_server_address", "a", "--ml_pipeline_server_port", "1"),
        *("--pod_spec_patch_path", OutputPath("pod-spec-patch")),
    )
    outcome = drive(
        teller, Waiting("run", "0f", "node", "then", arguments), seconds=30, door=Door("127.0.0.1", 4711)
    )

    (container,) = json.loads(outcome.values["pod-spec-patch"])["containers"]
    assert container["command"] == ["--ml_pipeline_server_address-127.0.0.1---ml_pipeline_server_port-4711"]
