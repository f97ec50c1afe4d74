"""The target's object store goes away in the middle of a promotion: a clear error, and the same commands finish it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import obstore
import pytest

from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.errors import StoreError
from seatrial.promotion.pointer import pointer_log
from seatrial.workspace import Workspace
from support.harbour import MODEL, Harbour
from support.stoppable_store import StoppableStore

pytestmark = pytest.mark.long

ADDRESS = "s3://seatrial/staging"


@pytest.fixture
def away(harbour: Harbour, store: StoppableStore, monkeypatch: pytest.MonkeyPatch) -> Harbour:
    """A harbour whose staging is in that store and has its data."""
    monkeypatch.setenv("SEATRIAL_WORKSPACE_STAGING", ADDRESS)
    store.upload(harbour.root / ".seatrial-staging", "staging")
    harbour.train(harbour.digests[0])
    return harbour


def stopping(store: StoppableStore, number: int, put: Callable[..., Any]) -> Callable[..., Any]:
    """Let the store be away from the write of that number on."""
    seen: list[object] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments)
        if len(seen) == number:
            store.kill()
        return put(*arguments, **options)

    return counted


@pytest.mark.parametrize("number", [2, 10])
def test_a_promotion_goes_on_when_the_store_is_back(
    away: Harbour, store: StoppableStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Away in the middle of the copy, or at the record's entry: nothing is served, proposed or lost (O3)."""
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", stopping(store, number, obstore.put))
        with pytest.raises(
            StoreError, match=r"The store of staging failed while .* Check that the store of staging answers"
        ):
            away.propose("staging")
    assert away.git("branch", "--list", "promote/*") == ""

    store.start()
    assert away.served("staging") is None
    assert audit("staging").findings == []
    (done,) = away.deliver("staging")

    assert done.state == "moved"
    kinds = [r.content["kind"] for r in pointer_log(Workspace.open(ADDRESS), "staging", MODEL).all()]
    assert kinds == ["gates", "promotion"]
    assert audit("staging").findings == []


def test_a_move_goes_on_when_the_store_is_back(
    away: Harbour, store: StoppableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away when the move is recorded: the environment serves what it did, and the same command makes it."""
    proposal = away.propose("staging")
    assert proposal.branch is not None
    away.merge(proposal.branch.name)
    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", stopping(store, 1, obstore.put))
        with pytest.raises(StoreError, match="The store of staging failed while"):
            reconcile("staging")

    store.start()
    assert away.served("staging") is None
    assert [one.state for one in reconcile("staging")] == ["moved"]
    assert audit("staging").findings == []
