"""A process that forbids unpickling and then tries to, in every way: ``FOLDER [unarmed]``.

Each payload would make a file in the folder. It prints one JSON line for each attempt.
"""

import io
import json
import pickle
import sys
from pathlib import Path

from seatrial.bundle import forbid_unpickling
from seatrial.errors import BundleError


class Payload:
    """Anything that runs when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        """Tell pickle to call the function."""
        return self.call


def payloads(canary: str) -> dict[str, object]:
    """Return objects that make a file when they are unpickled, by the family that they are of."""
    import importlib
    import logging
    import os
    import runpy
    import shutil
    import subprocess

    code = f"open({canary!r}, 'w').close()"
    return {
        "os.system": Payload(os.system, f"touch {canary}"),
        "os.mkdir": Payload(os.mkdir, canary),
        "subprocess.call": Payload(subprocess.call, ["touch", canary]),
        "builtins.eval": Payload(eval, code),
        "builtins.exec": Payload(exec, code),
        "builtins.open": Payload(open, canary, "w"),
        "io.open": Payload(io.open, canary, "w"),
        "pathlib": Payload(Path.touch, Path(canary)),
        "logging": Payload(logging.FileHandler, canary),
        "shutil": Payload(shutil.copy, "/dev/null", canary),
        "runpy": Payload(runpy.run_path, canary),
        "importlib": Payload(importlib.import_module, "antigravity"),
        "nested": [1, {"a": (Payload(os.system, f"touch {canary}"),)}],
    }


def opcodes(canary: str) -> dict[str, bytes]:
    """Return hand-written pickles, of the kinds that scanners have overlooked."""
    touch = f"touch {canary}"
    return {
        "GLOBAL": f"cos\nsystem\n(S'{touch}'\ntR.".encode(),
        "INST": f"(S'{touch}'\nios\nsystem\n.".encode(),
        "OBJ": f"(cos\nsystem\nS'{touch}'\no.".encode(),
        "two in one": f"I1\n.cos\nsystem\n(S'{touch}'\ntR.".encode(),
        "after garbage": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00"
        + f"cos\nsystem\n(S'{touch}'\ntR.".encode(),
        "no end": f"cos\nsystem\n(S'{touch}'\ntR".encode(),
    }


def numpy_of(content: object) -> bytes:
    """Return an .npy file of one object."""
    import numpy as np

    buffer = io.BytesIO()
    array = np.empty(1, dtype=object)
    array[0] = content
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def loaders() -> dict[str, object]:
    """Return the ways to unpickle bytes."""
    import joblib
    import numpy as np

    def both(content: bytes) -> None:
        file = io.BytesIO(content)
        pickle.load(file)
        pickle.load(file)

    return {
        "pickle": pickle.loads,
        "pickle twice": both,
        "_pickle": lambda content: __import__("_pickle").loads(content),
        "pure Python": pickle._loads,
        "joblib": lambda content: joblib.load(io.BytesIO(content)),
        "numpy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),
    }


def main() -> None:
    """Try everything and say what came of it."""
    folder = Path(sys.argv[1])
    canary = str(folder / "canary")
    contents = {
        f"{family}, protocol {protocol}": pickle.dumps(payload, protocol)
        for family, payload in payloads(canary).items()
        for protocol in (0, 2, 4, 5)
    }
    contents |= opcodes(canary)
    contents |= {f"{family}, .npy": numpy_of(payload) for family, payload in payloads(canary).items()}
    ways = loaders()
    if sys.argv[2:] == ["unarmed"]:  # To show that the payloads would work.
        contents = {"os.mkdir": contents["os.mkdir, protocol 4"]}
    else:
        forbid_unpickling()
        forbid_unpickling()  # Twice does no harm.
    for what, content in contents.items():
        for way, load in ways.items():
            said = "loaded"
            try:
                load(content)
            except BundleError:
                said = "refused"
            except Exception as error:  # noqa: BLE001 -- a loader that does not take this kind of file
                said = type(error).__name__
            print(json.dumps({"what": what, "way": way, "said": said}))


if __name__ == "__main__":
    main()
