"""What the measurements come to: medians, and the ratios that are to be reached."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Self

CONNECTIONS, ROWS = 16, 1
"""Where the ratios are taken."""


@dataclass
class Cell:
    """A server at so many connections, with so many rows a request.

    Attributes:
        contender: The server's key.
        connections: How many.
        rows: Of each request.
        seen: What each round showed.
        at: When the last round ended.
        load_before: The machine's load before the run.
    """

    contender: str
    connections: int
    rows: int
    seen: list[dict[str, float]] = field(default_factory=list)
    at: str = ""
    load_before: float = 0.0

    @property
    def key(self) -> str:
        """Its key among the cells."""
        return f"{self.contender}/{self.connections}/{self.rows}"

    def median(self, figure: str) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(seen[figure] for seen in self.seen)

    def to_json(self) -> dict[str, Any]:
        """What goes into the file of results."""
        return asdict(self) | {"medians": {name: self.median(name) for name in self.seen[0]}}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what :meth:`to_json` made."""
        return cls(**{name: value for name, value in content.items() if name != "medians"})


@dataclass(frozen=True)
class Bound:
    """What a ratio has to be.

    Attributes:
        limit: The bound.
        at_least: Whether it is the smallest that is good enough; else the largest.
    """

    limit: float
    at_least: bool = True

    def met(self, ratio: float) -> bool:
        """Whether a ratio is good enough."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def __str__(self) -> str:
        return f"at {'least' if self.at_least else 'most'} {self.limit:g}"


BOUNDS = {
    "seldon": Bound(20),
    "mlserver": Bound(20),
    "echo": Bound(0.5),
    "log_cost": Bound(0.15, at_least=False),
    "seldon_p99": Bound(0.1, at_least=False),
    "mlserver_p99": Bound(0.1, at_least=False),
}


_PEERS = {
    "seldon": ("seldon", "seldon_threads"),
    "mlserver": ("mlserver",),
    "mlflow": ("mlflow",),
    "bentoml": ("bentoml",),
}


def ratios_of(cells: dict[str, Cell], *, by_processor_time: bool = False) -> dict[str, float]:
    """Return the ratios at 16 connections, single rows, log on; those of which both sides were measured.

    ``seldon`` and ``mlserver``: our throughput in theirs, of two settings of a peer the faster one.
    ``..._p99``: our 99th percentile in theirs. ``echo``: our throughput in the echo's. ``log_cost``: what of the
    throughput the log takes.

    Args:
        cells: What was measured.
        by_processor_time: Take what a server would answer if it had its core for itself, from the processor time of
            a request: that is what is left to compare on a machine that others use, too. No percentiles then.
    """
    found = {
        cell.contender: cell
        for cell in cells.values()
        if (cell.connections, cell.rows) == (CONNECTIONS, ROWS)
    }
    if "ours" not in found:
        return {}

    def throughput(key: str) -> float:
        return (
            1e6 / found[key].median("processor_us") if by_processor_time else found[key].median("throughput")
        )

    ratios: dict[str, float] = {}
    for name, keys in _PEERS.items():
        peers = [key for key in keys if key in found]
        if not peers:
            continue
        ratios[name] = throughput("ours") / max(map(throughput, peers))
        if not by_processor_time:
            ratios[f"{name}_p99"] = found["ours"].median("p99") / min(
                found[key].median("p99") for key in peers
            )
    if "echo" in found:
        ratios["echo"] = throughput("ours") / throughput("echo")
    if "ours_off" in found:
        ratios["log_cost"] = 1 - throughput("ours") / throughput("ours_off")
    return ratios
