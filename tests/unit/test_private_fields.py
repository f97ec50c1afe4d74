"""Private fields: what stands for them, the key of their hashes, and what the contract's check refuses."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seatrial.contract import load_contract
from seatrial.errors import ContractError, StoreError
from seatrial.feedback.concealing import KEY_BYTES, KEY_VARIABLE, PREFIX, Concealer, open_concealer
from seatrial.model_check import check_model
from seatrial.workspace import Workspace
from support.small_model import CONTRACT, FEATURES, write_model

NAMES = ("who", "what", "when")
ROW = ("Ada", 3, datetime(2024, 1, 1, tzinfo=UTC))


def test_each_field_gets_its_treatment() -> None:
    """A hashed value gets a text of fixed form, a dropped one none; the rest and what is missing stay."""
    concealer = Concealer({"who": "hash", "what": "drop"}, b"k" * KEY_BYTES)
    who, what, when = concealer.conceal(NAMES, ROW)
    assert who.startswith(PREFIX)
    assert len(who) == len(PREFIX) + 32
    assert (what, when) == (None, ROW[2])
    assert concealer.conceal(NAMES, (None, None, None)) == (None, None, None)


def test_a_hash_joins_one_field_under_one_key() -> None:
    """Equal values of a field hash alike; another value, another field or another key gives another hash."""
    concealer, other = Concealer({}, b"k" * KEY_BYTES), Concealer({}, b"l" * KEY_BYTES)
    one = concealer.hash("who", "Ada")
    assert one == concealer.hash("who", "Ada")
    found = {one, concealer.hash("who", "Bob"), concealer.hash("whom", "Ada"), other.hash("who", "Ada")}
    found |= {concealer.hash("who", 1), concealer.hash("who", "1"), concealer.hash("who", ROW[2])}
    assert len(found) == 7


@pytest.fixture
def private_model(tmp_path: Path) -> Path:
    """A model whose key is hashed; no history is over its own table."""
    start, end = FEATURES.index("        History("), FEATURES.index("    ),\n    expressions")
    features = FEATURES[:start] + FEATURES[end:]
    contract = CONTRACT.replace("visit: {type: string,", "visit: {private: hash, type: string,")
    return write_model(tmp_path, contract=contract, features=features, rows=1)


def test_the_key_is_made_once_and_for_its_owner_alone(
    private_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local workspace makes its key on first use, mode 0600; a file that is named takes its place."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    contract, workspace = load_contract(str(private_model)).contract, Workspace.open(tmp_path / "workspace")
    first, second = open_concealer(workspace, contract), open_concealer(workspace, contract)
    assert first is not None
    assert second is not None
    assert first.hash("visit", "a") == second.hash("visit", "a")
    key = tmp_path / "workspace" / "keys" / "privacy-key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert len(key.read_bytes()) == KEY_BYTES

    named = tmp_path / "named"
    named.write_bytes(bytes(KEY_BYTES))
    named.chmod(0o600)
    monkeypatch.setenv(KEY_VARIABLE, str(named))
    third = open_concealer(workspace, contract)
    assert third is not None
    assert third.hash("visit", "a") == Concealer({}, bytes(KEY_BYTES)).hash("visit", "a")


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (bytes(31), 0o600, "has 31 bytes"),
        (bytes(32), 0o644, "can be read by others"),
        (None, 0, "cannot be read"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(
    private_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    mode: int,
    message: str,
) -> None:
    """A key that is too short, open to others or missing stops the server before anything is recorded."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    monkeypatch.setenv(KEY_VARIABLE, str(path))
    with pytest.raises(StoreError, match=message):
        open_concealer(Workspace.open(tmp_path / "workspace"), load_contract(str(private_model)).contract)


def test_a_workspace_that_is_no_folder_needs_a_named_key(
    private_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On S3 there is no place for a key beside what it guards, so one must be named."""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(StoreError, match="no privacy key") as caught:
        open_concealer(Workspace("s3://bucket/a"), load_contract(str(private_model)).contract)
    assert KEY_VARIABLE in caught.value.remedy


def test_a_model_without_private_fields_needs_no_key(tmp_path: Path) -> None:
    """Nothing is concealed, and no key is made."""
    contract = load_contract(str(write_model(tmp_path, rows=1))).contract
    assert open_concealer(Workspace.open(tmp_path / "workspace"), contract) is None
    assert not (tmp_path / "workspace" / "keys").exists()


def test_a_private_key_column_is_allowed_where_nothing_learns_by_it(private_model: Path) -> None:
    """A hashed key checks where no history is over the predicted rows."""
    assert check_model(str(private_model)).contract.name == "visits"


REFUSED = {
    "a private feature": (
        "amount: {type: number,",
        "amount: {private: drop, type: number,",
        "the feature 'amount' is made of it, and is recorded",
    ),
    "a private instant": (
        " at: {type: time, required: true}",
        " at: {private: drop, type: time, required: true}",
        "known_at is made of it, and is recorded",
    ),
    "a private key with a history over it": (
        "visit: {type: string,",
        "visit: {private: hash, type: string,",
        "the history 'back' learns the outcomes of recorded rows by it",
    ),
    "a private key of a history": (
        'shop: {type: string, required: true, pattern: "^[A-Z]{2}$"}',
        'shop: {private: hash, type: string, required: true, pattern: "^[A-Z]{2}$"}',
        "the history 'back' learns the outcomes of recorded rows by it",
    ),
    "a column that no request brings": (
        "returned: {type: boolean}",
        "returned: {private: drop, type: boolean}",
        "is for columns that a request brings",
    ),
    "a column of another table": (
        "price: {type: number}",
        "price: {private: drop, type: number}",
        "is for columns that a request brings",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_recorded_all_the_same_is_refused(tmp_path: Path, case: str) -> None:
    """A column cannot be private where its value reaches the log by another way, or is needed from there."""
    right, wrong, message = REFUSED[case]
    assert right in CONTRACT
    path = write_model(tmp_path, contract=CONTRACT.replace(right, wrong), rows=1)
    with pytest.raises(ContractError) as caught:
        check_model(str(path))
    assert message in caught.value.message
    assert ".private" in caught.value.message
