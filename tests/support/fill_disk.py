"""A process whose workspace lies on a small disk of its own that fills up: ``MODEL FOLDER``.

The folder must be a mount of a few megabytes. It prints one JSON document of what happened.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seatrial.contract import load_contract
from seatrial.errors import SeatrialError
from seatrial.promotion import read_pointer
from seatrial.sources import ingest
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support import bundles, killed_work


def outcome(work: Callable[[], Any]) -> list[str]:
    """Do something and return the error it ended in."""
    try:
        work()
    except SeatrialError as error:
        return [type(error).__name__, error.message, error.remedy]
    return ["done", "", ""]


def fill(folder: Path) -> Path:
    """Write until nothing fits any more."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def main() -> None:
    """Ingest, fill the disk, fail, look, make room, and ingest again."""
    model, folder = sys.argv[1], Path(sys.argv[2])
    loaded, workspace = load_contract(model), Workspace.open(folder / "workspace")
    ingest(loaded, workspace, periods=["2024-01"], tables=["visits"])
    tables = Tables(workspace, "visits", "raw")
    before = tables.version("visits")

    filler = fill(folder)
    said = {
        "ingest": outcome(lambda: ingest(loaded, workspace, until=bundles.AS_OF)),
        "release": outcome(lambda: killed_work.do_release(model, workspace)),
        "put": outcome(lambda: workspace.put("a/b", bytes(100_000))),
        "create": outcome(lambda: workspace.create("a/c", bytes(100_000))),
    }
    full = {
        "unchanged": tables.version("visits") == before,
        "batches": tables.batches("visits"),
        "generation": read_pointer(workspace, "local", "visits").generation,
        "there": [key for key in ("a/b", "a/c") if workspace.get(key) is not None],
    }
    filler.unlink()
    killed_work.do_ingest(model, workspace)
    killed_work.do_release(model, workspace)
    after = {**killed_work.look_at_tables(model, workspace), **killed_work.look_at_release(model, workspace)}
    print(json.dumps({"said": said, "full": full, "after": after}))


if __name__ == "__main__":
    main()
