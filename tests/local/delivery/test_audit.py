"""The audit: every planted difference is found and named, and nothing is found where all agrees."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from tests.local.serving.conftest import Server

from seatrial.delivery.audit import audit
from seatrial.promotion.approvals import sign_roll_back
from seatrial.promotion.environment import open_environment
from seatrial.promotion.pointer import begin_stage, move, pointer_log, read_pointer
from support.harbour import MODEL, Harbour


def record_files(harbour: Harbour) -> list[Path]:
    """Return the files of production's record."""
    return sorted((harbour.root / ".seatrial-production/environments/production" / MODEL).glob("*.json"))


def findings(**options: object) -> list[tuple[str, str]]:
    """Audit production and return what was found, and the words for it."""
    return [(found.what, found.message) for found in audit("production", **options).findings]  # type: ignore[arg-type]


def test_where_all_agrees_nothing_is_found(served: Harbour) -> None:
    """Record, bundles, approvals and git are looked at, and said to have been."""
    done = audit("production")

    assert done.findings == []
    assert done.looked_at == [f"{MODEL}: {what}" for what in ("record", "bundles", "approvals", "git")]


@pytest.mark.parametrize("number", range(6))
def test_a_changed_record_is_found(served: Harbour, number: int) -> None:
    """Whichever entry is altered: the next one's chain does not fit, or git's change is not that move."""
    path = record_files(served)[number]
    said = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps({**said, "by": "mallory", "digest": "0" * 64}))

    assert findings()


@pytest.mark.parametrize("number", range(6))
def test_a_deleted_record_is_found(served: Harbour, number: int) -> None:
    """Whichever entry is taken out, the last one included: git says that there was more."""
    record_files(served)[number].unlink()

    assert findings()


def test_records_that_changed_places_are_found(served: Harbour) -> None:
    """The order of entries is part of what each says."""
    files = record_files(served)
    one, two = files[0].read_bytes(), files[3].read_bytes()
    files[0].write_bytes(two)
    files[3].write_bytes(one)

    found = [message for what, message in findings() if what == "record"]
    assert found[0].startswith(f"Record 1 of environments/production/{MODEL} does not begin its log")
    assert found[1].startswith(f"Record 2 of environments/production/{MODEL} does not follow record 1")


def _forged_move(harbour: Harbour) -> str:
    log = pointer_log(harbour.workspace("production"), "production", MODEL)
    content = {
        "kind": "promotion",
        "digest": harbour.digests[0],
        "by": "mallory",
        "at": "2026-01-01T00:00:00+00:00",
    }
    log.append(content, after=len(log.all()))
    return "approval"


def _forged_roll_back(harbour: Harbour) -> str:
    log = pointer_log(harbour.workspace("production"), "production", MODEL)
    content = {"kind": "roll-back", "digest": "f" * 64, "by": "mallory", "at": "2026-01-01T00:00:00+00:00"}
    log.append(content, after=len(log.all()))
    return "record"


def _rolled_back(harbour: Harbour, **said: object) -> None:
    workspace = harbour.workspace("production")
    expected = read_pointer(workspace, "production", MODEL)
    content = {"kind": "roll-back", "digest": harbour.digests[0], "reason": "test", **said}
    move(workspace, "production", MODEL, content, expected=expected)


def _signed(harbour: Harbour, follows: int) -> dict[str, object]:
    opened = open_environment("production")
    signer = harbour.key("alice")
    return sign_roll_back(opened, MODEL, harbour.digests[0], signer=signer, follows=follows, reason="test")


def _unsigned_roll_back(harbour: Harbour) -> str:
    _rolled_back(harbour)
    return "approval"


def _roll_back_signed_for_another_move(harbour: Harbour) -> str:
    _rolled_back(harbour, **_signed(harbour, 3))
    return "approval"


def _roll_back_for_another_reason(harbour: Harbour) -> str:
    _rolled_back(harbour, **{**_signed(harbour, 6), "reason": "another"})
    return "approval"


