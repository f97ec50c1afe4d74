"""Digests of batches are those of their content, whether they were known before or not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from seatrial.sources.known_digests import KnownDigests
from seatrial.tables import digest_of
from seatrial.workspace import Workspace


def read() -> pl.DataFrame:
    """Rows, as if they were read from a source."""
    return pl.DataFrame(
        {
            "key": ["a", "b", None],
            "at": [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
            "value": [1.0, None, float("nan")],
            "_problems": [["value: is not a number"], [], None],
        }
    )


ROWS = read()
CHANGED = {
    "a value": ROWS.with_columns(value=pl.Series([1.0, 2.0, float("nan")])),
    "a missing one": ROWS.with_columns(key=pl.Series(["a", "b", ""])),
    "a reason": ROWS.with_columns(_problems=pl.Series([["value: is no number"], [], None])),
    "a row less": ROWS.head(2),
    "the order": ROWS.reverse(),
    "a type": ROWS.with_columns(pl.col("value").cast(pl.Float32)),
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace in which the digest of one batch is known."""
    workspace = Workspace.open(tmp_path)
    known = KnownDigests(workspace, "model")
    known.of("table", "2024-01", ROWS)
    known.keep()
    return workspace


def test_a_digest_that_is_known_is_not_made_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows, read again, have the digest that was written down."""

    def refuse(_: pl.DataFrame) -> str:
        raise AssertionError

    monkeypatch.setattr("seatrial.sources.known_digests.digest_of", refuse)

    assert KnownDigests(workspace, "model").of("table", "2024-01", read()) == digest_of(ROWS)


@pytest.mark.parametrize("rows", CHANGED.values(), ids=CHANGED.keys())
def test_whatever_has_changed_is_noticed(workspace: Workspace, rows: pl.DataFrame) -> None:
    """Rows with other bytes are digested anew, and so they are the next time."""
    for _ in range(2):
        known = KnownDigests(workspace, "model")
        assert known.of("table", "2024-01", rows) == digest_of(rows)
        known.keep()
    assert KnownDigests(workspace, "model").of("table", "2024-01", ROWS) == digest_of(ROWS)


def test_batches_and_tables_do_not_share_what_is_known(workspace: Workspace) -> None:
    """Another batch, and another table, have digests of their own."""
    known = KnownDigests(workspace, "model")
    other = CHANGED["a value"]

    assert known.of("table", "2024-02", other) == known.of("other", "2024-01", other) == digest_of(other)
    assert known.of("table", "2024-01", ROWS) == digest_of(ROWS)


@pytest.mark.parametrize("content", [b"", b"{", b'{"batches": {"table/2024-01": {"content": 1}}}'])
def test_a_damaged_file_is_made_anew(workspace: Workspace, content: bytes) -> None:
    """What cannot be read counts as not known."""
    workspace.put("digests/model.json", content)
    known = KnownDigests(workspace, "model")

    assert known.of("table", "2024-01", ROWS) == digest_of(ROWS)
    known.keep()
    assert KnownDigests(workspace, "model").of("table", "2024-01", ROWS) == digest_of(ROWS)
