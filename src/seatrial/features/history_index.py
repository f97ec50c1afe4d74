"""All histories of a model, looked up for many rows at once.

A history asks how many values, and what sum of them, its key had until some instants. The running totals of all
keys of all histories lie in one array, sorted by key and time, so the rows that are answered together cost one binary
search over it, done by numpy, however many windows they have. A key is a number here, and an instant its rank among
all instants that the tables have: both fit into one integer, by which the array is sorted.

What was learned since the tables were read is kept apart: a late outcome moves all that is after it, and the tables
hold years of it, what was learned a month perhaps.
"""

from __future__ import annotations

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seatrial.features.batch import running_totals
from seatrial.features.definitions import History

_MICROSECOND = timedelta(microseconds=1)
_LONG_AGO = -(2**62)
"""An instant before all others, for a row that has none."""


@dataclass
class _Learned:
    times: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)

    def add(self, at: int, value: float, times: int) -> None:
        """Count one more value, or one less; a late one is put in its place."""
        if not self.times or at > self.times[-1]:  # Nearly always: outcomes come in the order of their time.
            self.counts.append(self.counts[-1] + times if self.times else times)
            self.sums.append(self.sums[-1] + value if self.times else value)
            self.times.append(at)
            return
        place = bisect_left(self.times, at)
        if self.times[place] != at:
            before = place - 1
            self.times.insert(place, at)
            self.counts.insert(place, self.counts[before] if place else 0)
            self.sums.insert(place, self.sums[before] if place else 0.0)
        self.counts[place:] = [count + times for count in self.counts[place:]]
        self.sums[place:] = [total + value for total in self.sums[place:]]

    def until(self, at: int) -> tuple[int, float]:
        """Return count and sum of all values at or before ``at``."""
        place = bisect_right(self.times, at) - 1
        return (self.counts[place], self.sums[place]) if place >= 0 else (0, 0.0)


