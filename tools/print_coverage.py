"""Print the coverage of src/ by lines, and below 90% where it is low."""

from __future__ import annotations

import io
import sys

import coverage

WANTED = 90.0


def main() -> int:
    """Print the figure; name the files below it where the whole is below it."""
    measured = coverage.Coverage()
    measured.load()
    table = io.StringIO()
    total = measured.report(file=table, show_missing=False)
    sys.stdout.write(f"Coverage of src/ by lines: {total:.1f}%\n")
    if total < WANTED:
        sys.stdout.write(f"Below {WANTED:.0f}%; by file:\n{table.getvalue()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
