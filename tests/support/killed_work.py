"""Work that is killed: at every write to the store, or at any moment: ``JOB MODEL FOLDER HOW COUNT``.

This process only imports and forks. Each child does the whole work in a workspace of its own and
is killed, as by ``kill -9``, before its k-th write to the store, or to MLflow, or after its last (HOW is
``writes``), or after some milliseconds (HOW is ``moments``). Another child then looks at what is
there, does the work again, and looks once more. One JSON line a kill is printed. Reading changes
nothing, so a kill at a read is one after the write before it.
"""

import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandera.polars  # noqa: F401 -- imported once here, not once a child
import polars as pl

import seatrial.tables
import seatrial.workspace
from seatrial.bundle import list_bundles, load_bundle, open_trust_root
from seatrial.contract import load_contract
from seatrial.data_tests import validate
from seatrial.promotion import promote, read_pointer
from seatrial.registry import list_versions, register, set_alias, tracking_uri
from seatrial.sources import ingest
from seatrial.tables import Tables, digest_of
from seatrial.workspace import Workspace
from support import bundles


def do_ingest(model: str, workspace: Workspace) -> None:
    """Bring the data in and test them."""
    loaded = load_contract(model)
    ingest(loaded, workspace, until=bundles.AS_OF)
    validate(loaded, workspace, as_of=bundles.AS_OF)


def look_at_tables(model: str, workspace: Workspace) -> dict[str, Any]:
    """Return the digest and the rows of each table of each layer; rows that are there twice show."""
    found = {}
    for name in load_contract(model).contract.tables:
        for layer in ("raw", "valid"):
            tables = Tables(workspace, "visits", layer)
            if tables.open(name) is not None:
                rows = tables.read(name).collect()
                found[f"{layer}.{name}"] = [
                    digest_of(rows.select(pl.exclude("_problems"))),
                    tables.batches(name),
                ]
    return found


def do_release(_: str, workspace: Workspace) -> None:
    """Write a bundle and promote it."""
    digest = bundles.make_bundle(workspace)
    bundle = load_bundle(workspace, digest, open_trust_root(workspace))
    expected = read_pointer(workspace, "local", "visits")
    promote(workspace, bundle, environment="local", expected=expected, reason="test", as_of=bundles.AS_OF)


def look_at_release(_: str, workspace: Workspace) -> dict[str, Any]:
    """Return what is listed and served; all of it must load."""
    listed = list_bundles(workspace)
    for digest in listed:
        load_bundle(workspace, digest, open_trust_root(workspace))
    pointer = read_pointer(workspace, "local", "visits")
    if pointer.digest is not None:
        load_bundle(workspace, pointer.digest, open_trust_root(workspace))
    return {"bundles": len(listed), "generation": pointer.generation}


def prepare_registry(workspace: Workspace) -> None:
    """Make a bundle, and MLflow's tables, whose making takes seconds."""
    bundles.make_bundle(workspace)
    list_versions(workspace, "visits")


def do_register(_: str, workspace: Workspace) -> None:
    """Register the bundle and show that it is served."""
    (digest,) = list_bundles(workspace)
    bundle = load_bundle(workspace, digest, open_trust_root(workspace))
    figures = {"report.html": b"<p>"}
    register(workspace, bundle, parameters={"C": 1}, metrics={"auc": 0.7}, tags={}, figures=figures)
    set_alias(workspace, "visits", "local", digest)


def look_at_registry(_: str, workspace: Workspace) -> dict[str, Any]:
    """Return what MLflow has: of each version its aliases, and what its run holds."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri(workspace))
    found = []
    for version in list_versions(workspace, "visits"):
        run = client.get_run(version.run_id)
        files = [
            file.path
            for folder in (None, "bundle")
            for file in client.list_artifacts(run.info.run_id, folder)
        ]
        found.append([version.aliases, run.info.status, run.data.params, run.data.metrics, sorted(files)])
    return {"versions": found}


JOBS = {
    "ingest": (do_ingest, look_at_tables),
    "release": (do_release, look_at_release),
    "register": (do_register, look_at_registry),
}
PREPARED = {"register": prepare_registry}
IMPORTED = {
    "register": (
        "mlflow",
        "mlflow.store.tracking.sqlalchemy_store",
        "mlflow.store.model_registry.sqlalchemy_store",
    )
}
"""Modules that a job imports late, and that take seconds: imported once, not once a child."""
PREPARED_FOLDER = "prepared"
MLFLOW_WRITES = (
    "create_registered_model",
    "create_experiment",
    "create_run",
    "log_batch",
    "log_artifacts",
    "set_terminated",
    "create_model_version",
    "set_registered_model_alias",
)


def killing(
    number: int, when: str, counts: Callable[..., bool] = lambda *_: True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what wraps functions, so that this process is killed before or after their call of that number.

    Args:
        number: Which call, of all wrapped functions together, from 1.
        when: ``before`` or ``after`` it.
        counts: Says of a call's arguments whether it counts.
    """
    counter = [0]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            if not counts(*arguments):
                return call(*arguments, **options)
            counter[0] += 1
            mine = counter[0]
            if mine == number and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return call(*arguments, **options)
            finally:
                if mine == number and when == "after":
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapper

    return counted


