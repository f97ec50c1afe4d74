"""Work that is cut short: whatever is killed, raced or out of space, rows and pointers count once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from seatrial.tables import digest_of
from seatrial.workspace import Workspace
from support.bundles import bundle_files
from support.killed_work import look_at_tables
from support.processes import SUPPORT, environment, say_go, started
from support.small_model import CONTRACT, prices, shops, visits, write_model

PROCESSES = 6


def kills(job: str, tmp_path: Path, how: str, count: int = 0) -> list[dict[str, Any]]:
    """Kill a job again and again and return what was found each time.

    The model has two of its tables, one with three periods and one with none, to be quick.
    """
    start, end = CONTRACT.index("  prices:\n"), CONTRACT.index("  shops:\n")
    model = write_model(tmp_path, contract=CONTRACT[:start] + CONTRACT[end:], rows=60)
    with started("killed_work.py", job, model, tmp_path / "workspaces", how, str(count)) as process:
        out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    found = [json.loads(line) for line in out.splitlines()]
    for kill in found:
        assert "error" not in kill, kill["error"]
    return found


def _expected_tables(*layers: str, without: str = "") -> dict[str, str]:
    """What the tables hold when all of the sources' rows are in them exactly once."""
    rows = {"visits": visits(60), "prices": prices(), "shops": shops()}
    rows.pop(without, None)
    return {f"{layer}.{name}": digest_of(frame) for name, frame in rows.items() for layer in layers}


def _check_tables(found: list[dict[str, Any]]) -> None:
    expected = _expected_tables("raw", "valid", without="prices")
    for kill in found:
        assert {name: digest for name, (digest, _) in kill["done"].items()} == expected, kill["at"]
        for name, (_, batches) in kill["between"].items():
            for batch, rows in batches.items():  # A batch was there whole or not at all.
                assert rows == kill["done"][name][1][batch], (kill["at"], name)


def test_ingest_killed_at_every_write_to_the_store(tmp_path: Path) -> None:
    """Killed before each write and after the last, and then run again: every row is there once (threats: P1)."""
    found = kills("ingest", tmp_path, "writes")

    assert all(kill["killed"] for kill in found)
    # Two tables and their four batches, in two layers; the digests; what was tested of each table; and the end.
    assert len(found) == (2 + 4) * 2 + 1 + 2 + 1
    _check_tables(found)
    assert len({json.dumps(kill["between"]) for kill in found}) == 4 * 2 + 1  # At every stage of the work.


def test_ingest_killed_at_any_moment(tmp_path: Path) -> None:
    """Also in the middle of a write: every row is there once."""
    found = kills("ingest", tmp_path, "moments", 12)

    # How many are done before their moment is the machine's to say.
    assert any(kill["killed"] for kill in found)
    _check_tables(found)


def test_a_release_killed_at_every_write_to_the_store(tmp_path: Path) -> None:
    """A bundle is whole or none, and the pointer the old one or the new one (threats: P1, P2)."""
    found = kills("release", tmp_path, "writes")

    assert all(kill["killed"] for kill in found)
    assert len(found) == 5 + 3 + 1  # Five files, signature, manifest and pointer, and the end.
    for kill in found:
        assert kill["done"] == {"bundles": 1, "generation": 1}
        assert kill["between"]["generation"] <= kill["between"]["bundles"] <= 1
    assert {tuple(kill["between"].values()) for kill in found} == {(0, 0), (1, 0), (1, 1)}


def test_a_registration_killed_at_every_write_to_mlflow(tmp_path: Path) -> None:
    """A version is whole or not there; registered again, the bundle is one version with its alias."""
    found = kills("register", tmp_path, "writes")
    whole = ["FINISHED", {"C": "1"}, {"auc": 0.7}]
    files = [
        "bundle",
        *(f"bundle/{name}" for name in sorted([*bundle_files(), "manifest.json"])),
        "report.html",
    ]

    assert all(kill["killed"] for kill in found)
    assert len(found) == 8 + 1  # Model, experiment, run, figures, files, end, version and alias; and the end.
    for kill in found:
        assert kill["done"]["versions"] == [[["local"], *whole, files]], kill["at"]
        assert kill["between"]["versions"] in ([], [[[], *whole, files]], kill["done"]["versions"]), kill[
            "at"
        ]


def test_processes_that_ingest_at_once_add_the_rows_once(tmp_path: Path) -> None:
    """Each batch is added by exactly one of them, and the others find it there."""
    model = write_model(tmp_path, rows=60)
    root = tmp_path / "workspace"
    with contextlib.ExitStack() as stack:
        racers = [stack.enter_context(started("ingest_at_once.py", model, root)) for _ in range(PROCESSES)]
        say_go(racers)
        outputs = [racer.communicate(timeout=120) for racer in racers]

    assert [error for _, error in outputs] == [""] * PROCESSES
    said = [json.loads(out) for out, _ in outputs]
    for batch in said[0]:
        assert Counter(one[batch] for one in said) == {"added": 1, "unchanged": PROCESSES - 1}, batch
    found = look_at_tables(str(model), Workspace.open(root))
    assert {name: digest for name, (digest, _) in found.items()} == _expected_tables("raw")


def _can_mount() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _can_mount(), reason="a small disk cannot be mounted here (that takes root)")
def test_a_full_disk(tmp_path: Path) -> None:
    """It is said that the disk is full, what was there is readable, and with room the work goes on."""
    model = write_model(tmp_path, rows=60)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=2m tmpfs {disk} && exec {sys.executable} {SUPPORT}/fill_disk.py {model} {disk}"
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)

    for what, (kind, message, remedy) in found["said"].items():
        assert kind == "StoreError", (what, kind, message)
        assert "free some space" in remedy.lower(), (what, message, remedy)
    assert found["full"] == {
        "unchanged": True,
        "batches": {"2024-01": visits(60).filter(pl.col("at").dt.month() == 1).height},
        "generation": 0,
        "there": [],
    }
    assert found["after"].pop("bundles") == found["after"].pop("generation") == 1
    assert {name: digest for name, (digest, _) in found["after"].items()} == _expected_tables("raw", "valid")
