"""One request to the object store fails in a promotion, each in turn and in each way: the same commands finish it."""

from __future__ import annotations

import pytest

from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.errors import PointerMovedError, StoreError
from seatrial.promotion.pointer import pointer_log
from support.faulty_way import Fault, FaultyWay, faulty_way
from support.harbour import MODEL, Harbour
from support.stoppable_store import StoppableStore

pytestmark = pytest.mark.long

EVERY = 5
"""Of the requests that only read, so many are one that fails."""


def delivered(harbour: Harbour) -> None:
    """Bring what ``test`` serves to staging; where that is done, or a part of it, the rest."""
    proposal = harbour.propose("staging")
    if proposal.branch is not None:
        harbour.merge(proposal.branch.name)
    reconcile("staging")


def delivered_with(
    harbour: Harbour, way: FaultyWay, fault: Fault, number: int, *, writes_only: bool
) -> tuple[bool, str]:
    """Deliver to staging while one request fails; return whether there was such a one, and what was said of it."""
    way.begin(fault, number, writes_only=writes_only)
    said = ""
    try:
        delivered(harbour)
    except (StoreError, PointerMovedError) as error:
        said = f"{type(error).__name__}: {error.message}"
    reached = len(way.seen) >= number
    failed = way.seen[number - 1] if reached else ""
    way.begin(fault, 0, writes_only=False)
    return reached, f"{failed}: {said}"


@pytest.mark.parametrize("writes_only", [True, False], ids=["a write", "a read or a write"])
@pytest.mark.parametrize("fault", ["refused", "broken", "lost", "answer lost"])
def test_a_promotion_survives_each_request_that_fails(
    harbour: Harbour,
    store: StoppableStore,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    writes_only: bool,
) -> None:
    """It ends well, or with an error after which the same commands do; nothing is done twice (O3)."""
    harbour.train(harbour.digests[0])
    base = harbour.git("rev-parse", "HEAD")
    data = harbour.root / ".seatrial-staging"
    with faulty_way(store.settings["AWS_ENDPOINT_URL"]) as way:
        monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
        number = 1
        for trial in range(1000):
            place = f"{trial}-staging"
            store.upload(data, place)
            monkeypatch.setenv("SEATRIAL_WORKSPACE_STAGING", f"s3://seatrial/{place}")
            reached, said = delivered_with(harbour, way, fault, number, writes_only=writes_only)
            print(f"{number}: {said}")
            assert {finding.what for finding in audit("staging").findings} <= {"git"}, said
            delivered(harbour)

            records = [
                r.content["kind"] for r in pointer_log(harbour.workspace("staging"), "staging", MODEL).all()
            ]
            assert records.count("promotion") == 1, said
            assert harbour.served("staging") == harbour.digests[0], said
            assert audit("staging").findings == [], said
            harbour.git("reset", "--quiet", "--hard", base)
            for branch in harbour.git(
                "branch", "--list", "--format=%(refname:short)", "promote/*"
            ).splitlines():
                harbour.git("branch", "--quiet", "--delete", "--force", branch)
            if not reached:
                break
            number += 1 if writes_only else EVERY
    print(f"{number} requests")
    assert number > 10
