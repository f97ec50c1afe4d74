"""Approvals: a person's word is good for one bundle, in one environment, as one move, and for a while."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from seatrial.bundle.signing import Signer, new_private_key, read_signer
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import roll_back
from seatrial.errors import ApprovalError, PointerMovedError
from seatrial.promotion.approvals import APPROVAL, APPROVAL_TYPE, Approval
from seatrial.promotion.environment import FILE
from seatrial.promotion.pointer import Pointer, append, pointer_log, read_pointer
from support.harbour import MODEL, Harbour


@pytest.fixture
def waiting(harbour: Harbour) -> Harbour:
    """A change of production that is merged and waits for a person."""
    harbour.train(harbour.digests[0])
    harbour.deliver("staging")
    proposal = harbour.propose("production")
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)
    return harbour


def good_approval(harbour: Harbour) -> Approval:
    """Return what a good approval by Alice says."""
    workspace = harbour.workspace("production")
    (gates,) = pointer_log(workspace, "production", MODEL).all()
    moment = datetime.now(UTC)
    return Approval(
        model=MODEL,
        environment="production",
        digest=harbour.digests[0],
        follows=0,
        evidence=gates.sha256,
        by="alice",
        at=moment,
        expires=moment + timedelta(days=1),
    )


def record(harbour: Harbour, envelope: Any, **said: Any) -> None:
    """Write an approval into the record, whoever has signed it."""
    workspace = harbour.workspace("production")
    content = {"kind": APPROVAL, "digest": harbour.digests[0], "by": "alice", "envelope": envelope, **said}
    expected = read_pointer(workspace, "production", MODEL)
    append(workspace, "production", MODEL, content, expected=expected)


def signed(approval: Approval, signer: Signer, payload_type: str = APPROVAL_TYPE) -> Any:
    """Return an approval's envelope."""
    return orjson.loads(signer.sign(approval.model_dump_json().encode(), payload_type))


def test_a_good_approval_written_by_hand_counts(waiting: Harbour) -> None:
    """What the forged ones below are changed from would be accepted."""
    record(waiting, signed(good_approval(waiting), waiting.key("alice")))

    assert [one.state for one in reconcile("production")] == ["moved"]


def _with(**changes: Any) -> Callable[[Harbour], Any]:
    def make(harbour: Harbour) -> Any:
        return signed(good_approval(harbour).model_copy(update=changes), harbour.key("alice"))

    return make


def _stranger(harbour: Harbour) -> Any:
    path = harbour.root / "stranger.key"
    path.touch(0o600)
    path.write_bytes(new_private_key())
    return signed(good_approval(harbour), read_signer(path))


def _changed_afterwards(harbour: Harbour) -> Any:
    envelope = signed(good_approval(harbour), harbour.key("alice"))
    other = signed(good_approval(harbour).model_copy(update={"comment": "x"}), harbour.key("alice"))
    return {**envelope, "payload": other["payload"]}


def _maker_of_bundles(harbour: Harbour) -> Any:
    return signed(good_approval(harbour), read_signer(harbour.root / ".seatrial/keys/signing-key.pem"))


