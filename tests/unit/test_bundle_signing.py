"""Keys: made once, readable by their owner only, and of one kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.bundle import open_signer, open_trust_root
from seatrial.bundle.signing import key_id
from seatrial.errors import StoreError
from seatrial.workspace import Workspace


def pem(key: object, *, password: bytes | None = None) -> bytes:
    """Return a private key in PEM form."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return bytes(key.private_bytes(encoding, form, encryption))  # type: ignore[attr-defined]


def test_a_key_is_made_on_first_use_and_then_kept(workspace: Workspace) -> None:
    """The second signer is the first one, and the trust root knows it."""
    first, second = open_signer(workspace), open_signer(workspace)

    assert key_id(first.private.public_key()) == key_id(second.private.public_key())
    assert list(open_trust_root(workspace).keys) == [key_id(first.private.public_key())]


def test_a_key_is_its_owner_s_alone(workspace: Workspace) -> None:
    """The private key has mode 0600 whatever the umask, and nothing is left beside it."""
    before = os.umask(0)
    try:
        open_signer(workspace)
    finally:
        os.umask(before)

    keys = workspace.folder / "keys"
    assert (keys / "signing-key.pem").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in keys.iterdir()) == ["signing-key.pem", "trusted"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(workspace: Workspace, mode: int) -> None:
    """The message has the command that mends it."""
    open_signer(workspace)
    path = workspace.folder / "keys" / "signing-key.pem"
    path.chmod(mode)

    with pytest.raises(StoreError, match="can be read by others") as caught:
        open_signer(workspace)
    assert caught.value.remedy == f"Run: chmod 600 {path}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(Ed25519PrivateKey.generate(), password=b"x"),
    ],
    ids=["empty", "text", "another kind", "with a password"],
)
def test_what_is_no_signing_key_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """A key from a setting must be Ed25519, in PEM form, without a password."""
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", str(path))

    with pytest.raises(StoreError, match="key.pem"):
        open_signer(workspace)


def test_a_key_from_a_setting_is_not_trusted_by_itself(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may sign and who is trusted are two decisions."""
    path = tmp_path / "key.pem"
    path.write_bytes(pem(Ed25519PrivateKey.generate()))
    path.chmod(0o600)
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", str(path))

    open_signer(workspace)

    assert open_trust_root(workspace).keys == {}


def test_a_key_that_is_not_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that names no file is an error, and no key is made in its place."""
    monkeypatch.setenv("SEATRIAL_SIGNING_KEY", "/nowhere/key.pem")

    with pytest.raises(StoreError, match="/nowhere/key.pem cannot be read"):
        open_signer(workspace)
    assert not (workspace.folder / "keys").exists()


def test_a_bucket_has_no_keys_of_its_own() -> None:
    """Keys do not lie in a store that others can write: both must be named."""
    workspace = Workspace("s3://bucket/prefix")

    with pytest.raises(StoreError, match="no signing key") as caught:
        open_signer(workspace)
    assert "SEATRIAL_SIGNING_KEY" in caught.value.remedy
    with pytest.raises(StoreError, match="no trust root") as caught:
        open_trust_root(workspace)
    assert "SEATRIAL_TRUST" in caught.value.remedy


def test_a_trust_root_holds_public_keys_only(
    tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is none stops the loading: a trust root that is half read trusts nobody knows whom."""
    monkeypatch.setenv("SEATRIAL_TRUST", str(tmp_path / "trust"))
    (tmp_path / "trust").mkdir()
    assert open_trust_root(workspace).keys == {}

    (tmp_path / "trust" / "note.txt").write_text("no key, and not looked at")
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for content in (
        b"",
        pem(Ed25519PrivateKey.generate()),
        public.public_bytes(serialization.Encoding.PEM, form),
    ):
        (tmp_path / "trust" / "a.pem").write_bytes(content)
        with pytest.raises(StoreError, match="a.pem in the trust root is not an Ed25519 public key"):
            open_trust_root(workspace)


def test_modes_of_somebody_else_s_key_are_not_judged(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of another owner, such as a mounted Secret that our group may read, is taken as it is."""
    open_signer(workspace)
    path = workspace.folder / "keys" / "signing-key.pem"
    path.chmod(0o640)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)

    assert open_signer(workspace).sign(b"content")
