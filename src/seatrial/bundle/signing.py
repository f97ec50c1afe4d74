"""Keys, signatures and trust: Ed25519 (RFC 8032) in a DSSE envelope.

The signature covers the payload's type and its bytes (DSSE's pre-authentication encoding,
https://github.com/secure-systems-lab/dsse), so a signature of one kind of document never passes
for another. A trust root is a folder of public keys; what no key there has signed is not loaded.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, ValidationError

from seatrial.bundle.manifest import SIGNATURE, sha256
from seatrial.durable_files import write_file
from seatrial.errors import StoreError, UntrustedBundleError
from seatrial.workspace import Workspace, store_errors

PAYLOAD_TYPE = "application/vnd.seatrial.manifest+json"
KEY_VARIABLE = "SEATRIAL_SIGNING_KEY"
TRUST_VARIABLE = "SEATRIAL_TRUST"
KEY_REMEDY = "It must be an Ed25519 private key in PEM form, without a password."


class _Signature(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keyid: str
    sig: str


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="forbid")

    payloadType: str  # noqa: N815 -- the format's own name
    payload: str
    signatures: list[_Signature]


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a key: the SHA-256 of its raw bytes, in hexadecimal."""
    return sha256(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def _decoded(text: str) -> bytes:
    """Decode base64 of the one form that encoding gives, so that no bit of a text is without meaning."""
    content = base64.b64decode(text, validate=True)
    if base64.b64encode(content).decode() != text:
        raise binascii.Error
    return content


def _to_be_signed(payload: bytes, payload_type: str) -> bytes:
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True)
class Signer:
    """A private key that signs documents."""

    private: Ed25519PrivateKey

    @property
    def name(self) -> str:
        """The name of the key."""
        return key_id(self.private.public_key())

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """Return the DSSE envelope of ``payload``, a manifest unless its type says otherwise, as JSON."""
        signature = self.private.sign(_to_be_signed(payload, payload_type))
        envelope = _Envelope(
            payloadType=payload_type,
            payload=base64.b64encode(payload).decode(),
            signatures=[_Signature(keyid=self.name, sig=base64.b64encode(signature).decode())],
        )
        return envelope.model_dump_json(indent=2).encode()


@dataclass(frozen=True)
class TrustRoot:
    """The public keys that are trusted, by their names.

    Attributes:
        keys: The keys.
        shown: Where they came from, for messages.
    """

    keys: dict[str, Ed25519PublicKey]
    shown: str

    def write(self, folder: Path) -> None:
        """Put the keys into a folder, for a process of ours that is given it as ``$SEATRIAL_TRUST``.

        Raises:
            OSError: if it cannot be written.
        """
        for key in self.keys.values():
            _publish(key, folder)

    def check(self, payload: bytes, envelope: bytes | None) -> str:
        """Check that ``envelope`` signs the manifest ``payload`` with a trusted key.

        Returns:
            The name of the key.

        Raises:
            UntrustedBundleError: if there is no signature, or none by a trusted key.
        """
        if envelope is None:
            raise UntrustedBundleError(f"The bundle is not signed: it has no {SIGNATURE}.")
        signed, signer = self.open(envelope, PAYLOAD_TYPE, SIGNATURE)
        if signed != payload:
            raise UntrustedBundleError(f"{SIGNATURE} signs another manifest than the bundle's.")
        return signer

    def open(self, envelope: bytes, payload_type: str, shown: str) -> tuple[bytes, str]:
        """Return what an envelope holds, and the name of the trusted key that signed it.

        Args:
            envelope: The DSSE envelope, as JSON.
            payload_type: What kind of document it must hold.
            shown: What the envelope is called in messages.

        Raises:
            UntrustedBundleError: if it is no envelope of such a document, or no trusted key has signed it.
        """
        try:
            parsed = _Envelope.model_validate_json(envelope)
            signed = _decoded(parsed.payload)
            signatures = [(s.keyid, _decoded(s.sig)) for s in parsed.signatures]
        except (ValidationError, binascii.Error):
            parsed, signed, signatures = None, b"", []
        if parsed is None or parsed.payloadType != payload_type:
            raise UntrustedBundleError(f"{shown} is not a DSSE envelope of type {payload_type}.")
        for name, signature in signatures:
            if (key := self.keys.get(name)) is not None:
                try:
                    key.verify(signature, _to_be_signed(signed, payload_type))
                except InvalidSignature:
                    continue
                return signed, name
        names = ", ".join(name[:12] for name, _ in signatures) or "none"
        raise UntrustedBundleError(
            f"{shown} has no good signature by a key that is trusted in {self.shown}. Its keys: {names}.",
            remedy="If you trust its maker, put the maker's public key there.",
        )


