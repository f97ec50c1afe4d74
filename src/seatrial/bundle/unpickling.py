"""No process of ours unpickles: an audit hook refuses it (threats: Z6, A4).

Unpickling runs code that the file names. CPython raises the audit event ``pickle.find_class``
before each such look-up, from the C and the Python unpickler alike, and a hook that raises stops
it. A hook cannot be removed once it is set, which is what is wanted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from seatrial.errors import BundleError

_armed = False
_allowed: ContextVar[bool] = ContextVar("unpickling_allowed", default=False)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "pickle.find_class" and not _allowed.get():
        raise BundleError(
            f"Something tried to unpickle {arguments[0]}.{arguments[1]}. No process of Seatrial unpickles.",
            remedy="Bring models as scikit-learn estimators of a contract; bundles hold ONNX and skops.",
        )


def forbid_unpickling() -> None:
    """Make every attempt to unpickle fail, in this process and until it ends.

    Raises:
        BundleError: not here, but wherever something unpickles from now on.
    """
    global _armed  # noqa: PLW0603
    if not _armed:
        sys.addaudithook(_refuse)
        _armed = True


@contextmanager
def own_processes_only() -> Iterator[None]:
    """Let a library read what it pickled itself, in memory and in this very process.

    For libraries that copy objects by pickling them. Nothing from a file, a store or the network
    may be read within.
    """
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)
