"""Seldon's protocol over REST: its forms of rows, what the answers carry, and feedback by them."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from tests.local.serving.conftest import INPUTS, Ferry, Server, crossings, outputs

from seatrial.feedback import join_outcomes, read_predictions
from seatrial.feedback.ids import is_id, new_id

ROWS = [
    orjson.loads(orjson.dumps({**row, "wind": 3.5 + place, "passengers": 9, "holiday": True}))
    for place, row in enumerate(crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)[:3])
]
PLAIN = [[row[name] for name in INPUTS] for row in ROWS]
PATHS = ("/predict", "/api/v1.0/predictions", "/api/v0.1/predictions")


@pytest.fixture(scope="module")
def server(trained_ferry: Ferry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log")
    with trained_ferry.serve("--log-folder", str(log), "--ship-every", "600") as started:
        yield started
        assert "Traceback" not in started.errors


def probabilities(content: dict[str, Any]) -> list[float]:
    return [row[0] for row in content["data"]["ndarray"]]


@pytest.mark.parametrize("path", PATHS)
def test_ndarray_is_answered_as_ndarray(server: Server, path: str) -> None:
    """Rows without names are the inputs in their order; the answer is the other protocol's, row by row."""
    answer = server.post(path, {"data": {"ndarray": PLAIN}})
    assert answer.status == 200
    expected = outputs(server.infer(ROWS))
    assert answer.content["data"]["names"] == ["probability", "flagged"]
    assert probabilities(answer.content) == expected["probability"]
    assert [row[1] for row in answer.content["data"]["ndarray"]] == [
        float(flag) for flag in expected["flagged"]
    ]
    tags = answer.content["meta"]["tags"]
    assert tags["bundle"] == outputs_bundle(server)
    assert [is_id(name) for name in tags["prediction_id"]] == [True] * 3
    assert answer.content["meta"]["puid"] == tags["prediction_id"][0]
    assert answer.content["meta"]["requestPath"] == {"ferry": tags["bundle"]}
    assert [metric["key"] for metric in answer.content["meta"]["metrics"]] == [
        "seatrial_rows",
        "seatrial_flagged",
        "seatrial_probability",
    ]


def outputs_bundle(server: Server) -> str:
    return str(server.get("/v2/models/ferry").content["versions"][0])


def test_names_put_columns_in_order(server: Server) -> None:
    """With names the columns may come in any order, and inputs that are not required may be left out."""
    names = ["line", "departs_at", "crossing_id", "wind"]
    rows = [[row[name] for name in names] for row in ROWS]
    whole = [{**row, "passengers": None, "holiday": None} for row in ROWS]
    answer = server.post("/predict", {"data": {"names": names, "ndarray": rows}})
    assert probabilities(answer.content) == outputs(server.infer(whole))["probability"]


def test_json_data_is_answered_as_json_data(server: Server) -> None:
    """A row as an object, or a list of them, is answered with an object for each row."""
    rows = [{name: row[name] for name in INPUTS} for row in ROWS]
    many = server.post("/predict", {"jsonData": rows}).content["jsonData"]
    (single,) = server.post("/predict", {"jsonData": rows[0]}).content["jsonData"]
    assert [row["probability"] for row in many] == outputs(server.infer(ROWS))["probability"]
    # On some processors the sum of one row ends in another last digit than that of a row among others.
    assert single["probability"] == pytest.approx(many[0]["probability"], rel=1e-6)
    assert single["prediction_id"] != many[0]["prediction_id"]


def test_arrays_of_one_type_are_read(server: Server) -> None:
    """A whole number as 9.0 and a boolean as 1.0, as arrays of one type hold them, are what they mean."""
    rows = [[*row[:4], 9.0, 1.0] for row in PLAIN]
    answer = server.post("/predict", {"data": {"ndarray": rows}})
    assert probabilities(answer.content) == outputs(server.infer(ROWS))["probability"]


def test_form_of_a_client_is_read(server: Server) -> None:
    """The field ``json`` of a form is read as the body would be, but not from a page in a browser."""
    body = urlencode({"json": orjson.dumps({"data": {"ndarray": PLAIN}}).decode()}).encode()
    form = {"content_type": "application/x-www-form-urlencoded"}
    answer = server.post("/predict", body, **form)
    assert probabilities(answer.content) == outputs(server.infer(ROWS))["probability"]
    assert server.post("/predict", body, **form, origin="http://example.com").status == 415
    assert server.post("/v2/models/ferry/infer", body, **form).status == 415


