"""A harbour for each test: three environments in a git repository of their own."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.local.serving.conftest import Ferry, trained_ferry

from seatrial.cli import main  # noqa: F401 -- it registers the commands
from seatrial.cli.app import run
from seatrial.promotion.environment import ENVIRONMENTS_VARIABLE
from support.harbour import Harbour, open_harbour
from support.killed_delivery import ROWS
from support.stoppable_store import StoppableStore

__all__ = ["trained_ferry"]

Cli = Callable[..., tuple[int, str, str]]
Pod = Callable[[Harbour], contextlib.AbstractContextManager[None]]


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


@pytest.fixture
def store(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StoppableStore]:
    """A store that workspaces on S3 are in."""
    store = StoppableStore(tmp_path_factory.mktemp("store"))
    for name, value in store.settings.items():
        monkeypatch.setenv(name, value)
    store.start()
    yield store
    store.kill()


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command and return its exit code and what it printed to both streams."""
    monkeypatch.setenv("COLUMNS", "1000")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seatrial", *map(str, arguments)])
        code = run()
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def rolling(harbour: Harbour) -> Harbour:
    """Staging serves the first bundle; git names the second one, which is to be rolled out in two steps."""
    harbour.train(harbour.digests[0])
    harbour.deliver("staging")
    harbour.rules("staging", f"rollout: {{steps: [0, 50], minimum_rows: {ROWS}, minimum_time: 1s}}\n")
    harbour.git("commit", "--quiet", "--all", "--message", "Step by step")
    harbour.train(harbour.digests[1])
    proposal = harbour.propose("staging")
    assert proposal.branch is not None
    harbour.merge(proposal.branch.name)
    return harbour


@pytest.fixture
def pod(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """See within a block what a pod does: the environment's folder as it was, alone, outside of any clone."""

    @contextlib.contextmanager
    def enter(harbour: Harbour) -> Iterator[None]:
        mounted = tmp_path_factory.mktemp("mounted")
        shutil.copytree(harbour.root / "manifests/environments/staging", mounted / "staging")
        with monkeypatch.context() as within:
            within.setenv(ENVIRONMENTS_VARIABLE, str(mounted))
            within.setenv("SEATRIAL_WORKSPACE_STAGING", str(harbour.root / ".seatrial-staging"))
            yield

    return enter


def json(answer: tuple[int, str, str]) -> Any:
    """Return what a command printed as JSON, if it went well."""
    code, out, err = answer
    assert (code, err) == (0, "")
    return orjson.loads(out)
