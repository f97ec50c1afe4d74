"""The manifest: the list of a bundle's files with their digests.

The SHA-256 of the manifest's own bytes is the version's identity. It names every other file by
digest, so whoever has checked the manifest can check all the rest.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from seatrial.errors import TamperedBundleError

MANIFEST = "manifest.json"
SIGNATURE = "manifest.dsse.json"
FORMAT: Literal["seatrial-bundle/1"] = "seatrial-bundle/1"
FILE_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
MAXIMUM_FILE_BYTES = 512 * 1024 * 1024
MAXIMUM_FILES = 100


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class ManifestFile(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(pattern=FILE_PATTERN)
    size: int = Field(ge=0, le=MAXIMUM_FILE_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What a bundle is and which files it has.

    Attributes:
        format: Version of the bundle's format.
        model: The model's name.
        created: When it was made, ISO 8601, UTC.
        run: The run that made it.
        data: The versions of the tables it learned from, by table.
        files: Its files, sorted by path.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["seatrial-bundle/1"] = FORMAT
    model: str
    created: str
    run: str
    data: dict[str, dict[str, str | int]]
    files: tuple[ManifestFile, ...] = Field(max_length=MAXIMUM_FILES)

    @model_validator(mode="after")
    def _no_twins(self) -> Manifest:
        paths = [file.path for file in self.files]
        # The pattern leaves lower-case ASCII only, so no two names are alike but for case or form.
        if len(set(paths)) != len(paths):
            raise ValueError("a file is listed twice")
        return self

    def to_bytes(self) -> bytes:
        """Return the manifest's bytes, whose SHA-256 is the bundle's digest."""
        return orjson.dumps(self.model_dump(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            TamperedBundleError: if the bytes are no manifest of a known format.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "content"
            raise TamperedBundleError(
                f"{MANIFEST} is not a manifest of format {FORMAT}: {place}: {first['msg']}.", file=MANIFEST
            ) from None


def is_digest(text: str) -> bool:
    """Return whether ``text`` is a bundle's digest: 64 hexadecimal digits."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None