def test_tags_and_puid_come_back(ferry: Ferry) -> None:
    """The client's tags and id come back and are kept as its alias; no id and no header decides the key or the log."""
    with ferry.serve() as server:
        message = {"meta": {"puid": "mine", "tags": {"a": 1, "bundle": "x"}}, "data": {"ndarray": PLAIN[:1]}}
        first = server.post("/predict", message, seldon_skip_logging="true").content["meta"]
        second = server.post("/predict", message).content["meta"]
        other = server.post("/predict", {"data": message["data"]}, seldon_puid="theirs").content["meta"]
        assert server.stop() == 0
    assert [meta["puid"] for meta in (first, second, other)] == ["mine", "mine", "theirs"]
    assert (first["tags"]["a"], first["tags"]["bundle"]) == (1, ferry.digests[0])
    kept = read_predictions(ferry.workspace, "ferry").sort("prediction_id")
    assert kept["request_id"].to_list() == ["mine", "mine", "theirs"]
    assert kept["prediction_id"].to_list() == [
        meta["tags"]["prediction_id"][0] for meta in (first, second, other)
    ]


@pytest.mark.parametrize("path", ["/send-feedback", "/api/v1.0/feedback", "/api/v0.1/feedback"])
def test_feedback_joins_by_the_answer(ferry: Ferry, path: str) -> None:
    """Feedback that brings the answer back joins its outcomes to the predictions, whatever form the truth has."""
    truths = [
        {"data": {"ndarray": [[1], [0], [1]]}},
        {"data": {"tensor": {"shape": [3, 1], "values": [1.0, 0.0, 1.0]}}},
        {"jsonData": [True, False, True], "meta": {"tags": {"occurred_at": "2024-02-01T10:00:00Z"}}},
    ]
    with ferry.serve() as server:
        asked = []
        for truth in truths:
            request = {"data": {"ndarray": PLAIN}}
            answer = server.post("/predict", request).content
            asked += answer["meta"]["tags"]["prediction_id"]
            told = server.post(path, {"request": request, "response": answer, "reward": 1.0, "truth": truth})
            assert told.status == 200, told.content
            assert told.content["jsonData"]["counts"]["accepted"] == 3
        assert server.stop() == 0
    joined = dict(join_outcomes(ferry.workspace, "ferry").select("prediction_id", "outcome").iter_rows())
    assert [joined[name] for name in asked] == [1.0, 0.0, 1.0] * 3


def test_describes_itself_as_seldon_does(server: Server) -> None:
    """Metadata and health are where Seldon's own server has them."""
    described = server.get("/metadata").content
    assert described == server.get("/api/v1.0/metadata").content
    assert described["name"] == "ferry"
    assert described["inputs"] == [
        {"messagetype": "ndarray", "schema": {"names": list(INPUTS), "shape": [len(INPUTS)]}}
    ]
    assert server.get("/health/status").content["jsonData"] == {"ready": True, "refused": None}
    assert server.get("/ready").status == server.get("/live").status == 200
    with closing(
        http.client.HTTPConnection(server.address.removeprefix("http://"), timeout=10)
    ) as connection:
        connection.request("GET", "/health/ping")
        assert connection.getresponse().read() == b"pong"