def open_signer(workspace: Workspace) -> Signer:
    """Return the signing key: the file ``$SEATRIAL_SIGNING_KEY``, or the local workspace's own.

    A local workspace's key is made on first use, readable by its owner only, and its public half
    is put into the workspace's trust root.

    Raises:
        StoreError: if the key is missing, not an Ed25519 key, or ours and readable by others.
    """
    named = os.environ.get(KEY_VARIABLE)
    if not named and not workspace.is_local:
        raise StoreError(
            "There is no signing key for a workspace that is not a folder.",
            remedy=f"Set {KEY_VARIABLE} to the path of an Ed25519 private key in PEM form.",
        )
    path = Path(named) if named else workspace.folder / "keys" / "signing-key.pem"
    if not named and not path.exists():
        with store_errors(f"making the signing key {path}"):
            _make_key(path)
    signer = read_signer(path)
    if not named:
        with store_errors(f"publishing the key {path}"):
            _publish(signer.private.public_key(), workspace.folder / "keys" / "trusted")
    return signer


def read_signer(path: Path) -> Signer:
    """Return the signing key in a file.

    Raises:
        StoreError: if it is missing, not an Ed25519 key, or ours and readable by others.
    """
    content = read_private_file(path, "The signing key", KEY_REMEDY)
    return Signer(_private_key(content, f"The signing key {path}"))


def make_key(path: Path) -> None:
    """Make a new signing key in a file, readable by its owner only; one that is there stays.

    Raises:
        StoreError: if it cannot be written.
    """
    with store_errors(f"making the signing key {path}"):
        _make_key(path)


def read_private_file(path: Path, what: str, remedy: str) -> bytes:
    """Return the content of a file that holds a secret.

    Args:
        path: The file.
        what: What it is, for messages: the beginning of a sentence.
        remedy: What to do if it cannot be read.

    Raises:
        StoreError: if it cannot be read, or is ours and readable by others.
    """
    try:
        facts = path.stat()
        # OpenSSH's rule: the modes of a file of somebody else's, such as a mounted Secret, are not ours to judge.
        if facts.st_uid == os.getuid() and facts.st_mode & 0o077:
            raise StoreError(f"{what} {path} can be read by others.", remedy=f"Run: chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"{what} {path} cannot be read: {error}.", remedy=remedy) from None


def new_private_key() -> bytes:
    """Return a new Ed25519 private key, in PEM form (PKCS 8) and without a password."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_key_file(private_key: bytes) -> tuple[str, bytes]:
    """Return the file that a trust root has of a private key: its name, and the public half in PEM form.

    Args:
        private_key: An Ed25519 private key in PEM form, without a password.

    Raises:
        StoreError: if it is none.
    """
    return _public_file(_private_key(private_key, "The signing key").public_key())


def _public_file(key: Ed25519PublicKey) -> tuple[str, bytes]:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"{key_id(key)}.pem", pem


def _private_key(pem: bytes, shown: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreError(
            f"{shown} cannot be read: {error}.",
            remedy=KEY_REMEDY,
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{shown} must be an Ed25519 key.")
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    create_private_file(path, new_private_key())


def _publish(key: Ed25519PublicKey, folder: Path) -> None:
    name, pem = _public_file(key)
    if not (path := folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        create_private_file(path, pem)


def create_private_file(path: Path, content: bytes) -> None:
    """Make a file, readable by its owner only, whole or not at all; one that is there stays."""
    write_file(path, content, replace=False, mode=0o600)


def open_trust_root(workspace: Workspace) -> TrustRoot:
    """Return the trusted keys: the folder ``$SEATRIAL_TRUST``, or the local workspace's own.

    Raises:
        StoreError: if the folder is not named, or a file in it is not an Ed25519 public key.
    """
    named = os.environ.get(TRUST_VARIABLE)
    if not named and not workspace.is_local:
        raise StoreError(
            "There is no trust root for a workspace that is not a folder.",
            remedy=f"Set {TRUST_VARIABLE} to a folder of Ed25519 public keys in PEM form.",
        )
    return read_trust_root(Path(named) if named else workspace.folder / "keys" / "trusted")


def read_trust_root(folder: Path) -> TrustRoot:
    """Return the trusted keys in a folder.

    Raises:
        StoreError: if a file in it is not an Ed25519 public key.
    """
    return TrustRoot({key_id(key): key for key in public_keys(folder).values()}, str(folder))


def public_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Return the public keys in a folder, by the names of their files without the ending.

    Raises:
        StoreError: if a file in it is not an Ed25519 public key.
    """
    found: dict[str, Ed25519PublicKey] = {}
    for path in sorted(folder.glob("*.pem")):
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise StoreError(f"{path} in the trust root is not an Ed25519 public key in PEM form.")
        found[path.stem] = key
    return found
