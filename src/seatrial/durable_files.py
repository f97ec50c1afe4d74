"""Files that are there whole or not at all, also after the power was cut.

A rename alone keeps readers from half a file; only a sync of the file before it, and of its folder after it, keeps
the file itself (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_DIGITS = 10**12


def write_file(path: Path, content: bytes, *, replace: bool, mode: int = 0o666) -> bool:
    """Write a file, and its folder where that is missing; both are on the disk when this returns.

    Args:
        path: The file.
        content: What is to be in it.
        replace: Whether it may take the place of one that is there.
        mode: The file's permissions, but for the process's umask.

    Returns:
        Whether it was written; False if it is there already and may not be replaced.

    Raises:
        OSError: if the disk is full or failed, or the folder may not be written to; the file is as it was.
    """
    _make_folder(path.parent)
    # obstore, which lists the folders, passes over files whose names end like this.
    partial = path.with_name(f"{path.name}#{secrets.randbelow(_DIGITS)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            partial.replace(path)
        else:
            # A link, not a rename: of two that write the same file at once, the first one's stays.
            try:
                path.hardlink_to(partial)
            except FileExistsError:
                return False
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return True


def sync_files(root: Path, files: Iterable[Path]) -> None:
    """Ask the disk to keep files that somebody else wrote, and their names in all folders up to ``root``.

    Args:
        root: A folder that is on the disk already.
        files: Files below it; one that is gone by now needs nothing.

    Raises:
        OSError: if the disk failed.
    """
    folders = set()
    for file in files:
        with suppress(FileNotFoundError):
            _sync(file, os.O_RDONLY)
        folders |= {folder for folder in file.parents if folder.is_relative_to(root)}
    for folder in folders:
        with suppress(FileNotFoundError):
            _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, each with its name on the disk."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
    _sync(folder.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
