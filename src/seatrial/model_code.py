"""The Python files of a model: ``features.py``, ``prepare.py`` and the like.

Each is executed from the bytes at hand, in a module of its own, and never imported by name: the
same function loads a file of the model's folder while training and the checked bytes of a bundle
while serving, so what runs is what was digested (threats: A7).
"""

from __future__ import annotations

import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from seatrial.errors import ContractError, Problem


def run_model_code(source: bytes, shown_path: str) -> ModuleType:
    """Execute a model's Python file and return its module.

    Args:
        source: The file's bytes.
        shown_path: The name that messages and tracebacks show.

    Raises:
        ContractError: if it cannot be parsed or executed, naming the line.
    """
    module = ModuleType(f"seatrial_model_{Path(shown_path).stem}")
    try:
        # Model code is the model author's own and reviewed with the contract (threats: EP10).
        # It is compiled on its own: the annotations of this file are not its.
        exec(compile(source, shown_path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(error, shown_path)
        problem = Problem("", f"cannot be executed: {type(error).__name__}: {error}.", line)
        raise ContractError(shown_path, [problem]) from error
    return module


def load_model_code(path: Path, wanted: str) -> Any:
    """Execute a model's Python file and return one of its names.

    Raises:
        ContractError: if the file is missing, cannot be executed, or does not define ``wanted``.
    """
    if not path.is_file():
        raise ContractError(str(path), [Problem("", f"does not exist, but {wanted!r} is wanted from it.")])
    module = run_model_code(path.read_bytes(), str(path))
    if not hasattr(module, wanted):
        raise ContractError(str(path), [Problem("", f"must define {wanted!r}, and does not.")])
    return getattr(module, wanted)


def _line_in(error: BaseException, path: str) -> int | None:
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == path), None)
