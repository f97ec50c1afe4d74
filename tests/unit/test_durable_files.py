"""What a workspace on a disk has written is there after a loss of power, and never half of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake

from seatrial.durable_files import write_file
from seatrial.errors import StoreError
from seatrial.tables import Tables
from seatrial.workspace import Workspace


class Kept:
    """What the disk was asked to keep: of each file its content, of each folder the names in it."""

    def __init__(self) -> None:
        self._contents: dict[int, bytes] = {}
        self._names: dict[Path, dict[str, int]] = {}

    def sync(self, descriptor: int) -> None:
        """Stand in for ``os.fsync``."""
        place = Path(f"/proc/self/fd/{descriptor}").readlink()
        if place.is_dir():
            self._names[place] = {entry.name: entry.stat().st_ino for entry in place.iterdir()}
        else:
            self._contents[place.stat().st_ino] = place.read_bytes()

    def after_power_loss(self, path: Path, root: Path) -> bytes | None:
        """Return what is found at a path if nothing but what was synced is left; None if there is no such file."""
        inode = root.stat().st_ino
        place = root
        for name in path.relative_to(root).parts:
            found = self._names.get(place, {}).get(name)
            if found is None:
                return None
            inode, place = found, place / name
        return self._contents.get(inode, b"")


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A disk that keeps nothing that it was not asked to keep."""
    disk = Kept()
    monkeypatch.setattr(os, "fsync", disk.sync)
    return disk


def test_an_object_survives_from_the_moment_that_it_is_written(tmp_path: Path, kept: Kept) -> None:
    """With all of its folders, which were not there before."""
    workspace = Workspace.open(tmp_path)

    assert workspace.create("pointers/test/ferry/1", b"first")

    assert kept.after_power_loss(tmp_path / "pointers/test/ferry/1", tmp_path) == b"first"


def test_an_object_that_takes_anothers_place_survives(tmp_path: Path, kept: Kept) -> None:
    """The newer one, whole."""
    workspace = Workspace.open(tmp_path)
    workspace.put("reports/one", b"old")

    workspace.put("reports/one", b"new, and longer")

    assert kept.after_power_loss(tmp_path / "reports/one", tmp_path) == b"new, and longer"


def test_a_table_survives_from_the_moment_that_it_is_committed(tmp_path: Path, kept: Kept) -> None:
    """Its rows, in the folder of their batch, and its log; also those of a writer that was killed after its commit."""
    tables = Tables(Workspace.open(tmp_path), "ferry", "raw")
    frame = pl.DataFrame({"late": [True, False]})

    def lost() -> list[Path]:
        files = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".parquet")]
        assert len(files) >= 3
        return [path for path in files if kept.after_power_loss(path, tmp_path) != path.read_bytes()]

    tables.write("trips", frame, batch="2024-01", digest="ab" * 32, facts={})
    assert lost() == []
    tables.append("trips", frame, positions={"log": 1}, facts={})
    assert lost() == []
    assert tables.delete("trips", "late", facts={}) == 2
    assert lost() == []

    write_deltalake(
        tables.uri("trips"),
        frame.with_columns(_batch=pl.lit("2024-02")),
        mode="append",
        commit_properties=CommitProperties(app_transactions=[Transaction("log", 2)]),
    )
    assert lost() != []
    assert not tables.append("trips", frame, positions={"log": 2}, facts={})
    assert lost() == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    """A create-only write says that it lost; nothing of it is left."""
    workspace = Workspace.open(tmp_path)
    assert workspace.create("log/1", b"first")

    assert not workspace.create("log/1", b"second")

    assert workspace.get("log/1") == b"first"
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["1"]


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    """Into a folder that all of them find missing, at the same moment."""
    ready, won = threading.Barrier(16), []

    def write(number: int) -> None:
        ready.wait()
        if write_file(tmp_path / "a/b/c", b"%d" % number, replace=False):
            won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert (tmp_path / "a/b/c").read_bytes() == b"%d" % won[0]


def test_what_a_killed_writer_left_is_no_object(tmp_path: Path) -> None:
    """Neither listed nor in the way."""
    workspace = Workspace.open(tmp_path)
    workspace.put("bundles/one", b"whole")
    (tmp_path / "bundles/two#123456").write_bytes(b"ha")

    assert workspace.list("bundles") == ["bundles/one"]
    assert workspace.create("bundles/two", b"whole")


def test_a_disk_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is as it was, and nothing half-written is left."""
    workspace = Workspace.open(tmp_path)
    workspace.put("reports/one", b"old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="The store failed while writing reports/one"):
        workspace.put("reports/one", b"new")

    assert workspace.get("reports/one") == b"old"
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["one"]
