"""Seatrial's data work beside what a user would take instead: one command, one run, one table.

Every comparison runs all of its contenders on the same inputs, checks that they give the same
answers, and then compares medians. The machine is what it is: take the ratios, not the seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from contenders import RESULTS, Contender, Seen, machine, run
from inputs import PLANTED, write_drift, write_flights
from loop import add_rows, seconds_of_stages
from picture import draw_bars
from polars.testing import assert_frame_equal
from rich.console import Console
from rich.table import Table

DRIFT_ROWS = 1_000_000
STEPS = 10
MANY_ROWS = 2_000_000
INPUTS = RESULTS / "inputs"


@dataclass(frozen=True)
class Goal:
    """A ratio that is to be reached.

    Attributes:
        name: Its key among the ratios.
        over: The contender whose time is divided.
        under: The contender by whose time it is divided.
        at_least: Smallest ratio that is good enough.
        at_most: Largest ratio that is good enough.
    """

    name: str
    over: str
    under: str
    at_least: float | None = None
    at_most: float | None = None

    def met(self, ratio: float) -> bool | None:
        """Whether a ratio is good enough; None where there is no goal."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least or 0.0) <= ratio <= (self.at_most or float("inf"))


@dataclass(frozen=True)
class Comparison:
    """Contenders that do the same work.

    Attributes:
        name: Its key in the results.
        title: What the work is.
        make_inputs: Makes the inputs, where they are not there, and returns their folder.
        contenders: Ours first.
        check: Raises an AssertionError unless all answers agree.
        goals: The ratios that are shown.
    """

    name: str
    title: str
    make_inputs: Callable[[], Path]
    contenders: tuple[Contender, ...]
    check: Callable[[list[Seen]], None]
    goals: tuple[Goal, ...]


def same_rows(seen: list[Seen]) -> None:
    """All answers have the same rows and values, whatever their order; of millions, each tenth is looked at."""
    first, *others = (_answers(one.answers) for one in seen)
    for other in others:
        assert_frame_equal(first, other.select(first.columns), check_exact=False, rel_tol=1e-9)


def _answers(path: Path) -> pl.DataFrame:
    rows = pl.scan_parquet(path)
    if rows.select(pl.len()).collect().item() > MANY_ROWS:
        rows = rows.filter(pl.col("flight_id").hash(0) % 10 == 0)
    return rows.with_columns(pl.col(pl.Float64).fill_nan(None)).collect(engine="streaming").sort("flight_id")


def same_columns(seen: list[Seen]) -> None:
    """All find drift in the planted columns and in no other."""
    found = {one.contender.name: one.facts["drifted"] for one in seen}
    assert all(columns == PLANTED for columns in found.values()), f"{found}, planted: {PLANTED}"


def same_end(seen: list[Seen]) -> None:
    """The last of the steps gave what ten steps give."""
    assert [one.facts["last"] for one in seen] == [STEPS] * len(seen)


COMPARISONS = (
    Comparison(
        "join",
        "point-in-time join: all flights, the weather two hours before departure",
        lambda: write_flights(INPUTS / "flights"),
        (
            Contender("Seatrial", "ours/join.py", repeats=7, warm_ups=2),
            Contender("polars join_asof", "peers/polars_join.py", repeats=7, warm_ups=2),
            Contender("Feast, duckdb", "peers/feast_join.py", "feast"),
        ),
        same_rows,
        (
            Goal("join: Feast / Seatrial", "Feast, duckdb", "Seatrial", at_least=100),
            Goal("join: Seatrial / polars", "Seatrial", "polars join_asof", at_most=3),
        ),
    ),
    Comparison(
        "history",
        "history features: carrier, route, plane over 1, 7, 28 days, all flights",
        lambda: write_flights(INPUTS / "flights"),
        (
            Contender("Seatrial", "ours/history.py", repeats=5),
            Contender("Seatrial, by month", "ours/history_monthly.py", repeats=5),
            Contender("pandas", "peers/pandas_history.py"),
        ),
        same_rows,
        (
            Goal("history: pandas / Seatrial", "pandas", "Seatrial"),
            Goal("history: by month / at once", "Seatrial, by month", "Seatrial"),
        ),
    ),
    Comparison(
        "drift",
        "drift verdict: 20 columns, 10⁶ rows against a reference of 10⁶",
        lambda: write_drift(INPUTS / "drift", DRIFT_ROWS, DRIFT_ROWS),
        (
            Contender("Seatrial", "ours/drift.py", repeats=5),
            Contender("evidently", "peers/evidently_drift.py", warm_ups=0),
        ),
        same_columns,
        (Goal("drift: evidently / Seatrial", "evidently", "Seatrial", at_least=50),),
    ),
    Comparison(
        "step",
        "one step of a local pipeline, of ten in a row",
        lambda: INPUTS,
        (
            Contender("kfp.local", "ours/steps.py"),
            Contender("Metaflow", "peers/metaflow_steps.py", "metaflow"),
            Contender("ZenML", "peers/zenml_steps.py", "zenml"),
        ),
        same_end,
        (
            Goal("step: Metaflow / kfp.local", "Metaflow", "kfp.local"),
            Goal("step: ZenML / kfp.local", "ZenML", "kfp.local"),
        ),
    ),
)


