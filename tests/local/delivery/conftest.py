"""A harbour for each test: three environments in a git repository of their own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.serving.conftest import Ferry, trained_ferry

from support.harbour import Harbour, open_harbour

__all__ = ["trained_ferry"]


@pytest.fixture(scope="session")
def opened(trained_ferry: Ferry, tmp_path_factory: pytest.TempPathFactory) -> Harbour:
    """The environments as the repository ships them; nothing is served yet."""
    root = tmp_path_factory.mktemp("opened")
    with contextlib.chdir(root):
        return open_harbour(trained_ferry, root)


@pytest.fixture(scope="session")
def delivered(opened: Harbour, tmp_path_factory: pytest.TempPathFactory) -> Harbour:
    """Both bundles went to production, one after the other."""
    root = tmp_path_factory.mktemp("delivered")
    shutil.copytree(opened.root, root, dirs_exist_ok=True)
    harbour = Harbour(root, opened.digests)
    with contextlib.chdir(root):
        for digest, person in zip(harbour.digests, ("alice", "bob"), strict=True):
            harbour.train(digest)
            harbour.deliver("staging")
            harbour.deliver("production", person)
    return harbour


def _copied(harbour: Harbour, root: Path) -> Iterator[Harbour]:
    shutil.copytree(harbour.root, root, dirs_exist_ok=True)
    with contextlib.chdir(root):
        yield Harbour(root, harbour.digests)


@pytest.fixture
def harbour(opened: Harbour, tmp_path: Path) -> Iterator[Harbour]:
    """A harbour of one's own, in which nothing is served yet."""
    yield from _copied(opened, tmp_path)


@pytest.fixture
def served(delivered: Harbour, tmp_path: Path) -> Iterator[Harbour]:
    """A harbour of one's own, in which production has served both bundles."""
    yield from _copied(delivered, tmp_path)
