"""Private fields are hashed or dropped before anything of them is written down.

The contract names them (``private: hash`` or ``private: drop`` of a column). What is recorded of a
request passes through here first, so the log, the tables and whatever reads them never hold the value.
A hash is keyed (BLAKE2b, RFC 7693): two records of one person are seen to be of one, and nobody without the
key can try out names until one fits. The field's name goes into the hash too, so that two fields cannot
be joined by it.

The key is the file ``$SEATRIAL_PRIVACY_KEY``, or the local workspace's own, which is made on first use.
Whoever loses the key cannot find a person's records any more; whoever deletes it has made them anonymous.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import orjson

from seatrial.bundle.signing import create_private_file, read_private_file
from seatrial.contract.schema import Contract
from seatrial.errors import StoreError
from seatrial.workspace import Workspace, store_errors

KEY_VARIABLE = "SEATRIAL_PRIVACY_KEY"
KEY_BYTES = 32
PREFIX = "hash:"
_DIGEST_BYTES = 16

Treatment = Literal["hash", "drop"]


class Concealer:
    """Hashes or drops the private fields of rows.

    Args:
        treatments: What is done to each private field.
        key: The key of the hashes: ``KEY_BYTES`` bytes; not needed where nothing is hashed.
    """

    def __init__(self, treatments: Mapping[str, Treatment], key: bytes = b"") -> None:
        self.treatments = dict(treatments)
        self._key = key

    def conceal(self, names: Sequence[str], row: Sequence[Any]) -> tuple[Any, ...]:
        """Return a row as it may be written down.

        Args:
            names: The names of its fields.
            row: A value for each; None, which is a missing one, stays.
        """
        return tuple(
            self._concealed(name, value) if name in self.treatments else value
            for name, value in zip(names, row, strict=True)
        )

    def _concealed(self, name: str, value: Any) -> str | None:
        if value is None or self.treatments[name] == "drop":
            return None
        return self.hash(name, value)

    def hash(self, name: str, value: Any) -> str:
        """Return what stands for a field's value: ``hash:`` and 32 hexadecimal digits."""
        content = orjson.dumps([name, value])
        return PREFIX + blake2b(content, key=self._key, digest_size=_DIGEST_BYTES).hexdigest()


def private_fields(contract: Contract) -> dict[str, Treatment]:
    """Return what the contract wants done to each private field of a request."""
    columns = contract.tables[contract.prediction.table].columns
    return {
        name: treatment
        for name in contract.prediction.inputs
        if (treatment := columns[name].private) is not None
    }


def open_concealer(workspace: Workspace, contract: Contract) -> Concealer | None:
    """Return what conceals a model's private fields, or None if it has none.

    Raises:
        StoreError: if fields are to be hashed, and the key is missing, none, or ours and readable by others.
    """
    treatments = private_fields(contract)
    if not treatments:
        return None
    return Concealer(treatments, _open_key(workspace) if "hash" in treatments.values() else b"")


def _open_key(workspace: Workspace) -> bytes:
    named = os.environ.get(KEY_VARIABLE)
    remedy = f"It must have {KEY_BYTES} random bytes: head -c {KEY_BYTES} /dev/urandom > FILE; chmod 600 FILE"
    if not named and not workspace.is_local:
        raise StoreError(
            "There is no privacy key for a workspace that is not a folder.",
            remedy=f"Set {KEY_VARIABLE} to the path of one. {remedy}",
        )
    path = Path(named) if named else workspace.folder / "keys" / "privacy-key"
    if not named and not path.exists():
        with store_errors(f"making the privacy key {path}"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_private_file(path, secrets.token_bytes(KEY_BYTES))
    key = read_private_file(path, "The privacy key", remedy)
    if len(key) != KEY_BYTES:
        raise StoreError(f"The privacy key {path} has {len(key)} bytes.", remedy=remedy)
    return key
