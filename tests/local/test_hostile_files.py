"""Files that would run code, read other files, or never end: none does, and good models still load."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from seatrial.bundle import Bundle
from seatrial.errors import BundleError
from seatrial.training import load_skops
from seatrial.workspace import Workspace
from support.bundles import bundle_files, loaded_bundle, onnx_model
from support.processes import started


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """Dozens of payloads, by every unpickler there is: all refused, and none of their files made (threats: A4)."""
    with started("hostile_pickles.py", tmp_path) as process:
        out, errors = process.communicate(timeout=120)
    assert errors == ""

    said = [json.loads(line) for line in out.splitlines()]

    assert list(tmp_path.iterdir()) == []
    refused = Counter(line["way"] for line in said if line["said"] == "refused")
    assert set(refused) == {"pickle", "pickle twice", "_pickle", "pure Python", "joblib", "numpy"}
    assert refused["pickle"] >= 50
    assert refused["pure Python"] == refused["_pickle"] == refused["pickle"]
    # What loads is the harmless first of two pickles in one file, and half a file of nothing.
    assert {line["what"] for line in said if line["said"] == "loaded"} <= {"two in one"}


def test_the_payloads_would_work(tmp_path: Path) -> None:
    """Without the hook the same payload makes its file, so the test above can fail."""
    with started("hostile_pickles.py", tmp_path, "unarmed") as process:
        process.communicate(timeout=120)

    assert (tmp_path / "canary").is_dir()


def test_good_models_load_where_unpickling_is_forbidden(tmp_path: Path) -> None:
    """Skops and ONNX do without pickle, and agree."""
    from sklearn.linear_model import LogisticRegression

    from seatrial.training import to_onnx, to_skops

    random_ = np.random.default_rng(0)
    rows = random_.normal(size=(100, 3)).astype(np.float32)
    estimator = LogisticRegression().fit(rows, rows[:, 0] > 0)
    (tmp_path / "model.skops").write_bytes(to_skops(estimator))
    (tmp_path / "model.onnx").write_bytes(to_onnx(estimator, 3))

    with started("load_models.py", tmp_path / "model.skops", tmp_path / "model.onnx") as process:
        out, errors = process.communicate(timeout=120)

    assert process.returncode == 0, errors
    by_sklearn, by_onnx = map(float, out.split())
    assert by_sklearn == pytest.approx(by_onnx, abs=1e-6)
    assert 0.5 < by_sklearn < 1


def _external(location: str) -> TensorProto:
    """Return weights that lie in another file."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend([3, 2])
    for key, value in (("location", location), ("offset", "0"), ("length", "24")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


@pytest.fixture
def bundle_of(tmp_path: Path) -> object:
    workspace = Workspace.open(tmp_path / "workspace")

    def make(model: bytes) -> Bundle:
        return loaded_bundle(workspace, bundle_files(model_onnx=model))

    return make


@pytest.mark.parametrize("where", ["beside", "above", "absolute", "symbolic link", "hard link", "system"])
def test_a_model_cannot_read_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_of: object, where: str
) -> None:
    """ONNX models may keep weights in files of any path; from checked bytes none is read (threats: Z7, A6)."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for folder in (here, tmp_path):
        (folder / "weights.bin").write_bytes(np.ones(6, dtype=np.float32).tobytes())
    (here / "symbolic.bin").symlink_to(tmp_path / "weights.bin")
    os.link(tmp_path / "weights.bin", here / "hard.bin")
    location = {
        "beside": "weights.bin",
        "above": "../weights.bin",
        "absolute": str(tmp_path / "weights.bin"),
        "symbolic link": "symbolic.bin",
        "hard link": "hard.bin",
        "system": "/etc/hostname",
    }[where]
    bundle = bundle_of(onnx_model(initializer=_external(location)))  # type: ignore[operator]

    with pytest.raises(BundleError, match="model.onnx of bundle .* cannot be loaded"):
        bundle.session()


def _graph(nodes: list[onnx.NodeProto], *, domain: str = "", opset: int = 17, ir_version: int = 8) -> bytes:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3])],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version).SerializeToString())


IDENTITY = helper.make_node("Identity", ["features"], ["probabilities"])
HOSTILE = {
    "an operator of another domain": _graph(
        [helper.make_node("Run", ["features"], ["probabilities"], domain="evil")], domain="evil"
    ),
    "an operator set from the future": _graph([IDENTITY], opset=999),
    "a format from the future": _graph([IDENTITY], ir_version=999),
    "half a model": onnx_model()[:-10],
    "a pickle": b"cos\nsystem\n(S'true'\ntR.",
    "a zip": b"PK\x05\x06" + bytes(18),
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_model_that_is_none_is_refused(bundle_of: object, case: str) -> None:
    """Unknown operators, formats and other files end in an error with the file's name (threats: A6)."""
    bundle = bundle_of(HOSTILE[case])  # type: ignore[operator]

    with pytest.raises(BundleError, match="model.onnx of bundle .* cannot be loaded"):
        bundle.session()


