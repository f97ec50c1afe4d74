"""Bundles for tests, made without training: a real ONNX model, a real contract, verdicts that pass."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
from onnx import TensorProto, helper, numpy_helper

from seatrial.bundle import Bundle, load_bundle, open_signer, open_trust_root, write_bundle
from seatrial.workspace import Workspace
from support.small_model import CONTRACT, FEATURES

AS_OF = datetime(2024, 4, 1, tzinfo=UTC)
VERDICTS: list[dict[str, Any]] = [
    {"check": "data_tests", "outcome": "pass", "value": 0.0, "bound": 0.0},
    {"check": "minimum_quality", "outcome": "pass", "value": 0.7, "bound": 0.5},
    {"check": "calibration", "outcome": "warn", "value": 0.4, "bound": 0.5},
    {"check": "parity", "outcome": "pass", "value": 1e-7, "bound": 1e-3},
]


def onnx_model(*, initializer: TensorProto | None = None) -> bytes:
    """Return a model that multiplies ``features``, of shape (n_rows, 3), with a matrix of ones."""
    weights = initializer or numpy_helper.from_array(np.ones((3, 2), dtype=np.float32), "weights")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], ["probabilities"])],
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def bundle_files(*, verdicts: Any = VERDICTS, contract: str = CONTRACT, **files: bytes) -> dict[str, bytes]:
    """Return the files of a bundle; ``model_onnx=b""`` and the like replace one."""
    return {
        "model.yaml": contract.encode(),
        "features.py": FEATURES.encode(),
        "model.onnx": onnx_model(),
        "verdicts.json": orjson.dumps(verdicts),
        "card.md": b"# visits\n",
        **{name.replace("_", "."): content for name, content in files.items()},
    }


def make_bundle(workspace: Workspace, files: dict[str, bytes] | None = None, *, run: str = "run") -> str:
    """Write a signed bundle and return its digest."""
    return write_bundle(
        workspace,
        files if files is not None else bundle_files(),
        model="visits",
        run=run,
        data={"visits": {"version": 0, "rows": 1, "digest": "0" * 64}},
        signer=open_signer(workspace),
        created=AS_OF,
    )


def loaded_bundle(workspace: Workspace, files: dict[str, bytes] | None = None, *, run: str = "run") -> Bundle:
    """Write a signed bundle and load it."""
    return load_bundle(workspace, make_bundle(workspace, files, run=run), open_trust_root(workspace))
