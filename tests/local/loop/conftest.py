"""The flights model with small budgets.

Everything else is real: two months of real flights, the pipelines under kfp.local with a process for each
step, the server, the replay over HTTP.
"""

from __future__ import annotations

import pytest

from seatrial.contract import LoadedContract
from support.loop import small_flights


@pytest.fixture(scope="package")
def flights(tmp_path_factory: pytest.TempPathFactory) -> LoadedContract:
    """A copy of the flights model with small budgets."""
    return small_flights(tmp_path_factory.mktemp("models"))
