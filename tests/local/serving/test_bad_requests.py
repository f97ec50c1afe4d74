"""Malformed requests: each is answered by a 4xx that says what would be right, and the server goes on."""

from __future__ import annotations

import asyncio
import copy
import http.client
import socket
import time
from collections.abc import Coroutine, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import orjson
import psutil
import pytest
from hypothesis import given, settings
from tests.local.serving.conftest import INPUTS, Ferry, Server, crossings, infer_body, outputs

from seatrial.bundle import open_trust_root
from seatrial.errors import FeatureError, RequestError
from seatrial.feedback import FeedbackLog
from seatrial.feedback.recent import RecentPredictions
from seatrial.server.answers import Answer
from seatrial.server.batching import Predictor
from seatrial.server.holder import ModelHolder
from seatrial.server.metrics import Metrics
from seatrial.server.model import load_model
from seatrial.server.service import Service

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
GOOD = orjson.loads(orjson.dumps(infer_body([{**row, "wind": 3.5, "passengers": 9} for row in ROWS[:2]])))
TEXT = orjson.dumps(GOOD)
DEEP = 100_000


def changed(column: str, /, **keys: Any) -> bytes:
    """Return the good request with one of its tensors changed; a value ``...`` takes the key away."""
    body = copy.deepcopy(GOOD)
    tensor = body["inputs"][INPUTS.index(column)]
    tensor.update(keys)
    for key in [key for key, value in tensor.items() if value is ...]:
        del tensor[key]
    return orjson.dumps(body)


def renamed(name: str, new: str) -> bytes:
    return changed(name, name=new)


WRONG: dict[str, tuple[bytes, str]] = {
    "no inputs": (b"{}", "'inputs' must be a list"),
    "inputs empty": (b'{"inputs":[]}', "'inputs' must be a list"),
    "inputs an object": (b'{"inputs":{"line":"north"}}', "'inputs' must be a list"),
    "tensor a number": (b'{"inputs":[1]}', "inputs[0] must be an object"),
    "unknown key": (orjson.dumps({**GOOD, "imputs": []}), "unknown key \"imputs\". Did you mean 'inputs'?"),
    "unknown tensor key": (changed("wind", dat=[1]), "unknown key \"dat\". Did you mean 'data'?"),
    "id a number": (orjson.dumps({**GOOD, "id": 1}), "'id' must be a text"),
    "id too long": (orjson.dumps({**GOOD, "id": "x" * 201}), "'id' must be a text"),
    "parameters a list": (orjson.dumps({**GOOD, "parameters": []}), "parameters must be an object"),
    "unknown output": (
        orjson.dumps({**GOOD, "outputs": [{"name": "odds"}]}),
        "outputs[0].name must be one of",
    ),
    "outputs a text": (orjson.dumps({**GOOD, "outputs": "probability"}), "'outputs' must be a list"),
    "twice": (changed("line", name="wind", datatype="FP64", data=[1, 2]), "'wind' is there twice"),
    "no shape": (changed("wind", shape=...), "inputs[3] (wind).shape must be [n] or [n, 1]"),
    "shape too long": (changed("wind", shape=[3]), "must have 3 values, as its shape says. Got 2"),
    "shape 2 by 2": (changed("wind", shape=[2, 2]), "shape must be [n] or [n, 1]"),
    "shape of texts": (changed("wind", shape=["2"]), "shape must be [n] or [n, 1]"),
    "shape of floats": (changed("wind", shape=[2.0]), "shape must be [n] or [n, 1]"),
    "shape true": (changed("wind", shape=[True]), "shape must be [n] or [n, 1]"),
    "no data": (changed("wind", data=...), "data must be a list"),
    "data a text": (changed("line", data="ab"), "data must be a list"),
    "ragged": (changed("wind", data=[[1.0], 2.0]), "data[0] must be a finite number"),
    "ragged, two columns": (
        changed("wind", shape=[2, 1], data=[[1.0], [2.0, 3.0]]),
        "data[1] must be a list of one",
    ),
    "other length": (changed("wind", shape=[1], data=[1.0]), "must have the same number of rows"),
    "no datatype": (changed("wind", datatype=...), "datatype must be a text such as FP64"),
    "FP16": (changed("wind", datatype="FP16"), 'datatype must be FP64 or FP32 or INT64 or INT32. Got "FP16"'),
    "lower-case datatype": (changed("wind", datatype="fp64"), 'Got "fp64"'),
    "text as number": (changed("wind", data=["3", "4"]), "(wind).data[0] must be a finite number"),
    "number as text": (changed("line", data=["north", 5]), "(line).data[1] must be a text of at most 1,000"),
    "boolean as number": (changed("wind", data=[1.5, True]), "(wind).data[1] must be a finite number"),
    "number as boolean": (changed("holiday", data=[1, 0]), "(holiday).data[0] must be true or false"),
    "fraction as integer": (
        changed("passengers", data=[1, 2.5]),
        "(passengers).data[1] must be a whole number",
    ),
    "2^63 as INT64": (changed("passengers", data=[1, 2**63]), "(passengers).data[1] must fit into INT64"),
    "2^31 as INT32": (changed("passengers", datatype="INT32", data=[1, 2**31]), "must fit into INT32"),
    "null where required": (changed("line", data=["north", None]), "(line).data[1] must be a text"),
    "object as value": (changed("line", data=["north", {}]), "(line).data[1] must be a text"),
    "no time": (
        changed("departs_at", data=["2024-02-01T10:00:00Z", "soon"]),
        "(departs_at).data[1] must be an ISO 8601",
    ),
    "epoch": (
        changed("departs_at", data=[1706781600, 1706781600]),
        "(departs_at).data[0] must be an ISO 8601",
    ),
    "year 1": (changed("departs_at", data=["0001-01-01T00:00:00+14:00"] * 2), "from 1900 to 2199"),
    "year 9999": (changed("departs_at", data=["9999-12-31T23:59:59-14:00"] * 2), "from 1900 to 2199"),
}
ANSWERED = {
    "missing values": changed("wind", data=[None, None]),
    "integers as numbers": changed("wind", data=[1, 2]),
}


