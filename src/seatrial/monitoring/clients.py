"""Which failed verdict rests on one client's predictions alone.

Whoever may ask a model may send it odd rows, and with enough of them make any window drift: the
cheapest way to have a model trained again, as often as one likes (threats: T5). So each failed
verdict is judged again on the window without one client, for each client that is large enough to
matter. Where it then does not fail, or too few rows are left to say, it rests on that client, and
the verdict says so. What follows from that is the contract's to say
(:class:`seatrial.contract.schema.Triggers`).

Who asked is the client's own word or its address (docs/reference/server.md), so this holds against
one client under one name.
"""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from seatrial.verdicts import Outcome, Verdict

CLIENT = "client"
ONE_CLIENT = "one_client"
"""Key of a verdict's evidence: the client that it rests on."""

SMALLEST_SHARE = 0.02
"""Share of a window from which a client is looked at, so at most 50 are. A client that is smaller moves a
distribution function by less than 0.02, and the stability index by about 0.1 at most, where it fills a bin
that was empty."""

UNNAMED = "(unnamed)"
"""What predictions without a client, of an older log, are taken for: one client."""

Judge = Callable[[pl.DataFrame], list[Verdict]]
"""Judges rows of the window; the same checks in the same order for any rows."""


def mark_one_client(verdicts: list[Verdict], rows: pl.DataFrame, judge: Judge) -> list[Verdict]:
    """Say of each failed verdict whether it rests on one client.

    Args:
        verdicts: What ``judge`` says of all rows.
        rows: The window's predictions, with their ``client``.
        judge: How rows are judged.

    Returns:
        The verdicts. One that fails, and does not without some client's rows, names the largest such client
        in its message and, as ``one_client``, in its evidence.
    """
    rows = rows.with_columns(pl.col(CLIENT).fill_null(UNNAMED))
    doubted = {place for place, verdict in enumerate(verdicts) if verdict.outcome is Outcome.FAIL}
    marked = list(verdicts)
    for client in _large_clients(rows) if doubted else ():
        without = judge(rows.filter(pl.col(CLIENT) != client))
        for place in sorted(doubted):
            if without[place].outcome is not Outcome.FAIL:
                marked[place] = _resting_on(client, verdicts[place], without[place])
                doubted.remove(place)
        if not doubted:
            break
    return marked


def _large_clients(rows: pl.DataFrame) -> list[str]:
    """Return the clients that are large enough to matter, the largest first."""
    counts = rows.group_by(CLIENT).len().sort(["len", CLIENT], descending=[True, False])
    return counts.filter(pl.col("len") >= SMALLEST_SHARE * rows.height)[CLIENT].to_list()


def _resting_on(client: str, verdict: Verdict, without: Verdict) -> Verdict:
    judged = without.evidence.get("judged", True)
    otherwise = "it would pass" if judged else "too few are left to judge"
    return verdict.model_copy(
        update={
            "message": f"{verdict.message} Without the predictions of client {client} {otherwise}.",
            "evidence": {**verdict.evidence, ONE_CLIENT: client},
        }
    )
