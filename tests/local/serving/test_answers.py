"""What the server answers: predictions, descriptions, and what became of an outcome."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from tests.local.serving.conftest import INPUTS, Ferry, crossings, infer_body, outputs, wait_for

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.feedback import join_outcomes, read_predictions
from seatrial.feedback.ids import new_id

ROWS = crossings(2, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)


def test_answers_what_the_model_says(ferry: Ferry) -> None:
    """Probabilities are those of the bundle's ONNX model on the batch features, and are written down."""
    with ferry.serve() as server:
        answer = server.infer(ROWS, id="mine")
        found = outputs(answer)
        few = outputs(server.infer(ROWS[:3]))
        assert server.stop() == 0
    bundle = load_bundle(ferry.workspace, ferry.digests[0], open_trust_root(ferry.workspace))
    matrix = bundle.schema.features.encode(ferry.features_of(ROWS))
    (expected,) = bundle.session().run(["probabilities"], {"features": matrix})
    np.testing.assert_allclose(found["probability"], expected[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(few["probability"], found["probability"][:3])
    assert found["flagged"] == [value >= bundle.schema.threshold for value in found["probability"]]
    assert (answer.content["model_name"], answer.content["id"]) == ("ferry", "mine")
    assert answer.content["model_version"] == answer.content["parameters"]["bundle"] == bundle.digest
    written = read_predictions(ferry.workspace, "ferry").filter(request_id="mine")
    by_id = {row["prediction_id"]: row for row in written.iter_rows(named=True)}
    for name, row, features, probability in zip(
        found["prediction_id"], ROWS, matrix, found["probability"], strict=True
    ):
        kept = by_id[name]
        assert kept["key"] == f'["{row["crossing_id"]}"]'
        assert (kept["bundle"], kept["probability"]) == (bundle.digest, probability)
        assert (row["departs_at"] - kept["known_at"]).total_seconds() == 1800
        np.testing.assert_array_equal(np.array(kept["features"], dtype=np.float32), features)


def test_inputs_may_come_in_any_order_and_form(ferry: Ferry) -> None:
    """Order of tensors, shape [n, 1], nested data, narrower datatypes and left-out optional inputs all do."""
    rows = [{**row, "wind": 7.0, "passengers": 12, "holiday": None} for row in ROWS[:2]]
    body = infer_body(rows)
    other = infer_body(rows)
    other["inputs"] = [tensor for tensor in reversed(other["inputs"]) if tensor["name"] != "holiday"]
    for tensor in other["inputs"]:
        tensor["shape"] = [2, 1]
        tensor["data"] = [[value] for value in tensor["data"]]
        if tensor["name"] == "wind":
            tensor |= {"datatype": "INT32", "data": [7, 7]}
        if tensor["name"] == "departs_at":
            tensor["data"] = [row["departs_at"].astimezone().isoformat() for row in rows]
    other["outputs"] = [{"name": "probability"}]
    with ferry.serve() as server:
        first = outputs(server.post("/v2/models/ferry/infer", body))
        second = outputs(server.post(f"/v2/models/ferry/versions/{ferry.digests[0]}/infer", other))
    assert second == {"probability": first["probability"]}


def test_describes_itself(ferry: Ferry) -> None:
    """The server, the model and their health are described as the Open Inference Protocol says."""
    digest = ferry.digests[0]
    with ferry.serve() as server:
        assert server.get("/v2").content["extensions"] == ["feedback", "binary_tensor_data"]
        assert server.get("/v2/health/live").content == {"live": True}
        assert server.get("/v2/health/ready").content == {"ready": True, "refused": None}
        assert server.get("/v2/models/ferry/ready").status == 200
        described = server.get("/v2/models/ferry").content
        assert server.get(f"/v2/models/ferry/versions/{digest}").content == described
    assert described["versions"] == [digest]
    assert [tensor["name"] for tensor in described["inputs"]] == list(INPUTS)
    assert [tensor["datatype"] for tensor in described["inputs"]] == [
        "BYTES",
        "BYTES",
        "BYTES",
        "FP64",
        "INT64",
        "BOOL",
    ]
    assert [tensor["datatype"] for tensor in described["outputs"]] == ["FP64", "BOOL", "BYTES"]


def test_outcomes_are_told_apart(ferry: Ferry) -> None:
    """An outcome is accepted, repeated, changed or unknown, and the tables keep each as it came."""
    with ferry.serve() as server:
        known, other = outputs(server.infer(ROWS[:2]))["prediction_id"]
        early = {"occurred_at": "2024-02-01T10:00:00Z"}
        late = {"occurred_at": "2024-02-01T11:00:00Z"}

        def said(value: object, **more: object) -> tuple[str, bool]:
            (result,) = server.feedback({"prediction_id": known, "value": value, **more}).content["results"]
            return result["status"], result["outcome"]

        assert said(True, **late) == ("accepted", True)
        assert said(1, **late) == ("repeated", True)
        assert said(True) == ("repeated", True)
        assert said(0, **early) == ("changed", True)  # It became known earlier, so it does not count.
        assert said(False, **late) == ("changed", False)
        unknown = server.feedback({"prediction_id": new_id(), "value": 1})
        mixed = server.feedback({"prediction_id": other, "value": 1}, {"prediction_id": new_id(), "value": 1})
        single = server.post("/v2/models/ferry/feedback", {"prediction_id": other, "value": True})
        assert server.stop() == 0
    assert (unknown.status, mixed.status, single.status) == (404, 202, 200)
    assert "1 of 1 prediction ids" in unknown.content["error"]
    assert [result["status"] for result in mixed.content["results"]] == ["accepted", "unknown"]
    outcomes = dict(join_outcomes(ferry.workspace, "ferry").select("prediction_id", "outcome").iter_rows())
    assert outcomes == {known: 0.0, other: 1.0}


def test_outcome_is_known_after_a_restart(ferry: Ferry) -> None:
    """A server that was killed knows its predictions and outcomes when it is started again."""
    with ferry.serve("--ship-every", "600") as server:
        names = outputs(server.infer(ROWS[:2]))["prediction_id"]
        server.feedback({"prediction_id": names[0], "value": True})
        server.process.kill()
    with ferry.serve("--ship-every", "600") as server:
        again = server.feedback(*({"prediction_id": name, "value": True} for name in names))
        assert [result["status"] for result in again.content["results"]] == ["repeated", "accepted"]


def test_outcome_counts_for_the_next_request(ferry: Ferry) -> None:
    """An outcome changes the histories at once; the same again does not, and a changed one is taken back."""
    line = next(row for row in ROWS if row["line"] == "north")
    later = next(row for row in ROWS if row["line"] == "north" and row["departs_at"].hour == 12)
    with ferry.serve("--ship-every", "0.2") as server:
        (first,) = outputs(server.infer([line]))["prediction_id"]
        asked = []
        for value in (None, True, True, False):
            if value is not None:
                server.feedback(
                    {"prediction_id": first, "value": value, "occurred_at": "2024-02-01T08:00:00Z"}
                )
            asked += outputs(server.infer([later]))["prediction_id"]
        wait_for(
            lambda: read_predictions(ferry.workspace, "ferry").height == 5, "the predictions to be shipped"
        )
    features = dict(
        read_predictions(ferry.workspace, "ferry").select("prediction_id", "features").iter_rows()
    )
    share, count = (np.array([features[name][place] for name in asked]) for place in (0, 1))
    assert (count - count[0]).tolist() == [0, 1, 1, 1]
    late = np.rint(share * count)
    assert (late - late[0]).tolist() == [0, 1, 1, 0]
