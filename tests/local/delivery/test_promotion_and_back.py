"""From test to staging to production with a person's word, and back."""

from __future__ import annotations

import pytest

from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import roll_back
from seatrial.errors import ApprovalError, PointerMovedError, UsageError
from seatrial.promotion.pointer import pointer_log
from support.harbour import MODEL, Harbour


def test_the_whole_way_and_back(harbour: Harbour) -> None:
    """A bundle goes from test to production by digest, with an approval, and one command takes it back."""
    first, second = harbour.digests
    harbour.train(first)
    assert [one.state for one in harbour.deliver("staging")] == ["moved"]
    assert [one.state for one in harbour.deliver("production", "alice")] == ["moved"]
    harbour.train(second)
    harbour.deliver("staging")
    harbour.deliver("production", "bob")
    assert harbour.served("staging") == harbour.served("production") == second

    back = roll_back(MODEL, "production", reason="too many false alarms", signer=harbour.key("alice"))

    assert (back.digest, back.previous) == (first, second)
    assert harbour.served("production") == first
    assert harbour.served("staging") == second
    records = [
        record.content for record in pointer_log(harbour.workspace("production"), "production", MODEL).all()
    ]
    kinds = ["gates", "approval", "promotion"]
    assert [said["kind"] for said in records] == [*kinds, *kinds, "roll-back"]
    assert [said["by"] for said in records if said["kind"] == "approval"] == ["alice", "bob"]
    assert records[5]["approvals"] == [5]
    assert records[5]["gates"] == 4
    assert [f.what for f in audit("production").findings] == ["git"]  # Not merged yet.
    assert back.branch is not None
    harbour.merge(back.branch.name)
    assert [one.state for one in reconcile("production")] == ["in step"]
    assert audit("production").findings == audit("staging").findings == []


def test_production_wants_a_person(harbour: Harbour) -> None:
    """What git says alone does not serve it: without an approval the pointer stays where it is."""
    harbour.train(harbour.digests[0])
    harbour.deliver("staging")

    with pytest.raises(ApprovalError, match=r"wants 1 approval of bundle .* It has 0 \(by nobody\)"):
        harbour.deliver("production")
    assert harbour.served("production") is None


def test_a_proposal_leaves_the_working_tree_alone(harbour: Harbour) -> None:
    """The change is on a branch, the same again is no new commit, and what is checked out stays."""
    harbour.train(harbour.digests[0])
    before = harbour.git("rev-parse", "HEAD")

    one = harbour.propose("staging")
    two = harbour.propose("staging")

    assert one.branch is not None
    assert two.branch is not None
    assert (one.branch.commit, one.branch.new, two.branch.new) == (two.branch.commit, True, False)
    assert harbour.git("status", "--porcelain") == ""
    assert harbour.git("rev-parse", "HEAD") == before
    changed = harbour.git("diff", "--name-only", f"HEAD..{one.branch.name}").splitlines()
    assert [path.removeprefix("manifests/environments/") for path in changed] == [
        "staging/ferry/bundle.yaml",
        "staging/kustomization.yaml",
    ]


def test_a_dry_run_writes_nothing(harbour: Harbour) -> None:
    """It shows what would change, and neither store, record nor git knows of it."""
    harbour.train(harbour.digests[0])
    before = sorted(harbour.workspace("staging").list("bundles")), harbour.git("branch")

    shown = harbour.propose("staging", dry_run=True)

    assert shown.branch is None
    assert (sorted(harbour.workspace("staging").list("bundles")), harbour.git("branch")) == before
    assert pointer_log(harbour.workspace("staging"), "staging", MODEL).all() == []
    assert shown.text.startswith(f"# ferry in staging: nothing → `{harbour.digests[0][:12]}`")


def test_a_change_that_somebody_overtook_is_refused(harbour: Harbour) -> None:
    """Of two changes that follow the same move one is made; the other must be prepared anew (threats: P5)."""
    first, second = harbour.digests
    harbour.train(first)
    overtaken = harbour.propose("staging")
    harbour.train(second)
    harbour.deliver("staging")
    assert overtaken.branch is not None
    harbour.git("checkout", "--quiet", overtaken.branch.name)

    with pytest.raises(
        PointerMovedError, match=f"staging has moved on to {second[:12]} .* still says {first[:12]}"
    ):
        reconcile("staging")
    assert harbour.served("staging") == second


def test_after_a_roll_back_nothing_goes_forward_by_itself(harbour: Harbour) -> None:
    """Git still says the newer bundle; until it is told, reconcile refuses, and a new proposal is needed."""
    for digest in harbour.digests:
        harbour.train(digest)
        harbour.deliver("staging")
    roll_back(MODEL, "staging", reason="test")

    with pytest.raises(PointerMovedError, match=r"roll-back 5 by"):
        reconcile("staging")
    assert harbour.served("staging") == harbour.digests[0]
    # The same bundle may come again: as a move of its own, after the roll-back.
    assert [one.state for one in harbour.deliver("staging")] == ["moved"]
    assert harbour.served("staging") == harbour.digests[1]


def test_there_must_be_something_to_return_to(harbour: Harbour) -> None:
    """The first bundle has none before it, and a bundle that was never served is none to return to."""
    harbour.train(harbour.digests[0])
    harbour.deliver("staging")

    with pytest.raises(UsageError, match="has not served another bundle of ferry before"):
        roll_back(MODEL, "staging", reason="test")