def _roll_back_by_a_guard_that_there_was_not(harbour: Harbour) -> str:
    _rolled_back(harbour, guards=[])
    return "record"


def _forged_stage(harbour: Harbour) -> str:
    log = pointer_log(harbour.workspace("production"), "production", MODEL)
    content = {
        "kind": "stage",
        "digest": harbour.digests[0],
        "previous": harbour.digests[0],
        "follows": 3,
        "weight": 99,
    }
    log.append({**content, "by": "mallory", "at": "2026-01-01T00:00:00+00:00"}, after=len(log.all()))
    return "record"


def _stage_without_approval(harbour: Harbour) -> str:
    workspace = harbour.workspace("production")
    expected = read_pointer(workspace, "production", MODEL)
    content = {"digest": harbour.digests[0]}
    begin_stage(workspace, "production", MODEL, content, weight=10, expected=expected)
    return "approval"


def _changed_bundle(harbour: Harbour) -> str:
    path = harbour.root / f".seatrial-production/bundles/sha256/{harbour.digests[0]}/model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    return "bundle"


def _deleted_bundle(harbour: Harbour) -> str:
    shutil.rmtree(harbour.root / f".seatrial-production/bundles/sha256/{harbour.digests[0]}")
    return "bundle"


def _edited_git(harbour: Harbour) -> str:
    path = harbour.root / f"manifests/environments/production/{MODEL}/bundle.yaml"
    path.write_text(path.read_text().replace(harbour.digests[1], harbour.digests[0]))
    return "git"


def _half_edited_git(harbour: Harbour) -> str:
    path = harbour.root / f"manifests/environments/production/{MODEL}/bundle.yaml"
    path.write_text(path.read_text().replace(f"value: {harbour.digests[1]}", f"value: {harbour.digests[0]}"))
    return "git"


def _approver_gone(harbour: Harbour) -> str:
    (harbour.root / "manifests/environments/production/approvers/alice.pem").unlink()
    return "approval"


PLANTED = [
    _forged_move,
    _forged_roll_back,
    _unsigned_roll_back,
    _roll_back_signed_for_another_move,
    _roll_back_for_another_reason,
    _roll_back_by_a_guard_that_there_was_not,
    _forged_stage,
    _stage_without_approval,
    _changed_bundle,
    _deleted_bundle,
    _edited_git,
    _half_edited_git,
    _approver_gone,
]


def test_a_signed_roll_back_is_in_order(served: Harbour) -> None:
    """What the forged ones are changed from leaves git alone to be told."""
    _rolled_back(served, **_signed(served, 6))

    assert {what for what, _ in findings()} == {"git"}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_difference_is_found_and_named(served: Harbour, plant: Callable[[Harbour], str]) -> None:
    """What was planted is among the findings, under its own name."""
    assert plant(served) in [what for what, _ in findings()]


def test_a_server_that_serves_something_else_is_found(served: Harbour) -> None:
    """What a server says that it answers with is compared with the record, by its address."""
    root = served.root / ".seatrial-production"
    trust = str(served.root / "manifests/environments/production/trusted")
    first, second = served.digests
    arguments = ["--bundle", first, "--log-folder", str(served.root / "log")]
    with Server(root, arguments, {"SEATRIAL_TRUST": trust}) as old:
        assert findings(servers=(old.address,)) == [
            (
                "served",
                f"{old.address} serves bundle {first[:12]} of {MODEL}; by the record it is {second[:12]}.",
            )
        ]
    ((what, message),) = findings(servers=(old.address,))
    assert what == "served"
    assert "does not say which bundle" in message


def test_a_server_that_follows_the_environment_serves_what_is_recorded(served: Harbour) -> None:
    """A server of the environment's pointer is in step, and nothing is found."""
    root = served.root / ".seatrial-production"
    trust = str(served.root / "manifests/environments/production/trusted")
    with Server(root, ["--env", "production"], {"SEATRIAL_TRUST": trust}, model=MODEL) as server:
        assert findings(servers=(server.address,)) == []
