"""The onnxruntime session that every answer is made by: in training's checks, in gates, and in the server.

One place for its options, so that what was measured before a model serves is what serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

_FATAL = 4


def open_session(content: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return an onnxruntime session of a model's bytes.

    What is wrong with the bytes is raised, in one of onnxruntime's many classes, and not printed too.

    Args:
        content: The model as ONNX.
        threads: Threads that one prediction may use.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