NAMES = list(INPUTS)
WRONG: dict[str, tuple[Any, str]] = {
    "empty": ({}, "must have either 'data' or 'jsonData'. Got []"),
    "both": ({"data": {"ndarray": PLAIN}, "jsonData": {}}, "must have either"),
    "text": ({"strData": "hello"}, "must have either"),
    "bytes": ({"binData": "aGVsbG8="}, "must have either"),
    "unknown key": ({"dat": {}}, 'unknown key "dat"'),
    "data a list": ({"data": PLAIN}, "data must be an object"),
    "tftensor": ({"data": {"tftensor": {}}}, "either 'ndarray' or 'tensor'"),
    "flat": ({"data": {"ndarray": PLAIN[0]}}, "data.ndarray[0] must be a list of 6 values"),
    "ragged": ({"data": {"ndarray": [PLAIN[0], PLAIN[1][:5]]}}, "data.ndarray[1] must be a list of 6 values"),
    "names of numbers": ({"data": {"names": [1], "ndarray": PLAIN}}, "data.names must be a list of texts"),
    "fraction as integer": (
        {"data": {"ndarray": [[*PLAIN[0][:4], 9.5, True]]}},
        "data.ndarray[0][4] (passengers) must be a whole number",
    ),
    "2 as boolean": ({"data": {"ndarray": [[*PLAIN[0][:5], 2]]}}, "(holiday) must be true or false"),
    "null where required": ({"data": {"ndarray": [[None, *PLAIN[0][1:]]]}}, "(crossing_id) must be a text"),
    "tensor of numbers": (
        {"data": {"tensor": {"shape": [1, 6], "values": [1, 2, 3, 4, 5, 6]}}},
        "data.tensor[0][0] (crossing_id) must be a text",
    ),
    "tensor's shape": (
        {"data": {"tensor": {"shape": [2, 2], "values": []}}},
        "data.tensor.shape must be [n, 6]",
    ),
    "tensor too short": (
        {"data": {"tensor": {"shape": [2, 6], "values": [1]}}},
        "data.tensor.values must have 12 numbers",
    ),
    "tensor negative": ({"data": {"tensor": {"shape": [-2, 6], "values": [1]}}}, "at least one row"),
    "puid a number": ({"meta": {"puid": 1}, "data": {"ndarray": PLAIN}}, "meta.puid must be a text"),
    "puid too long": ({"meta": {"puid": "x" * 201}, "data": {"ndarray": PLAIN}}, "meta.puid must be a text"),
    "tags a list": ({"meta": {"tags": []}, "data": {"ndarray": PLAIN}}, "meta.tags must be an object"),
    "json a number": ({"jsonData": 1}, "jsonData must be a row as an object"),
    "json of lists": ({"jsonData": [[1]]}, "jsonData[0] must be an object"),
    "json's unknown input": ({"jsonData": {"colour": 1}}, 'no input "colour"'),
}


@pytest.mark.parametrize("case", WRONG)
def test_malformed_message_is_refused(server: Server, case: str) -> None:
    """Each fault is a 400 in Seldon's own form of an error, which names the place and what would be right."""
    body, expected = WRONG[case]
    answer = server.post("/predict", body)
    assert answer.status == 400
    status = answer.content["status"]
    assert (status["code"], status["reason"], status["status"]) == (-1, "MICROSERVICE_BAD_DATA", 1)
    assert expected in status["info"]
    assert len(status["info"]) < 400


ID = new_id()
WRONG_FEEDBACK: dict[str, tuple[Any, str]] = {
    "empty": ({}, "response.meta.tags.prediction_id must be"),
    "by puid alone": (
        {"response": {"meta": {"puid": ID}}, "truth": {"jsonData": 1}},
        "prediction_id must be",
    ),
    "reward alone": (
        {"response": {"meta": {"tags": {"prediction_id": [ID]}}}, "reward": 1.0},
        "truth must have either 'data' or 'jsonData'",
    ),
    "too few": (
        {"response": {"meta": {"tags": {"prediction_id": [ID, ID]}}}, "truth": {"jsonData": [1]}},
        "truth must have a value for each of the 2 predictions. Got 1",
    ),
    "value 2": (
        {"response": {"meta": {"tags": {"prediction_id": [ID]}}}, "truth": {"data": {"ndarray": [[2]]}}},
        "truth[0]: 'value' must be",
    ),
    "no id of ours": (
        {"response": {"meta": {"tags": {"prediction_id": "mine"}}}, "truth": {"jsonData": 1}},
        "'prediction_id' must be an id",
    ),
}


@pytest.mark.parametrize("case", WRONG_FEEDBACK)
def test_malformed_feedback_is_refused(server: Server, case: str) -> None:
    """Feedback without truth, without our ids, or with another value is a 400 that says so."""
    body, expected = WRONG_FEEDBACK[case]
    answer = server.post("/send-feedback", body)
    assert answer.status == 400
    assert expected in answer.content["status"]["info"]


def test_unknown_prediction_is_said(server: Server) -> None:
    """Feedback of which no prediction is known is a 404, as in the other protocol."""
    body = {"response": {"meta": {"tags": {"prediction_id": new_id()}}}, "truth": {"jsonData": 1}}
    assert server.post("/send-feedback", body).status == 404


def test_too_many_rows(server: Server) -> None:
    """The contract's most rows are answered, one more is a 413, in each form."""
    assert (
        len(probabilities(server.post("/predict", {"data": {"ndarray": PLAIN[:1] * 2000}}).content)) == 2000
    )
    huge = {"shape": [2**31, 6], "values": [1]}
    for body in ({"data": {"ndarray": [[]] * 2001}}, {"data": {"tensor": huge}}, {"jsonData": [{}] * 2001}):
        assert server.post("/predict", body).status == 413
