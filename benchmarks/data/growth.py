"""How our data work and what one would take instead grow, from 10⁴ to 10⁷ rows of simulated flights.

Flights of later years are those of 2013 once more. A contender stops at the size from which it would
take more memory or time than a reader has; the page says where and why. Time is a median of three, or
of a single run without a warm-up where a run takes more than about 20 seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench import same_columns, same_rows
from contenders import RESULTS, ROOT, Contender, Seen, machine, run
from inputs import write_drift, write_flights
from picture import Curve, draw_growth
from rich.console import Console

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
LONG_SECONDS = 20
PICTURE = ROOT / "docs" / "explanation" / "growth.svg"


@dataclass(frozen=True)
class Growing:
    """A contender and how far it goes.

    Attributes:
        contender: Which one.
        up_to: Largest size that it is run at.
    """

    contender: Contender
    up_to: int = SIZES[-1]


@dataclass(frozen=True)
class Growth:
    """Contenders that do the same work at every size.

    Attributes:
        title: What the work is.
        make_inputs: Makes the inputs of a size and returns their folder.
        growing: Who takes part.
        check: Raises an AssertionError unless all answers agree.
    """

    title: str
    make_inputs: Callable[[int], Path]
    growing: tuple[Growing, ...]
    check: Callable[[list[Seen]], None]


def _flights(rows: int) -> Path:
    return write_flights(RESULTS / "growth" / "inputs" / f"flights-{rows}", rows)


def _drift(rows: int) -> Path:
    return write_drift(RESULTS / "growth" / "inputs" / f"drift-{rows}", rows, min(rows, 1_000_000))


GROWTHS = (
    Growth(
        "weather of each flight, point in time",
        _flights,
        (
            Growing(Contender("Seatrial", "ours/join.py")),
            Growing(Contender("polars join_asof", "peers/polars_join.py")),
            Growing(Contender("Feast, duckdb", "peers/feast_join.py", "feast"), up_to=1_000_000),
        ),
        same_rows,
    ),
    Growth(
        "history features over 1, 7 and 28 days",
        _flights,
        (
            Growing(Contender("Seatrial", "ours/history.py")),
            Growing(Contender("Seatrial, by month", "ours/history_monthly.py")),
            Growing(Contender("pandas", "peers/pandas_history.py")),
        ),
        same_rows,
    ),
    Growth(
        "drift verdict, 20 columns",
        _drift,
        (
            Growing(Contender("Seatrial", "ours/drift.py")),
            Growing(Contender("evidently", "peers/evidently_drift.py"), up_to=1_000_000),
        ),
        same_columns,
    ),
)


def measure(growth: Growth, console: Console) -> list[Curve]:
    """Run all contenders at all of their sizes, smallest first, and check that they agree."""
    curves = [Curve(growing.contender.name, [], [], []) for growing in growth.growing]
    console.print(f"[bold]{growth.title}")
    for size in SIZES:
        inputs = growth.make_inputs(size)
        seen = []
        for curve, growing in zip(curves, growth.growing, strict=True):
            if size > growing.up_to:
                continue
            long = bool(curve.seconds) and curve.seconds[-1] * 10 > LONG_SECONDS
            contender = replace(growing.contender, repeats=1 if long else 3, warm_ups=0 if long else 1)
            found = run(contender, inputs, RESULTS / "growth" / f"{size}")
            console.print(f"  {size:>10,} {contender.name}: {found.median:.3g} s, {found.peak_mib:,.0f} MiB")
            curve.sizes.append(size)
            curve.seconds.append(found.median)
            curve.peak_mib.append(found.peak_mib)
            seen.append(found)
        growth.check(seen)
    return curves


def main() -> None:
    """Measure every growth and write the JSON and the picture of the documentation."""
    console = Console()
    facts: dict[str, object] = {"machine": machine()}
    curves = {growth.title: measure(growth, console) for growth in GROWTHS}
    facts["growth"] = {title: [vars(curve) for curve in found] for title, found in curves.items()}
    (RESULTS / "growth.json").write_text(json.dumps(facts, indent=2))
    draw_growth(curves, PICTURE)
    console.print(f"written: {RESULTS / 'growth.json'}, {PICTURE}")


if __name__ == "__main__":
    main()