LATER = datetime.now(UTC) + timedelta(days=30)
FORGED: dict[str, tuple[Callable[[Harbour], Any], str]] = {
    "for another bundle": (_with(digest="f" * 64), "is for digest ffffffffffff"),
    "for another environment": (_with(environment="staging"), "is for environment staging"),
    "for another model": (_with(model="flights"), "is for model flights"),
    "for another move": (_with(follows=3), "is for follows 3, not 0"),
    "on other evidence": (_with(evidence="0" * 64), "rests on other evidence"),
    "that has expired": (_with(expires=datetime(2024, 1, 1, tzinfo=UTC)), "was good until 2024"),
    "of the future": (_with(at=LATER, expires=LATER), "is of the future"),
    "in another's name": (_with(by="bob"), "was signed by the key of alice"),
    "by a stranger's key": (_stranger, "has no good signature"),
    "by the key that signs bundles": (_maker_of_bundles, "has no good signature"),
    "changed afterwards": (_changed_afterwards, "has no good signature"),
    "signed as a manifest": (
        lambda h: signed(good_approval(h), h.key("alice"), "application/vnd.seatrial.manifest+json"),
        "is not a DSSE envelope of type",
    ),
    "that says nothing": (lambda h: orjson.loads(h.key("alice").sign(b"{}", APPROVAL_TYPE)), "does not say"),
    "that is none": (lambda _: None, "is not a DSSE envelope"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_approval_is_refused(waiting: Harbour, case: str) -> None:
    """It does not count, the error says why, and nothing is served (threats: P7)."""
    make, message = FORGED[case]
    record(waiting, make(waiting))

    with pytest.raises(ApprovalError, match=message):
        reconcile("production")
    assert waiting.served("production") is None


def test_an_approval_is_not_good_for_a_second_move(waiting: Harbour) -> None:
    """After a roll-back the same bundle wants a new word: the old one was for another move."""
    first, second = waiting.digests
    waiting.approve("production", "alice", first)
    reconcile("production")
    waiting.train(second)
    waiting.deliver("staging")
    waiting.deliver("production", "alice")
    roll_back(MODEL, "production", reason="test", signer=waiting.key("bob"))

    with pytest.raises(ApprovalError, match="is for follows 3, not 7"):
        waiting.deliver("production")
    assert waiting.served("production") == first


def test_two_persons_where_the_environment_says_so(waiting: Harbour) -> None:
    """The word of one person, given twice, is that of one person."""
    rules = waiting.root / "manifests/environments/production" / FILE
    rules.write_text(rules.read_text().replace("approvals: 1", "approvals: 2"))
    waiting.approve("production", "alice", waiting.digests[0])
    waiting.approve("production", "alice", waiting.digests[0])
    with pytest.raises(ApprovalError, match=r"wants 2 approvals .* has 1 \(by alice\)"):
        reconcile("production")

    waiting.approve("production", "bob", waiting.digests[0])

    assert [one.state for one in reconcile("production")] == ["moved"]


def test_who_is_not_listed_may_not_approve(waiting: Harbour) -> None:
    """The key is refused before anything is recorded; staging has no approvers at all."""
    waiting.git("rm", "--quiet", "manifests/environments/production/approvers/bob.pem")

    with pytest.raises(ApprovalError, match="may not approve in production. Who may: alice."):
        waiting.approve("production", "bob", waiting.digests[0])
    with pytest.raises(ApprovalError, match="may not approve in staging. Who may: nobody."):
        waiting.approve("staging", "alice", waiting.digests[0])


def test_judged_anew_means_approved_anew(waiting: Harbour) -> None:
    """A person's word rests on what the person saw: a newer judgement is other evidence."""
    waiting.approve("production", "alice", waiting.digests[0])
    waiting.propose("production")

    with pytest.raises(ApprovalError, match="rests on other evidence than the newest"):
        reconcile("production")


def test_an_approval_of_a_stale_view_is_refused(waiting: Harbour) -> None:
    """Who looked before somebody else moved signs nothing."""
    workspace = waiting.workspace("production")
    waiting.approve("production", "alice", waiting.digests[0])
    reconcile("production")

    with pytest.raises(PointerMovedError):
        append(workspace, "production", MODEL, {"kind": APPROVAL}, expected=Pointer(0, None))


def test_who_rolls_back_signs_it(served: Harbour) -> None:
    """Where approvals are wanted nothing moves without the key of one who may approve; the record says who it was."""
    with pytest.raises(ApprovalError, match="wants to know who rolls ferry back"):
        roll_back(MODEL, "production", reason="test")
    path = served.root / "stranger.key"
    path.touch(0o600)
    path.write_bytes(new_private_key())
    with pytest.raises(ApprovalError, match="may not approve in production. Who may: alice, bob"):
        roll_back(MODEL, "production", reason="test", signer=read_signer(path))
    assert served.served("production") == served.digests[1]

    roll_back(MODEL, "production", reason="test", signer=served.key("bob"))

    last = pointer_log(served.workspace("production"), "production", MODEL).last()
    assert last is not None
    assert (last.content["by"], last.content["digest"]) == ("bob", served.digests[0])
