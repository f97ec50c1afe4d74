"""A model that hangs does not keep its server from everybody for ever."""

from __future__ import annotations

import contextlib
import socket
from datetime import UTC, datetime

import orjson
import pytest
from tests.local.serving.conftest import FEATURES, Ferry, crossings, infer_body, outputs, wait_for

from seatrial.feedback import read_predictions

ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
HANGS = 400
"""So many passengers are more than any ferry takes: the feature below never ends with them."""
HANGING = FEATURES.replace(
    '"passengers": pl.col("passengers")',
    '"passengers": pl.col("passengers").map_elements(counted, return_dtype=pl.Int64)',
).replace(
    "\nFEATURES",
    f"\ndef counted(passengers):\n    while passengers == {HANGS}:\n        pass\n    return passengers\n\n\nFEATURES",
    1,
)

pytestmark = pytest.mark.long


def test_prediction_that_hangs_ends_its_server(ferry: Ferry) -> None:
    """The server ends, says where it hung, has lost nothing that it answered, and starts again."""
    ferry.promote(ferry.make_bundle(**{"features.py": HANGING.encode()}))
    with ferry.serve("--hang-limit", "10") as server:
        (name,) = outputs(server.infer([{**ROWS[0], "passengers": 7}]))["prediction_id"]
        body = orjson.dumps(infer_body([{**ROWS[0], "passengers": HANGS}]))
        host, port = server.address.removeprefix("http://").split(":")
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=60)) as client:
            client.sendall(b"POST /v2/models/ferry/infer HTTP/1.1\r\nhost: x\r\n")
            client.sendall(b"content-length: %d\r\n\r\n" % len(body) + body)
            wait_for(lambda: server.process.poll() is not None, "the server to end", 120)
        assert server.process.returncode == 70
        assert "a prediction hangs" in server.errors
        assert "counted" in server.errors
    with ferry.serve() as server:
        assert outputs(server.infer([{**ROWS[0], "passengers": 7}]))
        assert server.stop() == 0
    assert name in read_predictions(ferry.workspace, "ferry")["prediction_id"].to_list()
