"""A short run of the kill soak, and proof that its account finds what it looks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.serving.kill_soak import Soak, faults

pytestmark = pytest.mark.long

GOOD = {
    "kills": 10,
    "lost": 0,
    "twice": 0,
    "unanswered": 3,
    "outcomes_lost": 0,
    "outcomes_twice": 0,
    "damaged_segments": 0,
}


@pytest.mark.timeout(1_800)  # Half a minute where nothing else runs.
def test_ten_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    """Servers that are killed under load, with a store that is killed too: every answered id is stored once (O2)."""
    soak = Soak(tmp_path, seed=10)
    try:
        soak.run(kills=10, requests=4_000, seconds=float("inf"))
        account = soak.account()
    finally:
        soak.close()
    assert faults(account) == []
    # What was reached: with less of it the account would say little.
    assert account["kills"] == 10
    assert account["requests"] > 100
    assert account["settled"] > 10
    assert account["waiting"] > 0


@pytest.mark.parametrize("name", ["lost", "twice", "outcomes_lost", "outcomes_twice", "damaged_segments"])
def test_the_account_names_a_fault(name: str) -> None:
    """Each kind of fault is named; an account without one is good."""
    good: dict[str, Any] = dict(GOOD)
    assert faults(good) == []
    assert faults({**good, name: 1}) == [f"{name} is 1"]
    assert faults({**good, "unanswered": 10_000}) == ["unanswered is 10000"]
