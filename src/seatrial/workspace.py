"""The workspace: the one place, a folder or an S3 prefix, that holds all that the loop makes.

Objects are written so that a create-only write is refused when the object exists, on a local disk
(by :mod:`seatrial.durable_files`, which also asks the disk to keep them) as on S3 (by ``obstore``);
every pointer and every log of ours rests on that one property (threats: Z8). So a store on S3 is asked, each
time a workspace there is opened, whether it has it, and one that has not is refused (threats: O1, P6).
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError
from obstore.store import LocalStore, ObjectStore, from_url

from seatrial.durable_files import write_file
from seatrial.errors import StoreError, UsageError
from seatrial.store_access import ALLOW_HTTP, USUAL, StoreAccess

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

WORKSPACE_VARIABLE = "SEATRIAL_WORKSPACE"
DEFAULT_ROOT = ".seatrial"
KEY_PATTERN = re.compile(r"[A-Za-z0-9_=.-]+(/[A-Za-z0-9_=.-]+)*")
MAXIMUM_KEY = 512
"""Characters of a key; S3 allows 1,024 bytes, the workspace's own prefix included."""
MARKER = "workspace.json"
"""The object by which a store on S3 shows that it refuses a create-only write of what exists."""
_MARKED = b'{"format": "seatrial-workspace/1"}\n'
_S3_ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(/[A-Za-z0-9_=.-]+)*")
UNSAFE_VARIABLE = "AWS_S3_ALLOW_UNSAFE_RENAME"
ATTEMPTS = 10
PAUSE_SECONDS = 0.1
"""Pause after the first failed attempt; after the second it is twice as long, and so on."""
_SHOWN = 300
_STORE_FULL = re.compile(r"507 Insufficient Storage|XMinioStorageFull")
"""What S3 stores say when they have no room."""


@contextmanager
def store_errors(doing: str, access: StoreAccess = USUAL) -> Iterator[None]:
    """Turn the object store's and the file system's errors into one that says what to do.

    Args:
        doing: What was done, for the message.
        access: How the store is reached.

    Raises:
        StoreError: for whatever the store answered but "exists already" and "is not there".
    """
    try:
        yield
    except (AlreadyExistsError, FileNotFoundError):
        raise
    except (BaseError, OSError) as error:
        text = first_words(error)
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            remedy = (
                "The disk is full: free some space and run the command again; nothing half-written is read."
            )
        elif _STORE_FULL.search(str(error)):
            remedy = "The object store's disk is full: give it room and run it again; nothing half-written is read."
        elif "S3" in text or "http" in text:
            remedy = access.remedy
        else:
            remedy = "Check that the workspace is there and that you may write to it, then run it again."
        raise StoreError(f"The {access.shown} failed while {doing}: {text}.", remedy=remedy) from error


def first_words(error: BaseException) -> str:
    """Return what a library's error says, on one line, without the document that came with it."""
    text = " ".join(re.split(r"<\?xml|Debug source:", str(error))[0].split())
    return (text[:_SHOWN] or type(error).__name__).rstrip(" .:")