class HistoryIndex:
    """The histories of a model.

    Args:
        parts: The histories.
        tables: The table of each, with the columns that it needs.
    """

    def __init__(self, parts: Sequence[History], tables: Sequence[pl.DataFrame]) -> None:
        self._codes: list[dict[str | None, int]] = []
        self._parts = parts
        self.learned: list[dict[str | None, _Learned]] = [{} for _ in parts]
        self._place_questions(parts)
        self._sort_totals([_totals(part, table) for part, table in zip(parts, tables, strict=True)])

    def _place_questions(self, parts: Sequence[History]) -> None:
        """Say what is asked of a row: the beginning of every window, then the end of every history."""
        lengths = [[length // _MICROSECOND for length in part.lengths] for part in parts]
        distinct = [0, *sorted({length for own in lengths for length in own})]
        windows = [(number, length) for number, own in enumerate(lengths) for length in own]
        questions = [*windows, *((number, 0) for number in range(len(parts)))]
        self._lengths = np.array(distinct, dtype=np.int64)[:, None]
        self._windows = len(windows)
        self._histories = np.array([number for number, _ in questions], dtype=np.intp)
        self._length_places = np.array([distinct.index(length) for _, length in questions], dtype=np.intp)
        self._end_places = np.array([number for number, _ in windows], dtype=np.intp)

    def _sort_totals(self, histories: list[pl.DataFrame]) -> None:
        numbered = [frame.with_columns(_history=pl.lit(n, pl.Int32)) for n, frame in enumerate(histories)]
        totals = pl.concat(numbered)
        self._times = totals["_at"].unique().sort().to_numpy()
        ranks = len(self._times) + 1
        # Code 0 is that of a key that no table has. Each code has a first entry without any value.
        keys = totals.select("_history", "_key").unique(maintain_order=True).with_row_index("_code", offset=1)
        for number in range(len(histories)):
            own = keys.filter(pl.col("_history") == number)
            first_stamps = (own["_code"].cast(pl.Int64) * ranks).to_list()
            self._codes.append(dict(zip(own["_key"].to_list(), first_stamps, strict=True)))
        codes = totals.join(keys, on=["_history", "_key"], maintain_order="left")["_code"].cast(pl.Int64)
        filled = codes.to_numpy() * ranks + np.searchsorted(self._times, totals["_at"].to_numpy()) + 1
        empty = np.arange(keys.height + 1, dtype=np.int64) * ranks
        stamps = np.concatenate([empty, filled])
        order = np.argsort(stamps, kind="stable")
        self._stamps = stamps[order]
        # Shifted by one: what a search finds is the place after the entry.
        nothing = [0] * (len(empty) + 1)
        shifted = np.concatenate([[0], order + 1])
        self._counts = np.concatenate([nothing, totals["_n"].to_numpy()])[shifted]
        self._sums = np.concatenate([nothing, totals["_sum"].to_numpy()])[shifted].astype(np.float64)

    def without_learned(self) -> HistoryIndex:
        """Return an index that knows what the tables know, and has learned nothing; both share the tables' totals."""
        other = copy.copy(self)
        other.learned = [{} for _ in self._parts]
        return other

    @property
    def names(self) -> list[str]:
        """The features in the order of :meth:`look_up`: all shares, then all counts."""
        names = [name for part in self._parts for name in part.names]
        return names[::2] + names[1::2]

    def look_up(
        self, keys: Sequence[Sequence[str | None]], instants: Sequence[int | None]
    ) -> list[list[float | None]]:
        """Return what the histories are for rows.

        Args:
            keys: For each history the key of each row; None: the row has none.
            instants: When each row is predicted, in microseconds since 1970; None: the row has no instant.

        Returns:
            For each row the features, in the order of ``names``; a share without a value is None.
        """
        codes = np.array(
            [[own.get(key, 0) for key in row_keys] for own, row_keys in zip(self._codes, keys, strict=True)],
            dtype=np.int64,
        )
        known = np.array([_LONG_AGO if at is None else at for at in instants], dtype=np.int64)
        times = known - self._lengths
        ranks = self._times.searchsorted(times, "right")
        wanted = codes.take(self._histories, 0) + ranks.take(self._length_places, 0)
        places = self._stamps.searchsorted(wanted, "right")
        counts, sums = self._counts.take(places), self._sums.take(places)
        if any(self.learned):
            self._add_learned(keys, times, counts, sums)
        count = counts[self._windows :].take(self._end_places, 0) - counts[: self._windows]
        total = sums[self._windows :].take(self._end_places, 0) - sums[: self._windows]
        missing = count <= 0
        shares: list[list[float | None]] = (total / np.where(missing, 1, count)).T.tolist()
        for window, row in zip(*(found.tolist() for found in missing.nonzero()), strict=True):
            shares[row][window] = None
        return [share + own for share, own in zip(shares, count.T.tolist(), strict=True)]

    def _add_learned(
        self,
        keys: Sequence[Sequence[str | None]],
        times: NDArray[np.int64],
        counts: NDArray[np.int64],
        sums: NDArray[np.float64],
    ) -> None:
        instants: list[list[int]] = times.tolist()
        for question, (history, length) in enumerate(
            zip(self._histories.tolist(), self._length_places.tolist(), strict=True)
        ):
            learned = self.learned[history]
            for row, key in enumerate(keys[history]) if learned else ():
                more = learned.get(key)
                if more is not None:
                    count, total = more.until(instants[length][row])
                    counts[question, row] += count
                    sums[question, row] += total

    def add(self, history: int, key: str, at: int, value: float, times: int) -> None:
        """Count one more value of a key, or one less.

        Args:
            history: Number of the history.
            key: The key.
            at: When the value became known, in microseconds since 1970.
            value: What is added to the sum.
            times: What is added to the count.
        """
        self.learned[history].setdefault(key, _Learned()).add(at, value, times)


def _totals(part: History, table: pl.DataFrame) -> pl.DataFrame:
    return running_totals(part, table).with_columns(pl.col("_at").dt.epoch("us"))