@pytest.fixture(scope="module")
def server(trained_ferry: Ferry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log")
    with trained_ferry.serve("--log-folder", str(log), "--ship-every", "600") as started:
        yield started
        # An honest request is answered after all that was sent.
        assert outputs(started.infer(ROWS[:1]))["probability"]
        assert "Traceback" not in started.errors


@pytest.mark.parametrize("case", WRONG)
def test_malformed_request_is_refused(server: Server, case: str) -> None:
    """Each fault is a 400 whose message names the field, the row, and what would be right."""
    body, expected = WRONG[case]
    answer = server.post("/v2/models/ferry/infer", body)
    assert answer.status == 400
    assert list(answer.content) == ["error"]
    assert expected in answer.content["error"]
    assert len(answer.content["error"]) < 400


@pytest.mark.parametrize("case", ANSWERED)
def test_unusual_request_is_answered(server: Server, case: str) -> None:
    """What is well-formed is answered, however unusual its values are."""
    answer = server.post("/v2/models/ferry/infer", ANSWERED[case])
    assert all(0 <= value <= 1 for value in outputs(answer)["probability"])


def test_too_many_rows(server: Server) -> None:
    """The contract's most rows are answered, one more is a 413, and so are a million."""
    rows = [ROWS[0]] * 2001
    assert len(outputs(server.infer(rows[:2000]))["probability"]) == 2000
    assert server.infer(rows).status == 413
    million = orjson.dumps(
        {"inputs": [{"name": "wind", "shape": [10**6], "datatype": "FP64", "data": [0] * 10**6}]}
    )
    assert server.post("/v2/models/ferry/infer", million).status == 413


BAD_FEEDBACK: dict[str, tuple[Any, str]] = {
    "empty": ({}, "'prediction_id' must be an id"),
    "no outcomes": ({"outcomes": []}, "must be a list of outcomes"),
    "a list": ([], "must be a JSON object"),
    "a number": ({"outcomes": [1]}, "outcomes[0] must be an object"),
    "no id": ({"outcomes": [{"value": 1}]}, "outcomes[0]: 'prediction_id' must be an id"),
    "an id of the client's": ({"prediction_id": "mine", "value": 1}, "'prediction_id' must be an id"),
    "sql": ({"prediction_id": "' OR 1=1 --", "value": 1}, "'prediction_id' must be an id"),
    "a megabyte": ({"prediction_id": "x" * 900_000, "value": 1}, "'prediction_id' must be an id"),
    "no value": (
        {"prediction_id": "01a209e4-2232-7373-8b2c-64a6e4000000"},
        "'value' must be true, false, 1 or 0",
    ),
    "value 2": ({"prediction_id": "01a209e4-2232-7373-8b2c-64a6e4000000", "value": 2}, "'value' must be"),
    "value a text": (
        {"prediction_id": "01a209e4-2232-7373-8b2c-64a6e4000000", "value": "1"},
        "'value' must be",
    ),
    "no time": (
        {"prediction_id": "01a209e4-2232-7373-8b2c-64a6e4000000", "value": 1, "occurred_at": "now"},
        "'occurred_at' must be an ISO 8601 time",
    ),
    "unknown key": (
        {"prediction_id": "01a209e4-2232-7373-8b2c-64a6e4000000", "valeu": 1},
        "Did you mean 'value'?",
    ),
}


@pytest.mark.parametrize("case", BAD_FEEDBACK)
def test_malformed_feedback_is_refused(server: Server, case: str) -> None:
    """Each fault in an outcome is a 400 that says which and why; nothing of the request is kept."""
    body, expected = BAD_FEEDBACK[case]
    answer = server.post("/v2/models/ferry/feedback", body)
    assert answer.status == 400
    assert expected in answer.content["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/flights", 404),
        ("GET", "/v2/models/..%2fferry", 404),
        ("GET", "/v2/models/ferry/../../etc/passwd", 404),
        ("GET", "/v2/models/f%C4%93rry", 404),
        ("GET", "/v2/models/ferry/versions/1", 404),
        ("GET", "/v2/models/ferry/infer", 405),
        ("POST", "/v2/models/ferry", 405),
        ("DELETE", "/v2/models/ferry", 405),
        ("POST", "/docs", 405),
        ("GET", "/debug/pprof", 404),
        ("GET", "/" + "a" * 10_000, 404),
    ],
)
def test_other_paths_and_methods(server: Server, method: str, path: str, status: int) -> None:
    """What is not there is a 404, another method a 405, both as JSON that says so."""
    with closing(
        http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=10)
    ) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status == status
        assert "error" in orjson.loads(answer.read())