@dataclass(frozen=True)
class Workspace:
    """A workspace by its address.

    Attributes:
        root: A folder's path, or an ``s3://bucket/prefix`` address.
        access: How a store on S3 is reached: by the usual ``AWS_*`` variables, if it says nothing else.
    """

    root: str
    access: StoreAccess = USUAL

    @classmethod
    def open(cls, root: str | Path | None = None, access: StoreAccess = USUAL) -> Workspace:
        """Open a workspace, making its folder where it is a local one.

        Args:
            root: Its address; without it ``$SEATRIAL_WORKSPACE``, else ``.seatrial`` here.
            access: How a store on S3 is reached.

        Raises:
            UsageError: if the address is neither a folder nor an ``s3://`` one, or a setting would let two
                writers of one table both win.
            StoreError: if the folder cannot be made, or the store on S3 does not answer, refuses, or cannot
                refuse a create-only write.
        """
        address = str(root or os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_ROOT)
        if "://" in address:
            workspace = cls(address.rstrip("/"), access)
            if not _S3_ADDRESS.fullmatch(workspace.root) or {".", ".."} & set(workspace.root.split("/")):
                raise UsageError(
                    f"A workspace must be a folder or an s3://bucket/prefix address. Got {address!r} instead."
                )
            workspace._require_compare_and_swap()
            return workspace
        with store_errors(f"making the workspace {address}", access):
            folder = Path(address).resolve()
            folder.mkdir(parents=True, exist_ok=True)
        return cls(str(folder), access)

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
        if self.is_local:
            return LocalStore(self.root, mkdir=True)
        own = {name: value for name, value in self.access.settings if name != ALLOW_HTTP}
        allowed = self.access.allows_http
        options: ClientConfig | None = None if allowed is None else {"allow_http": allowed}
        return from_url(self.root, config=cast("S3Config", own) or None, client_options=options)

    def errors(self, doing: str) -> AbstractContextManager[None]:
        """Turn the errors of its store into one that says whose it is, too; see :func:`store_errors`."""
        return store_errors(doing, self.access)

    def uri(self, key: str) -> str:
        """Return the address of a key, for libraries that open addresses themselves."""
        return f"{self.root}/{key}"

    def get(self, key: str) -> bytes | None:
        """Return an object's bytes, or None where there is no such object.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with self.errors(f"reading {key}"):
            try:
                return obstore.get(self.store, _checked(key)).bytes().to_bytes()
            except FileNotFoundError:
                return None

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes without reading it, or None where there is no such object.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with self.errors(f"looking at {key}"):
            try:
                return int(obstore.head(self.store, _checked(key))["size"])
            except FileNotFoundError:
                return None

    def create(self, key: str, content: bytes) -> bool:
        """Write an object that is not there yet, all at once.

        A store that did not answer may have written it all the same. So it is asked again, and an
        object that is there by then, with these very bytes, counts as written.

        Returns:
            Whether it was written; False if the object exists already, which is left as it is.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with self.errors(f"writing {key}"):
            if self.is_local:
                return write_file(self.folder / _checked(key), content, replace=False)
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    obstore.put(self.store, _checked(key), content, mode="create")
                except AlreadyExistsError:
                    return attempt > 1 and self.get(key) == content
                except FileNotFoundError as error:
                    raise self._no_bucket() from error
                except GenericError:
                    # What creates is not tried again by the library, as it could not tell who won.
                    if attempt == ATTEMPTS:
                        raise
                    time.sleep(PAUSE_SECONDS * attempt)
                else:
                    break
        return True

    def put(self, key: str, content: bytes) -> None:
        """Write an object, all at once, in the place of what was there.

        Raises:
            StoreError: if the store failed, or the key is none.
        """
        with self.errors(f"writing {key}"):
            if self.is_local:
                write_file(self.folder / _checked(key), content, replace=True)
                return
            try:
                obstore.put(self.store, _checked(key), content)
            except FileNotFoundError as error:
                raise self._no_bucket() from error

    def list(self, prefix: str, *, by_age: bool = False) -> list[str]:
        """Return the keys under ``prefix``, sorted by name, or oldest first.

        Raises:
            StoreError: if the store failed, or the prefix is no key.
        """
        with self.errors(f"listing {prefix}"):
            pages = obstore.list(self.store, prefix=_checked(prefix))
            found = [
                (meta["last_modified"] if by_age else None, str(meta["path"])) for p in pages for meta in p
            ]
        return [key for _, key in sorted(found, key=lambda entry: entry if by_age else entry[1])]

    def _no_bucket(self) -> StoreError:
        return StoreError(
            f"There is nothing to write to at {self.root}.", remedy="Make its bucket, or correct the address."
        )

    def _require_compare_and_swap(self) -> None:
        """Refuse a store on which two writers of one object could both win.

        The marker is written twice, create-only: of a store that keeps its word, the second write
        is refused, and on later days the first is. Whoever may only read is let through.
        """
        if os.environ.get(UNSAFE_VARIABLE, "").lower() in ("1", "true", "yes", "on"):
            raise UsageError(
                f"{UNSAFE_VARIABLE} is set: it lets two writers of one table both win.",
                remedy=f"Unset it: unset {UNSAFE_VARIABLE}",
            )
        try:
            refused = not (self.create(MARKER, _MARKED) and self.create(MARKER, _MARKED))
        except StoreError as error:
            if isinstance(error.__cause__, PermissionDeniedError):
                return
            raise
        if not refused:
            raise StoreError(
                f"The store of {self.root} does not compare-and-swap: a create-only write replaced an object that was "
                "there, so two writers could both win.",
                remedy="Use a store that honours If-None-Match, such as MinIO, AWS S3 or a newer version of this one.",
            )


def _checked(key: str) -> str:
    if (
        len(key) > MAXIMUM_KEY
        or not KEY_PATTERN.fullmatch(key)
        or any(part in (".", "..") for part in key.split("/"))
    ):
        raise StoreError(
            f"An object's key may have letters, digits and _=.-/, no '..', and at most {MAXIMUM_KEY} characters. "
            f"Got {key[:_SHOWN]!r} instead."
        )
    return key
