"""Run Seatrial's command line with what the server's image has: every other distribution is as if it were not there.

``python server_environment.py serve flights`` is ``seatrial serve flights`` in that environment;
without arguments, every module that runs in the image is imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "server.txt"
ROOMS = ("bundle", "cluster_setup", "features", "feedback", "promotion", "server", "tables", "workspace")
"""The parts of the package that run in the image."""


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class _Absent:
    """Finds nothing of a distribution that is not on the list."""

    def __init__(self) -> None:
        pins = re.findall(r"^([A-Za-z0-9._-]+)==", REQUIREMENTS.read_text(), flags=re.MULTILINE)
        self.there = {_plain(name) for name in [*pins, "seatrial"]}
        self.brought_by = importlib.metadata.packages_distributions()

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        brought_by = self.brought_by.get(name.partition(".")[0], [])
        if brought_by and not self.there & {_plain(found) for found in brought_by}:
            raise ModuleNotFoundError(f"{name} is not in requirements/server.txt", name=name)
        return None


def import_rooms() -> None:
    """Import every module of the package that runs in the image."""
    import seatrial

    for found in pkgutil.walk_packages(seatrial.__path__, "seatrial."):
        if found.name.split(".")[1] in ROOMS:
            importlib.import_module(found.name)


if __name__ == "__main__":
    sys.meta_path.insert(0, _Absent())
    if len(sys.argv) == 1:
        import_rooms()
    else:
        from seatrial.cli.main import main

        sys.exit(main())
