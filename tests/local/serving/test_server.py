"""The server, as a process of its own, over HTTP."""

from __future__ import annotations

from seatrial.feedback import join_outcomes

from tests.local.serving.conftest import Ferry, crossings, outputs


def test_predicts_and_takes_outcomes(ferry: Ferry) -> None:
    """A row is answered with a probability and an id, and its outcome joins by that id."""
    rows = crossings(1, start=ferry_february())[:8]
    with ferry.serve() as server:
        answer = server.infer(rows, id="mine")
        assert answer.content["id"] == "mine"
        ids = outputs(answer)["prediction_id"]
        said = server.feedback({"prediction_id": ids[0], "value": True})
        assert said.content["counts"] == {"accepted": 1, "repeated": 0, "changed": 0, "unknown": 0}
        assert server.stop() == 0
    joined = join_outcomes(ferry.workspace, "ferry")
    assert joined["prediction_id"].sort().to_list() == sorted(ids)
    assert joined["outcome"].drop_nulls().to_list() == [1.0]


def ferry_february():
    from datetime import UTC, datetime
    return datetime(2024, 2, 1, tzinfo=UTC)