def compare(comparison: Comparison, console: Console) -> list[Seen]:
    """Run a comparison's contenders one after the other and check that they agree.

    Raises:
        SystemExit: if their answers differ.
    """
    console.print(f"[bold]{comparison.title}")
    inputs = comparison.make_inputs()
    inputs.mkdir(parents=True, exist_ok=True)
    seen = []
    for contender in comparison.contenders:
        seen.append(run(contender, inputs, RESULTS / comparison.name))
        console.print(f"  {contender.name}: {seen[-1].median:.3g} s")
    try:
        comparison.check(seen)
    except AssertionError as error:
        sys.exit(f"The answers differ, so there is nothing to compare: {error}")
    return seen


def show(found: dict[str, list[Seen]], ratios: dict[str, float], loop: dict[str, float]) -> Table:
    """Return the table of everything."""
    table = Table(title="Medians of one run on a shared machine: take the ratios", title_justify="left")
    for name in ("work", "contender", "seconds", "fastest to slowest", "times ours", "peak MiB"):
        table.add_column(name, justify="left" if name in ("work", "contender") else "right")
    for comparison in COMPARISONS:
        seen = found[comparison.name]
        for place, one in enumerate(seen):
            table.add_row(
                comparison.name if place == 0 else "",
                one.contender.name,
                f"{one.median:.3g}",
                f"{min(one.seconds):.3g} to {max(one.seconds):.3g}",
                f"{one.median / seen[0].median:.3g}" if place else "",
                f"{one.peak_mib:,.0f}",
            )
        table.add_section()
    add_rows(table, loop)
    table.add_section()
    for goal in (goal for comparison in COMPARISONS for goal in comparison.goals):
        ratio = ratios[goal.name]
        wanted = (
            f"at least {goal.at_least:g}"
            if goal.at_least
            else f"at most {goal.at_most:g}"
            if goal.at_most
            else ""
        )
        said = {True: "[green]reached", False: "[red]missed", None: ""}[goal.met(ratio)]
        table.add_row("ratio", goal.name, f"{ratio:.3g}", wanted, said, "")
    return table


def main() -> None:
    """Run every comparison and write table, JSON and picture."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    facts: dict[str, Any] = {"machine": machine()}
    found = {comparison.name: compare(comparison, console) for comparison in COMPARISONS}
    ratios: dict[str, float] = {}
    for comparison in COMPARISONS:
        medians = {one.contender.name: one.median for one in found[comparison.name]}
        ratios |= {goal.name: medians[goal.over] / medians[goal.under] for goal in comparison.goals}
    console.print("[bold]The whole loop, from ingest to served")
    loop = seconds_of_stages(RESULTS / "loop")
    goals = {goal.name: goal.met(ratios[goal.name]) for c in COMPARISONS for goal in c.goals}
    facts |= {
        "ratios": ratios,
        "goals": {name: met for name, met in goals.items() if met is not None},
        "figures": {
            comparison.name: {
                "title": comparison.title,
                "contenders": {one.contender.name: one.to_json() for one in found[comparison.name]},
            }
            for comparison in COMPARISONS
        },
        "loop": loop,
        "import_time": "not counted, of any contender",
    }
    (RESULTS / "data.json").write_text(json.dumps(facts, indent=2))
    draw_bars({c.title: found[c.name] for c in COMPARISONS}, loop, RESULTS / "data.png")
    console.print(show(found, ratios, loop))
    console.print(f"written: {RESULTS / 'data.json'}, {RESULTS / 'data.png'}")


if __name__ == "__main__":
    main()