def _skops(schema: object, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", schema if isinstance(schema, bytes) else json.dumps(schema))
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _node(loader: str, module: str, name: str, **more: object) -> dict[str, object]:
    return {"__class__": name, "__module__": module, "__loader__": loader, "__id__": 1, **more}


def _root(node: dict[str, object]) -> dict[str, object]:
    return {**node, "protocol": 2, "_skops_version": "0.16.0"}


def _nested_tuples(depth: int) -> dict[str, object]:
    node = _node("TypeNode", "builtins", "int")
    for _ in range(depth):
        node = _node("TupleNode", "builtins", "tuple", content=[node])
    return node


HOSTILE_SKOPS = {
    "a function of the system": _root(
        _node("FunctionNode", "os", "system", content={"module_path": "os", "function": "system"})
    ),
    "an object of any class": _root(_node("ObjectNode", "subprocess", "Popen", content={"args": "true"})),
    "a type of any module": _root(_node("TypeNode", "builtins", "eval")),
    "a method of anything": _root(
        _node(
            "MethodNode", "os", "system", content={"func": "system", "obj": _node("TypeNode", "os", "system")}
        )
    ),
    "an operator": _root(
        _node(
            "OperatorFuncNode",
            "operator",
            "attrgetter",
            attrs=_node("TupleNode", "builtins", "tuple", content=[]),
        )
    ),
    "an unknown loader": _root(_node("EvilNode", "os", "system")),
    "no schema": [],
    "no JSON": b"{",
    "brackets in brackets": b'{"content":' * 100_000 + b"1" + b"}" * 100_000,
    "nodes in nodes": _root(_nested_tuples(300)),
}


@pytest.mark.parametrize("case", HOSTILE_SKOPS)
def test_a_skops_file_may_hold_trusted_types_only(case: str) -> None:
    """The list of types is ours and fixed; a file's own names are never looked up (threats: A5)."""
    with pytest.raises(BundleError, match="The skops model cannot be loaded"):
        load_skops(_skops(HOSTILE_SKOPS[case]))


@pytest.mark.parametrize("content", [b"", b"PK", b"cos\nsystem\n(S'true'\ntR.", b"\x80\x04N."])
def test_what_is_no_skops_archive(content: bytes) -> None:
    """Another kind of file under that name is refused."""
    with pytest.raises(BundleError, match="The skops model cannot be loaded"):
        load_skops(content)


def test_a_skops_archive_is_measured_before_it_is_opened() -> None:
    """A megabyte that would unpack to a gigabyte, and very many members, are refused unread."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("schema.json", "w") as member,
    ):
        for _ in range(600):
            member.write(bytes(1024 * 1024))
    with pytest.raises(BundleError, match="The skops model is too large"):
        load_skops(buffer.getvalue())
    many = {f"{number}.npy": b"" for number in range(20_001)}
    with pytest.raises(BundleError, match="The skops model is too large"):
        load_skops(_skops({}, **many))
