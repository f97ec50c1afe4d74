"""The commands of promotion: what they print, what they exit with, and JSON for scripts."""

from __future__ import annotations

import pytest
from tests.local.delivery.conftest import Cli, json

from seatrial.promotion.pointer import read_pointer
from support.harbour import MODEL, Harbour
from support.killed_delivery import ROWS, record_comparisons


def test_the_way_by_commands(harbour: Harbour, cli: Cli) -> None:
    """A person at a terminal brings a bundle into production, takes another one back, and sees what was done."""
    for person, digest in zip(("alice", "bob"), harbour.digests, strict=True):
        harbour.train(digest)
        for to in ("staging", "production"):
            promoted = json(cli("promote", MODEL, "--to", to, "--json"))
            harbour.merge(promoted["branch"]["name"])
            if to == "production":
                assert cli("reconcile", to)[0] == 22
                assert cli("approve", MODEL, "--env", to, "--key", harbour.root / f"{person}.key")[0] == 0
            (done,) = json(cli("reconcile", to, "--json"))
            assert (done["model"], done["state"], done["digest"]) == (MODEL, "moved", digest)
    assert cli("audit")[0] == 0

    assert cli("rollback", MODEL, "--env", "production")[0] == 22
    key = ("--key", harbour.root / "alice.key")
    back = json(cli("rollback", MODEL, "--env", "production", "--reason", "too many alarms", "--json", *key))

    assert back["digest"] == harbour.digests[0]
    history = json(cli("history", MODEL, "--env", "production", "--json"))
    kinds = ["gates", "approval", "promotion"]
    assert [said["kind"] for said in history] == [*kinds, *kinds, "roll-back"]
    assert history[-1]["reason"] == "too many alarms"
    code, out, err = cli("audit", "production")
    assert code == 23
    assert "production, ferry, git: production has moved on to" in out
    assert "1 place is not as it must be" in err
    harbour.merge(back["branch"]["name"])
    assert cli("audit", "production", "--json")[0] == 0
    listed = {said["environment"]: said for said in json(cli("environments", "list", "--json"))}
    assert listed["production"]["serves"] == listed["production"]["git"] == harbour.digests[0]
    assert listed["staging"]["serves"] == harbour.digests[1]


def test_a_terminal_shows_the_difference(harbour: Harbour, cli: Cli) -> None:
    """Words for a person, a file for a pull request, and what to do next."""
    harbour.train(harbour.digests[0])

    code, out, _ = cli("promote", MODEL, "--to", "staging", "--dry-run")
    assert code == 0
    assert "Only looked: nothing was written." in out

    text = harbour.root / "pull-request.md"
    code, out, _ = cli("promote", MODEL, "--to", "staging", "--text", text)
    assert code == 0
    assert f"promote/staging/{MODEL}/{harbour.digests[0][:12]}" in out
    assert "seatrial reconcile staging" in out
    written = text.read_text()
    assert written.startswith(f"# {MODEL} in staging: nothing → `{harbour.digests[0][:12]}`")
    assert "| pass | serves |" in written
    assert f"names bundle `{harbour.digests[0]}`" in written

    assert "serves pass" in cli("history", MODEL)[1]
    harbour.merge(f"promote/staging/{MODEL}/{harbour.digests[0][:12]}")
    assert "moved" in cli("reconcile", "staging")[1]
    assert "staging serves it already." in cli("promote", MODEL, "--to", "staging")[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("promote", MODEL, "--to", "stagin"), 2, "There is no environment 'stagin'"),
        (("promote", MODEL, "--to", "production"), 10, "staging serves no bundle of 'ferry'"),
        (("promote", MODEL, "--to", "staging", "--bundle", "abcdef"), 10, "No bundle in"),
        (("rollback", MODEL, "--env", "staging"), 2, "has not served another bundle"),
        (("approve", MODEL, "--env", "production"), 2, "--key is needed"),
        (("approve", MODEL, "--env", "production", "--key", "alice.key"), 22, "was judged for production"),
        (("approve", "training-1"), 2, "asks nothing"),
        (("audit", "staging", "--server", "localhost:8080"), 2, "must begin with http"),
        (("environments", "approver", "production", "Alice!", "--key", "x.key"), 2, "must be like alice"),
        (
            ("environments", "approver", "production", "carol", "--key", "alice.key"),
            2,
            "that of alice already",
        ),
        (("environments", "approver", "production", "alice", "--key", "bob.key"), 2, "that of bob already"),
        (("environments", "approver", "production", "alice", "--key", "new.key"), 2, "has another key"),
        (("environments", "trust", "staging", "nobody.pem"), 2, "There is no file"),
    ],
)
def test_what_is_wrong_is_said(
    harbour: Harbour, cli: Cli, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """Each mistake has its exit code and says what was wrong."""
    found, _, err = cli(*arguments)

    assert (found, message in err) == (code, True), err


def test_a_roll_out_at_the_terminal(harbour: Harbour, cli: Cli) -> None:
    """It is begun, looked at, and led to its end; one that a guard takes back is an error with the reason."""
    first, second = harbour.digests
    workspace = harbour.workspace("staging")
    harbour.train(first)
    harbour.deliver("staging")
    assert cli("rollout", MODEL, "--env", "staging") == (0, "Nothing is rolled out in staging.\n", "")
    harbour.rules("staging", f"rollout: {{steps: [0, 50], minimum_rows: {ROWS}, minimum_time: 1s}}\n")
    harbour.train(second)
    proposal = harbour.propose("staging")
    assert "step by step (shadow, 50%, then all requests)" in proposal.text
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)

    code, out, _ = cli("reconcile", "staging")
    assert code == 0
    assert f"staging tries {second[:12]} of {MODEL} (shadow)" in out
    said = json(cli("rollout", MODEL, "--env", "staging", "--json"))
    assert (said["serving"], said["candidate"], said["weight"], said["state"]) == (
        first,
        second,
        0,
        "rolling out",
    )
    code, out, _ = cli("rollout", MODEL, "--env", "staging")
    assert code == 0
    assert f"waits: 0 of {ROWS} rows" in out

    stage = read_pointer(workspace, "staging", MODEL).stage
    assert stage is not None
    record_comparisons(workspace, stage, failed=True)
    code, out, err = cli("reconcile", "staging", "--wait", "--every", "0.1")
    assert code == 9
    assert f"{second[:12]} was rolled back: error_share is 1.0" in err
    assert harbour.served("staging") == first
    code, out, _ = cli("history", MODEL, "--env", "staging")
    assert code == 0
    assert "shadow" in out
    assert cli("reconcile", "staging")[0] == 14  # Git does not say so yet.
