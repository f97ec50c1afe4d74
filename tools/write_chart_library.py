"""Copy what the platform's charts share into each subchart: templates, global values, and their schema.

Helm has no way to share these that leaves each subchart installable alone from a clone, so each has
a copy; a person changes the umbrella chart, this script the rest. ``--check`` compares instead of
writing, and a test runs it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

UMBRELLA = Path(__file__).resolve().parents[1] / "charts" / "platform"
LIBRARY = Path("templates", "_library.tpl")
VALUES = Path("values.yaml")
SCHEMA = Path("values.schema.json")
GLOBAL = re.compile(r"^global:\n(?:(?: .*)?\n)*", re.MULTILINE)
"""The block of the key ``global`` in a values file, with its comments."""
ENVIRONMENTS = re.compile(r"^  environments:\n(?:    .*\n)+", re.MULTILINE)


def main() -> int:
    """Write the copies, or with ``--check`` name those that differ; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a copy differs")
    check = parser.parse_args().check
    stale = False
    for path, text in wanted().items():
        if path.exists() and path.read_text() == text:
            continue
        stale = True
        if check:
            sys.stderr.write(f"{path.relative_to(UMBRELLA)} differs: python tools/write_chart_library.py\n")
        else:
            path.write_text(text)
    return 1 if check and stale else 0


def wanted() -> dict[Path, str]:
    """Return what each file that holds a copy shall say."""
    # Helm takes a default of a subchart for set even where the umbrella's user took it away,
    # so that the environments of the default are the umbrella's alone.
    values = ENVIRONMENTS.sub("  environments: {}\n", _global_block(UMBRELLA / VALUES)).strip()
    schema = json.loads((UMBRELLA / SCHEMA).read_text())["properties"]["global"]
    files = {}
    for chart in sorted(path.parent for path in UMBRELLA.glob("charts/*/Chart.yaml")):
        files[chart / LIBRARY] = (UMBRELLA / LIBRARY).read_text()
        files[chart / VALUES] = _with_global_block(chart / VALUES, values)
        own = json.loads((chart / SCHEMA).read_text())
        own["properties"] = {"global": schema} | {k: v for k, v in own["properties"].items() if k != "global"}
        files[chart / SCHEMA] = json.dumps(own, indent=2, ensure_ascii=False) + "\n"
    return files


def _global_block(path: Path) -> str:
    found = GLOBAL.search(path.read_text())
    if found is None:
        raise SystemExit(f"{path} has no key 'global'.")
    return found[0]


def _with_global_block(path: Path, block: str) -> str:
    """Return a subchart's values with the block in the place of its own, or at the end."""
    text = path.read_text()
    if GLOBAL.search(text):
        return GLOBAL.sub(lambda _: f"{block}\n\n", text).rstrip() + "\n"
    comment = "# A copy of what all subcharts share; change it in the platform's own values.yaml."
    return f"{text.rstrip()}\n\n{comment}\n{block}\n"


if __name__ == "__main__":
    raise SystemExit(main())
