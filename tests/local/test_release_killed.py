"""A training run that is killed while it writes its bundle or registers it: nothing half-made is served or listed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.bundle import list_bundles, load_bundle, open_trust_root
from seatrial.contract import load_contract
from seatrial.promotion import read_pointer
from seatrial.registry import list_versions
from seatrial.tables import Tables
from seatrial.workspace import Workspace
from support.processes import SUPPORT, environment
from support.small_model import CONTRACT, visits, write_model

ROWS = 600
AUTOMATIC = "environments: {local: {promotion: automatic}}\n"


def train(model: Path, root: Path, **settings: str) -> int:
    """Run the training pipeline as a command, in a process group of its own; return how it ended."""
    command = [sys.executable, "-m", "seatrial", "train", str(model), "--as-of", "2024-04-01"]
    settings = {**environment(), **settings}
    settings.pop("MLFLOW_TRACKING_URI", None)
    return subprocess.run(
        [*command, "--workspace", str(root)],
        check=False,
        env=settings,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        timeout=400,
    ).returncode


# The bundle's files are put before its manifest; a registration copies files between run and version, and the
# pointer is put after it.
@pytest.mark.parametrize(
    ("step", "moment", "bundles", "versions"),
    [("bundle", "put 4", 0, 0), ("register", "copy 2", 1, 0), ("register", "put 1", 1, 1)],
)
def test_a_run_killed_in_its_release_is_run_again(
    tmp_path: Path, step: str, moment: str, bundles: int, versions: int
) -> None:
    """After SIGKILL nothing serves and what is listed is whole; run again, one bundle serves, registered once."""
    model = write_model(tmp_path, contract=CONTRACT + AUTOMATIC, rows=ROWS).parent
    workspace = Workspace.open(tmp_path / "workspace")
    killer = f"{SUPPORT / 'killed_step'}{os.pathsep}{SUPPORT.parent}"
    ended = train(model, workspace.folder, KILL_STEP=step, KILL_AT=moment, PYTHONPATH=killer)

    assert ended == -signal.SIGKILL
    assert read_pointer(workspace, "local", "visits").digest is None
    whole = list_bundles(workspace)
    for digest in whole:
        load_bundle(workspace, digest, open_trust_root(workspace))
    registered = [version.digest for version in list_versions(workspace, "visits")]
    assert (len(whole), len(registered)) == (bundles, versions)
    assert set(registered) <= set(whole)

    assert train(model, workspace.folder) == 0
    pointer = read_pointer(workspace, "local", "visits")
    assert pointer.generation == 1
    assert pointer.digest is not None
    load_bundle(workspace, pointer.digest, open_trust_root(workspace))
    (serving,) = [v for v in list_versions(workspace, "visits") if v.digest == pointer.digest]
    assert serving.aliases == ["local"]
    rows = Tables(workspace, load_contract(model).contract.name, "valid").read("visits").collect()
    assert sorted(rows["visit"]) == sorted(visits(ROWS)["visit"])
