"""What the server counts, for Prometheus at ``GET /metrics``.

Counting is a few dictionary operations a request; the text is made when somebody asks for it. Labels
are names of ours only, never anything that a client sent, so the number of series is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from seatrial.server.answers import Answer

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SHARES = tuple(tenth / 10 for tenth in range(1, 11))
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


WATCHED = {
    "connections": "Open connections.",
    "refused_connections_total": "Connections beyond the limit.",
    "waiting_requests": "Predictions asked for and not answered yet.",
    "shed_total": "Predictions refused because too many waited.",
    "learned_rows": "Outcomes that no table has yet.",
    "log_waiting_records": "Records that wait for the disk.",
    "log_bytes": "Bytes of records that no table has yet.",
    "log_segments": "Finished segments not shipped yet.",
    "log_unsynced_total": "Records confirmed and then not synced.",
    "log_unrecorded_rows_total": "Rows answered and not recorded, as the contract wants it when the log is full.",
    "candidate_weight": "Requests of a hundred that a roll-out's candidate answers; 0 where none does.",
    "candidate_compared_rows_total": "Rows that a candidate answered beside the bundle that serves.",
    "candidate_answered_rows_total": "Rows that a candidate answered in its place.",
    "candidate_failed_rows_total": "Rows that a candidate failed; the bundle that serves answered them.",
    "candidate_dropped_rows_total": "Rows that were not compared: too many waited, or the log was full.",
    "feedback_unshipped_seconds": "Age of the oldest finished segment not shipped yet.",
}
"""Figures that other parts of the server keep, by their names without ``seatrial_``; a total only grows.

The rules and the dashboard of charts/platform read these names, and those of :meth:`Metrics.collect`."""


class Histogram:
    """Counts values by their size.

    Args:
        bounds: The buckets' upper bounds, inclusive and ascending.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return the running totals by bound, as Prometheus has them, and the sum of all values."""
        total, found = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found, self._sum


class Metrics:
    """All figures of one server."""

    def __init__(self) -> None:
        self.probability = Histogram(SHARES)
        self.batch_rows = Histogram(ROWS)
        self.outcomes: Counter[str] = Counter()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._watched: dict[str, Callable[[], float]] = {}
        self._info: Callable[[], dict[str, str]] = dict
        self._registry = CollectorRegistry()
        self._registry.register(self)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def observe(self, endpoint: str, seconds: float) -> None:
        """Count a request that was answered with 200, and how long that took."""
        self._requests[endpoint, 200] += 1
        found = self._seconds.get(endpoint)
        if found is None:
            found = self._seconds[endpoint] = Histogram(SECONDS)
        found.observe(seconds)

    def count(self, endpoint: str, status: int) -> None:
        """Count a request that was answered otherwise."""
        self._requests[endpoint, status] += 1

    def watch(self, name: str, read: Callable[[], float]) -> None:
        """Show a figure that somebody else keeps.

        Args:
            name: Its name in ``WATCHED``.
            read: Returns it.
        """
        assert name in WATCHED, name
        self._watched[name] = read

    def identify(self, info: Callable[[], dict[str, str]]) -> None:
        """Show what is served, as labels of ``seatrial_model_info``."""
        self._info = info

    def render(self) -> Answer:
        """Return all figures in Prometheus' text format."""
        return Answer(generate_latest(self._registry), content_type=CONTENT_TYPE_PLAIN_0_0_4.encode())

    def collect(self) -> Iterable[Metric]:
        """Yield all figures; called by the registry."""
        requests = CounterMetricFamily(
            "seatrial_requests", "Requests answered.", labels=["endpoint", "status"]
        )
        for (endpoint, status), count in list(self._requests.items()):
            requests.add_metric([endpoint, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily(
            "seatrial_request_seconds",
            "From a whole request to its answer, for those answered with 200.",
            labels=["endpoint"],
        )
        for endpoint, histogram in list(self._seconds.items()):
            seconds.add_metric([endpoint], *histogram.buckets())
        yield seconds
        yield _histogram("seatrial_probability", "Probabilities answered.", self.probability)
        yield _histogram("seatrial_batch_rows", "Rows that were computed together.", self.batch_rows)
        outcomes = CounterMetricFamily("seatrial_outcomes", "Outcomes taken in.", labels=["status"])
        for status_name, count in list(self.outcomes.items()):
            outcomes.add_metric([status_name], count)
        yield outcomes
        for name, read in self._watched.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(f"seatrial_{name}", WATCHED[name], value=read())
        yield InfoMetricFamily("seatrial_model", "What is served.", value=self._info())


def _histogram(name: str, text: str, histogram: Histogram) -> Any:
    buckets, total = histogram.buckets()
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
