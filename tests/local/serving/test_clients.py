"""The protocols as their own clients speak them: Triton's, MLServer's types and seldon-core's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from tests.local.serving.conftest import INPUTS, Ferry, Server, crossings, infer_body, outputs
from tests.local.serving.test_grpc import Calls

from seatrial.feedback import join_outcomes
from support import clients

pytestmark = pytest.mark.long

ROWS = [
    orjson.loads(orjson.dumps({**row, "wind": 3.5 + place, "passengers": 9}))
    for place, row in enumerate(crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)[:3])
]
PROTOCOLS = ("json", "binary", "grpc")


@pytest.fixture(scope="module")
def triton(server: Server) -> Any:
    """What Triton's clients read from the server."""
    return clients.ask("oip", "ask_triton.py", question(server, Calls(server).address))


def question(server: Server, grpc_address: str | None = None) -> dict[str, Any]:
    return {
        "rest": server.address.removeprefix("http://"),
        "grpc": grpc_address,
        "inputs": infer_body(ROWS)["inputs"],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_triton_reads_the_same_answers(server: Server, triton: Any, protocol: str) -> None:
    """Triton's client is told what plain JSON tells, whether tensors are JSON or bytes, and its id comes back."""
    expected, found = outputs(server.infer(ROWS)), triton[protocol]
    assert found["probability"] == expected["probability"]
    assert found["flagged"] == expected["flagged"]
    assert len({*found["prediction_id"], *expected["prediction_id"]}) == 2 * len(ROWS)
    assert found["id"] == "from triton"
    assert found["live"] is found["ready"] is found["model_ready"] is True


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_triton_reads_the_error(triton: Any, protocol: str) -> None:
    """A fault reaches the client as the server's own words."""
    assert "There is no model 'other' here, but 'ferry'" in triton[protocol]["other"]


def test_triton_reads_the_descriptions(server: Server, triton: Any) -> None:
    """Server and model are described as the client expects, with the extension that it looks for."""
    assert triton["server"]["name"] == "seatrial"
    assert "binary_tensor_data" in triton["server"]["extensions"]
    assert triton["model"] == server.get("/v2/models/ferry").content
    assert triton["grpc_server"] == triton["server"]
    assert [tensor["name"] for tensor in triton["grpc_model"]["inputs"]] == list(INPUTS)


def test_mlserver_types_fit(server: Server) -> None:
    """Requests that MLServer's types write are answered, and answers and metadata are valid by its types."""
    assert clients.ask("oip", "ask_mlserver.py", question(server)) == {
        "id": "from mlserver",
        "probability": outputs(server.infer(ROWS))["probability"],
        "inputs": list(INPUTS),
        "server": "seatrial",
    }


def test_seldon_core_is_answered(ferry: Ferry) -> None:
    """seldon-core's client predicts in each of its ways, reads errors, and its feedback joins."""
    with ferry.serve("--grpc-port", "0") as server:
        expected = outputs(server.infer(ROWS))["probability"]
        said = clients.ask(
            "seldon",
            "ask_seldon.py",
            {
                "rest": server.address.removeprefix("http://"),
                "grpc": Calls(server).address,
                "rows": [[row[name] for name in INPUTS] for row in ROWS],
                "names": list(INPUTS),
            },
        )
        assert server.stop() == 0
    asked = []
    assert list(said) == ["rest", "grpc"]
    for found in said.values():
        for way in ("gateway", "microservice"):
            assert found[way]["success"], found[way]
            response = found[way]["response"]
            assert [row[0] for row in response["data"]["ndarray"]] == expected
            assert response["meta"]["tags"]["bundle"] == ferry.digests[0]
        assert found["json"]["response"]["jsonData"][0]["probability"] == expected[0]
        assert not found["wrong"]["success"]
        assert found["feedback"]["success"], found["feedback"]
        asked += found["gateway"]["response"]["meta"]["tags"]["prediction_id"]
    joined = dict(join_outcomes(ferry.workspace, "ferry").select("prediction_id", "outcome").iter_rows())
    assert [joined[name] for name in asked] == [1.0] * len(asked)
