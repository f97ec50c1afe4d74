"""No process of ours unpickles: an audit hook refuses it (threats: Z6, A4).

Unpickling runs code that the file names. CPython raises the audit event ``pickle.find_class``
before each such look-up, from the C and the Python unpickler alike, and a hook that raises stops
it. A hook cannot be removed once it is set, which is what is wanted.
"""

from __future__ import annotations

import sys

from seatrial.errors import BundleError

_armed = False


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event == "pickle.find_class":
        raise BundleError(
            f"Something tried to unpickle {arguments[0]}.{arguments[1]}. No process of Seatrial unpickles.",
            remedy="Bring models as scikit-learn estimators of a contract; bundles hold ONNX and skops.",
        )


def forbid_unpickling() -> None:
    """Make every attempt to unpickle fail with a BundleError, in this process and until it ends."""
    global _armed  # noqa: PLW0603 -- the hook is the process's, so there is one such fact a process
    if not _armed:
        sys.addaudithook(_refuse)
        _armed = True
