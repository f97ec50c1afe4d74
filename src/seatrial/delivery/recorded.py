"""What the record says, in the words of git's files: nothing that is merely merged goes to a cluster with the rest.

`kubectl apply -k` takes a whole environment. Beside the model that is moved there may be others whose change
is merged and waits for an approval; handed over as they are, they would be served without it. After a roll-back
git says the bundle before only when somebody merges it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seatrial.delivery.declared import (
    KUSTOMIZATION,
    Declared,
    bundle_file,
    declared_models,
    patch_there,
    read_declared,
    without_resource,
)
from seatrial.promotion.environment import EnvironmentFolder
from seatrial.promotion.pointer import Pointer, pointer_log, read_pointer
from seatrial.workspace import Workspace


def recorded_files(environment: EnvironmentFolder) -> dict[Path, bytes]:
    """Return the files that must take the place of git's, by their paths, so that what is applied is what is recorded.

    Where bundles are rolled out, servers follow the record and not these files, so there are none.

    Args:
        environment: The environment.

    Raises:
        ContractError: if a file does not say which bundle it names.
        StoreError: if the store failed.
    """
    files: dict[Path, bytes] = {}
    if environment.rules.rollout is not None:
        return files
    workspace, kustomization = environment.open_workspace(), environment.folder / KUSTOMIZATION
    for model in declared_models(environment):
        pointer = read_pointer(workspace, environment.name, model)
        declared = read_declared(environment, model)
        if declared is None or declared.digest in _served(pointer):
            continue
        if pointer.digest is not None:
            made = Declared(pointer.digest, _follows(workspace, environment.name, model, pointer))
            files[bundle_file(environment, model)] = patch_there(environment, model, made)
        elif kustomization.is_file():
            text = files.get(kustomization, kustomization.read_bytes()).decode()
            files[kustomization] = without_resource(text, model).encode()
    return files


@contextmanager
def manifests_with(environment: EnvironmentFolder, changed: dict[Path, bytes]) -> Iterator[Path]:
    """Yield a copy of an environment's folder with changed files in their places.

    Args:
        environment: The environment.
        changed: The files, by the paths of those that they take the places of.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / environment.folder.name
        shutil.copytree(environment.folder, copy)
        for path, content in changed.items():
            target = copy / path.relative_to(environment.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield copy


def _served(pointer: Pointer) -> set[str | None]:
    return {pointer.digest, pointer.stage.digest if pointer.stage else None}


def _follows(workspace: Workspace, environment: str, model: str, pointer: Pointer) -> int:
    records = pointer_log(workspace, environment, model).all()
    (move,) = (record for record in records if record.number == pointer.generation)
    return int(move.content.get("follows", 0))