def test_huge_body_is_refused_and_not_kept(server: Server) -> None:
    """50 MB are a 413, with a declared length and without, and do not make the server grow by it."""
    huge = b'{"inputs":"' + b"x" * 50_000_000 + b'"}'
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    declared = server.post("/v2/models/ferry/infer", huge)
    assert declared.status == 413
    assert "at most 1,000,000 bytes. Got 50,000,013" in declared.content["error"]
    with closing(
        http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=30)
    ) as connection:
        chunks = (huge[first : first + 65_536] for first in range(0, len(huge), 65_536))
        connection.request(
            "POST",
            "/v2/models/ferry/infer",
            chunks,
            {"content-type": "application/json"},
            encode_chunked=True,
        )
        assert connection.getresponse().status == 413
    assert process.memory_info().rss - before < 20_000_000


def test_raw_nonsense_does_not_disturb(server: Server) -> None:
    """Bytes that are no HTTP, lengths that lie and both lengths at once end that connection only."""
    host, port = server.address.removeprefix("http://").split(":")
    head = b"POST /v2/models/ferry/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for raw in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        head + b"content-length: -5\r\n\r\n{}",
        head + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"content-length: 100\r\n\r\n{}",
        b"GET " + b"/" * 600_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            said = b""
            with suppress(OSError):  # The server may have hung up.
                connection.sendall(raw)
                connection.shutdown(socket.SHUT_WR)
                said = connection.recv(1000)
        assert said[:9] != b"HTTP/1.1 5", raw[:60]
    assert server.get("/v2/health/live").status == 200


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TIMES = (
    st.datetimes().map(lambda at: at.isoformat())
    | st.dates().map(lambda at: at.isoformat())
    | st.text(max_size=8)
)
VALUES = st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=9), st.booleans(), TIMES, JSON)


