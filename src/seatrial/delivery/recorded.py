"""What the record says, in the words of git's files: nothing that is merely merged goes to a cluster with the rest.

`kubectl apply -k` takes a whole environment. Beside the model that is moved there may be others whose change
is merged and waits for an approval; handed over as they are, they would be served without it. After a roll-back
git says the bundle before only when somebody merges it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from ruamel.yaml import YAML

from seatrial.delivery.declared import (
    KUSTOMIZATION,
    OBJECTS_FILE,
    SELDON_DEPLOYMENT,
    Declared,
    bundle_file,
    declared_models,
    has_objects,
    patch_there,
    read_declared,
    without_resource,
)
from seatrial.delivery.predictors import CANDIDATE, is_split_by_mesh, next_predictors, predictors_by_record
from seatrial.promotion.environment import EnvironmentFolder
from seatrial.promotion.pointer import Pointer, Stage, pointer_log, read_pointer
from seatrial.workspace import Workspace

YAML_OF_KUBECTL = (1, 1)
"""Version of YAML as kubectl reads it: 0444 is an octal number there."""
There = Callable[[str], list[dict[str, Any]]]
"""Returns the predictors of a model that a cluster has, none where it has no SeldonDeployment."""


def recorded_files(environment: EnvironmentFolder, there: There | None = None) -> dict[Path, bytes]:
    """Return the files that must take the place of git's, by their paths, so that what is applied is what is recorded.

    Where bundles are rolled out, servers follow the record and not these files; only the predictors between which a
    mesh splits the requests are those of the step.

    Args:
        environment: The environment.
        there: Returns the predictors of a model that a cluster has: what is returned is on the way from them to the
            record. Without it, what the record says.

    Raises:
        ContractError: if a file does not say which bundle it names.
        StoreError: if the store failed.
    """
    files: dict[Path, bytes] = {}
    workspace, kustomization = environment.open_workspace(), environment.folder / KUSTOMIZATION
    if environment.rules.rollout is not None:
        for model in declared_models(environment):
            if is_split_by_mesh(environment, model) and has_objects(environment, model):
                stage = read_pointer(workspace, environment.name, model).stage
                files |= _with_predictors(environment.folder / model / OBJECTS_FILE, model, stage, there)
        return files
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


def _with_predictors(path: Path, model: str, stage: Stage | None, there: There | None) -> dict[Path, bytes]:
    """Return the objects of a model with the predictors of a step, where these are others than git's."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = YAML_OF_KUBECTL
    objects = [found for found in yaml.load_all(path.read_text(encoding="utf-8")) if found]
    (spec,) = (found["spec"] for found in objects if found["kind"] == SELDON_DEPLOYMENT)
    by_git = spec["predictors"]
    if there is None:
        spec["predictors"] = predictors_by_record(by_git, stage)
    else:
        beside = [one for one in there(model) if one["name"] == CANDIDATE]
        spec["predictors"] = next_predictors([*by_git, *beside], stage, keep=True)
    if spec["predictors"] == by_git:
        return {}
    return {path: b"\n---\n".join(orjson.dumps(found) for found in objects)}


def _served(pointer: Pointer) -> set[str | None]:
    return {pointer.digest, pointer.stage.digest if pointer.stage else None}


def _follows(workspace: Workspace, environment: str, model: str, pointer: Pointer) -> int:
    records = pointer_log(workspace, environment, model).all()
    (move,) = (record for record in records if record.number == pointer.generation)
    return int(move.content.get("follows", 0))
