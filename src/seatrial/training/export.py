"""The trained model as files: ONNX to answer fast, skops to be read by scikit-learn again.

Both are made from the same fitted estimator and neither is a pickle. skops writes memory addresses
and the wall clock into its archive; :func:`to_skops` replaces them, because the same model must
give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from seatrial.errors import BundleError, TrainingError
from seatrial.onnx_session import open_session

if TYPE_CHECKING:
    import onnxruntime

OPSETS = {"": 21, "ai.onnx.ml": 3}
INPUT = "features"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAXIMUM_MEMBERS = 20_000
_MAXIMUM_UNPACKED = 512 * 1024 * 1024

TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types that skops may make beyond its own list; fixed here, never taken from a file."""


def to_onnx(estimator: Any, n_features: int) -> bytes:
    """Convert a fitted classifier to ONNX.

    Args:
        estimator: The classifier over a float32 matrix.
        n_features: Number of the matrix's columns.

    Returns:
        A model with the input ``features``, float32 of shape (n_rows, n_features), and the outputs
        ``label`` and ``probabilities``, the latter of shape (n_rows, 2).

    Raises:
        TrainingError: if a part of the estimator cannot be converted.
    """
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    try:
        model = skl2onnx.to_onnx(
            estimator,
            initial_types=[(INPUT, FloatTensorType([None, n_features]))],
            options={"zipmap": False},
            target_opset=OPSETS,
        )
    except Exception as error:
        raise TrainingError(
            f"{type(estimator).__name__} cannot be converted to ONNX: {str(error).splitlines()[0]}.",
            remedy="Use an estimator that skl2onnx supports: https://onnx.ai/sklearn-onnx/supported.html",
        ) from error
    content: bytes = model.SerializeToString()
    return content


def parity(onnx: bytes, skops: bytes, matrix: NDArray[np.float32]) -> float:
    """Return the largest difference between the probabilities of a model's two files.

    Args:
        onnx: The model as ONNX.
        skops: The same model as skops; it is loaded as it will be from a bundle.
        matrix: Encoded rows, of shape (n_rows, n_features), at least one.

    Raises:
        BundleError: if the skops bytes cannot be loaded.
    """
    fast = predict_probabilities(open_session(onnx), matrix)
    exact = load_skops(skops).predict_proba(matrix)[:, 1]
    return float(np.abs(fast - exact).max())


def predict_probabilities(
    session: onnxruntime.InferenceSession, matrix: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the probability of the positive class for each row, of shape (n_rows,)."""
    probabilities = session.run(["probabilities"], {INPUT: matrix})[0]
    return np.asarray(probabilities[:, 1], dtype=np.float64)


def to_skops(estimator: Any) -> bytes:
    """Write a fitted estimator as skops; the same estimator gives the same bytes.

    Raises:
        TrainingError: if it holds a type that is not trusted, so that nobody could load it.
    """
    import skops.io

    written = skops.io.dumps(estimator)
    if unknown := set(skops.io.get_untrusted_types(data=written)) - set(TRUSTED_TYPES):
        raise TrainingError(
            f"{type(estimator).__name__} cannot be bundled: it holds types that are not trusted "
            f"({', '.join(sorted(unknown))})."
        )
    return _canonical(written)


def _canonical(archive: bytes) -> bytes:
    """Number objects in the order in which they appear, and set every date to 1980."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        schema = orjson.loads(source.read("schema.json"))
        members = {name: source.read(name) for name in source.namelist() if name != "schema.json"}
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    _renumber(schema, numbers, files)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        for name in sorted(members, key=lambda n: files.get(n, n)):
            target.writestr(
                zipfile.ZipInfo(files.get(name, name), _EPOCH), members[name], zipfile.ZIP_DEFLATED
            )
        text = orjson.dumps(schema, option=orjson.OPT_INDENT_2)
        target.writestr(zipfile.ZipInfo("schema.json", _EPOCH), text, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _renumber(node: Any, numbers: dict[int, int], files: dict[str, str]) -> None:
    if isinstance(node, dict):
        if isinstance(node.get("__id__"), int):
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers) + 1)
        if isinstance(file := node.get("file"), str):
            suffix = file.rpartition(".")[2]
            node["file"] = files.setdefault(file, f"{len(files) + 1}.{suffix}")
        for key in node:
            _renumber(node[key], numbers, files)
    elif isinstance(node, list):
        for part in node:
            _renumber(part, numbers, files)


def load_skops(content: bytes) -> Any:
    """Read an estimator from skops bytes, with the fixed list of trusted types.

    Raises:
        BundleError: if it is no such archive, too large when unpacked, or holds another type.
    """
    import skops.io

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
        # Before anything is unpacked: a small archive may claim to hold a disk full of zeros.
        if len(members) > _MAXIMUM_MEMBERS or unpacked > _MAXIMUM_UNPACKED:
            raise BundleError(
                f"The skops model is too large: {len(members)} members, {unpacked:,} bytes unpacked."
            )
        return skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"The skops model cannot be loaded: {str(error).splitlines()[0]}.") from error