@st.composite
def infer_bodies(draw: st.DrawFn) -> Any:
    """Bodies that are nearly right: a few places of a good one hold anything."""
    body = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        tensor = draw(st.sampled_from(body["inputs"]))
        where = draw(st.sampled_from(["item", "key", "whole"]))
        if where == "item" and isinstance(tensor.get("data"), list):
            tensor["data"] = [draw(VALUES) for _ in tensor["data"]]
        elif where == "key":
            tensor[draw(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))] = draw(JSON)
        else:
            body[draw(st.sampled_from(["inputs", "id", "parameters", "outputs", "other"]))] = draw(JSON)
            break
    return body


@pytest.fixture(scope="module")
def service(trained_ferry: Ferry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    workspace = trained_ferry.workspace
    trust = open_trust_root(workspace)
    log = FeedbackLog(Path(tmp_path_factory.mktemp("log")))
    model = load_model(workspace, "ferry", trained_ferry.digests[0], trust)
    recent, metrics = RecentPredictions(), Metrics()
    predictor = Predictor(log, recent, metrics)
    yield Service(ModelHolder(workspace, trust, model, None), log, recent, predictor, metrics)
    log.close()


@settings(max_examples=300)
@given(body=infer_bodies() | JSON)
def test_any_json_is_answered_or_refused(service: Service, body: Any) -> None:
    """Whatever JSON comes: a probability for each row, or an error that is the client's."""
    text = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS) if _fits(body) else b"{"
    answer = _answer(_inferred(service, text))
    if isinstance(answer, str):
        return
    found = {output["name"]: output["data"] for output in orjson.loads(answer.content)["outputs"]}
    rows = len(next(iter(found.values())))
    assert all(len(data) == rows for data in found.values())
    assert all(0 <= value <= 1 for value in found.get("probability", []))


@settings(max_examples=200)
@given(
    body=JSON
    | st.fixed_dictionaries({"outcomes": JSON})
    | st.fixed_dictionaries({"prediction_id": VALUES, "value": VALUES})
)
def test_any_feedback_is_taken_or_refused(service: Service, body: Any) -> None:
    """Whatever JSON comes as feedback: each outcome is told what became of it, or the client what is wrong."""
    text = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS) if _fits(body) else b"{"
    answer = _answer(service.feedback(text))
    assert isinstance(answer, str) or answer.status in (200, 202, 404)


async def _inferred(service: Service, text: bytes) -> Answer:
    future: asyncio.Future[bytes | Answer | Exception] = asyncio.get_running_loop().create_future()
    service.infer(text, "a test", future.set_result, time.perf_counter())
    answer = await future
    if isinstance(answer, Exception):
        raise answer
    return answer if isinstance(answer, Answer) else Answer(answer)


def _answer(answering: Coroutine[Any, Any, Answer]) -> Answer | str:
    """Return the answer, or what the client is told to be wrong; any other error fails the test."""
    try:
        return asyncio.run(answering)
    except (RequestError, FeatureError) as error:
        return str(error)


def _fits(body: Any) -> bool:
    """Return whether orjson can write it: integers beyond 64 bits and lone surrogates are in the corpus."""
    try:
        orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return False
    return True