def kill_at_write(number: int, when: str) -> None:
    """Let this process be killed before or after its write of that number to the store or to MLflow."""
    # A scratch table outside of the store, named by its path, does not count.
    counted = killing(number, when, lambda *arguments: not isinstance(arguments[0], str))
    seatrial.workspace.write_file = counted(seatrial.workspace.write_file)
    seatrial.tables.write_deltalake = counted(seatrial.tables.write_deltalake)
    if (mlflow := sys.modules.get("mlflow")) is not None:
        for name in MLFLOW_WRITES:
            setattr(mlflow.MlflowClient, name, counted(getattr(mlflow.MlflowClient, name)))


def forked(work: Callable[[], Any]) -> tuple[int, Any]:
    """Run work in a child and return its exit status and what it returned."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            result = work()
            os.write(write, json.dumps(result).encode())
        except BaseException:  # noqa: BLE001 -- whatever it was, the parent tells it
            os.write(write, json.dumps({"error": traceback.format_exc()}).encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    return status, json.loads(said) if said else None


def after_kill(job: str, model: str, folder: Path) -> dict[str, Any]:
    """Look at what is there, do the work again, and look once more."""
    do, look = JOBS[job]

    def recover() -> dict[str, Any]:
        workspace = Workspace.open(folder)
        between = look(model, workspace)
        do(model, workspace)
        return {"between": between, "done": look(model, workspace)}

    _, found = forked(recover)
    return found


def at_writes(job: str, model: str, folder: Path) -> None:
    """Kill before each write, and after the last one.

    Just after a write the store is as it is before the next one.
    """
    if job in PREPARED:
        forked(lambda: PREPARED[job](Workspace.open(folder / PREPARED_FOLDER)))
    number = 1
    while kill_one(job, model, folder, number, "before"):
        number += 1
    kill_one(job, model, folder, number - 1, "after")


def kill_one(job: str, model: str, folder: Path, number: int, when: str) -> bool:
    """Kill at one write and print what was found; return False if the work was done without it."""
    do, _ = JOBS[job]
    mine = folder / f"{number}-{when}"
    if job in PREPARED:
        shutil.copytree(folder / PREPARED_FOLDER, mine)

    def work() -> None:
        kill_at_write(number, when)
        do(model, Workspace.open(mine))

    status, said = forked(work)
    if status == 0:
        return False
    killed = os.WIFSIGNALED(status)
    print(json.dumps({"at": mine.name, "killed": killed, "said": said, **after_kill(job, model, mine)}))
    return True


def at_moments(job: str, model: str, folder: Path, count: int) -> None:
    """Kill at random moments of the work, as long as it takes undisturbed."""
    do, _ = JOBS[job]
    began = time.monotonic()
    forked(lambda: do(model, Workspace.open(folder / "undisturbed")))
    takes = time.monotonic() - began
    random_ = random.Random(0)
    for number in range(count):
        mine = folder / str(number)
        child = os.fork()
        if child == 0:
            do(model, Workspace.open(mine))
            os._exit(0)
        time.sleep(random_.uniform(0, takes))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status)
        print(json.dumps({"at": str(number), "killed": killed, **after_kill(job, model, mine)}))


def main() -> None:
    """Do what the arguments say."""
    job, model, folder, how, count = sys.argv[1:]
    for module in IMPORTED.get(job, ()):
        importlib.import_module(module)
    if how == "writes":
        at_writes(job, model, Path(folder))
    else:
        at_moments(job, model, Path(folder), int(count))


if __name__ == "__main__":
    main()
