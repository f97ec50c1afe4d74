"""The workspace: the one place, a folder or an S3 prefix, that holds all that the loop makes.

Objects are written through ``obstore``, because its create-only write is refused when the object
exists, on a local disk as on S3; every pointer and every log of ours rests on that one property
(threats: Z8). What lies where is said here and nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from seatrial.errors import StoreError, UsageError

WORKSPACE_VARIABLE = "SEATRIAL_WORKSPACE"
DEFAULT_ROOT = ".seatrial"
KEY_PATTERN = re.compile(r"[A-Za-z0-9_=.-]+(/[A-Za-z0-9_=.-]+)*")


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Turn the object store's and the file system's errors into one that says what to do.

    Raises:
        StoreError: for whatever the store answered but "exists already" and "is not there".
    """
    try:
        yield
    except (AlreadyExistsError, FileNotFoundError):
        raise
    except (BaseError, OSError) as error:
        text = str(error).split("\n")[0]
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        remedy = (
            "The disk is full: free some space and run the command again; nothing half-written is read."
            if full
            else "Check that the workspace is there and that you may write to it, then run it again."
        )
        raise StoreError(f"The store failed while {doing}: {text}.", remedy=remedy) from error


@dataclass(frozen=True)
class Workspace:
    """A workspace by its address.

    Attributes:
        root: A folder's path, or an ``s3://bucket/prefix`` address; credentials for S3 come from
            the usual ``AWS_*`` variables.
    """

    root: str

    @classmethod
    def open(cls, root: str | Path | None = None) -> Workspace:
        """Open a workspace, making its folder where it is a local one.

        Args:
            root: Its address; without it ``$SEATRIAL_WORKSPACE``, else ``.seatrial`` here.

        Raises:
            UsageError: if the address has a scheme that is not supported.
            StoreError: if the folder cannot be made.
        """
        address = str(root or os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_ROOT)
        if "://" in address:
            if not address.startswith("s3://"):
                raise UsageError(
                    f"A workspace must be a folder or an s3:// address. Got {address!r} instead."
                )
            return cls(address.rstrip("/"))
        with store_errors(f"making the workspace {address}"):
            folder = Path(address).resolve()
            folder.mkdir(parents=True, exist_ok=True)
        return cls(str(folder))

    @property
    def is_local(self) -> bool:
        """Whether the workspace is a folder of this machine."""
        return "://" not in self.root

    @property
    def folder(self) -> Path:
        """The workspace's folder.

        Raises:
            UsageError: if it is not a local one.
        """
        if not self.is_local:
            raise UsageError(f"This needs a workspace that is a folder. Got {self.root!r} instead.")
        return Path(self.root)

    @cached_property
    def store(self) -> ObjectStore:
        """The object store whose keys are relative to the root."""
        return LocalStore(self.root, mkdir=True) if self.is_local else from_url(self.root)

    def uri(self, key: str) -> str:
        """Return the address of a key, for libraries that open addresses themselves."""
        return f"{self.root}/{key}"

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None where there is no such object.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with store_errors(f"reading {key}"):
            try:
                return obstore.get(self.store, _checked(key)).bytes().to_bytes()
            except FileNotFoundError:
                return None

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes without reading it, or None where there is no such object.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with store_errors(f"looking at {key}"):
            try:
                return int(obstore.head(self.store, _checked(key))["size"])
            except FileNotFoundError:
                return None

    def create(self, key: str, content: bytes) -> bool:
        """Write an object that is not there yet, all at once.

        Returns:
            Whether it was written; False if the object exists already, which is left as it is.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with store_errors(f"writing {key}"):
            try:
                obstore.put(self.store, _checked(key), content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def put(self, key: str, content: bytes) -> None:
        """Write an object, all at once, in the place of what was there.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with store_errors(f"writing {key}"):
            obstore.put(self.store, _checked(key), content)

    def list(self, prefix: str, *, by_age: bool = False) -> list[str]:
        """Return the keys under ``prefix``, sorted by name, or oldest first.

        Raises:
            StoreError: if the store failed, or the prefix is no key.
        """
        with store_errors(f"listing {prefix}"):
            pages = obstore.list(self.store, prefix=_checked(prefix))
            found = [
                (meta["last_modified"] if by_age else None, str(meta["path"])) for p in pages for meta in p
            ]
        return [key for _, key in sorted(found, key=lambda entry: entry if by_age else entry[1])]


def _checked(key: str) -> str:
    if not KEY_PATTERN.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise StoreError(
            f"An object's key may have letters, digits and _=.-/ and no '..'. Got {key!r} instead."
        )
    return key
