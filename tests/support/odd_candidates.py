"""Bundles that pass their gates and then go wrong in service: they fail, are slow, or say something else."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 1_000
DEPTH = 24


def odd_model(kind: str, features: int) -> bytes:
    """Return an ONNX model of the ferry's features.

    Args:
        kind: ``fails``: no probability for any real row; ``slow``: some milliseconds a call; ``disagrees``:
            it flags each row.
        features: Number of its features.
    """
    ones = np.ones((features, 2), dtype=np.float32)
    if kind == "fails":
        return _model(
            features, [helper.make_node("MatMul", ["features", "w"], ["probabilities"])], {"w": ones}
        )
    weights = {"w": 0 * ones, "b": np.array([0.1, 0.9], dtype=np.float32)}
    # A missing number would make each product one.
    known = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Cast", ["missing"], ["known"], to=TensorProto.FLOAT),
    ]
    last = helper.make_node("Add", ["nothing", "b"], ["probabilities"])
    if kind == "disagrees":
        return _model(
            features, [*known, helper.make_node("MatMul", ["known", "w"], ["nothing"]), last], weights
        )
    assert kind == "slow"
    chance = np.random.default_rng(0)
    weights |= {
        "wide": chance.normal(size=(features, WIDTH)).astype(np.float32),
        "square": (chance.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32),
        "narrow": np.zeros((WIDTH, 2), dtype=np.float32),
    }
    chain = [*known, helper.make_node("MatMul", ["known", "wide"], ["h0"])]
    chain += [helper.make_node("MatMul", [f"h{n}", "square"], [f"h{n + 1}"]) for n in range(DEPTH)]
    chain.append(helper.make_node("MatMul", [f"h{DEPTH}", "narrow"], ["nothing"]))
    return _model(features, [*chain, last], weights)


def _model(features: int, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [
            numpy_helper.from_array(value, name)
            for name, value in weights.items()
            if any(name in node.input for node in nodes)
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())
