"""What git says an environment serves: ``manifests/environments/ENV/MODEL/bundle.yaml``.

The file is a patch of the model's Deployment, so ``kubectl apply -k manifests/environments/ENV`` serves
what it names. Where servers follow the record it leaves the pods as they are, which take another bundle
without being replaced. Beside the bundle's digest it names the move of the record that it follows: a change
that was prepared before somebody else moved is seen to be stale, also after a merge (threats: P5).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from seatrial.bundle.manifest import is_digest
from seatrial.cluster.preflight import quantity
from seatrial.errors import ContractError, Problem
from seatrial.promotion.environment import EnvironmentFolder

BUNDLE_FILE = "bundle.yaml"
OBJECTS_FILE = "objects.yaml"
KUSTOMIZATION = "kustomization.yaml"
BUNDLE_ANNOTATION = "seatrial.io/bundle"
FOLLOWS_ANNOTATION = "seatrial.io/follows"
BUNDLE_VARIABLE = "BUNDLE"
"""The server's variable that names the bundle, where it does not follow the record."""
_PATCH = """\
# Written by `seatrial promote` and `seatrial rollback`: the bundle that is served, and the number of the
# record's move that it follows.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  annotations:
    seatrial.io/bundle: {digest}
    seatrial.io/follows: "{follows}"
"""
_PODS = """\
spec:
  template:
    metadata:
      annotations:
        seatrial.io/bundle: {digest}
    spec:
      containers:
        - name: server
          env:
            - name: BUNDLE
              value: {digest}
"""


@dataclass(frozen=True)
class Declared:
    """What git says an environment serves of one model.

    Attributes:
        digest: Digest of the bundle.
        follows: Generation of the pointer that the move to it follows; 0 where it is the first.
    """

    digest: str
    follows: int


def bundle_file(environment: EnvironmentFolder, model: str) -> Path:
    """Return the path of the file that names a model's bundle."""
    return environment.folder / model / BUNDLE_FILE


def declared_models(environment: EnvironmentFolder) -> list[str]:
    """Return the models for which git names a bundle in an environment, sorted."""
    return sorted(path.parent.name for path in environment.folder.glob(f"*/{BUNDLE_FILE}"))


def read_declared(environment: EnvironmentFolder, model: str) -> Declared | None:
    """Return what git says an environment serves of a model, or None where it says nothing.

    Raises:
        ContractError: if the file does not say it once and the same everywhere.
    """
    path = bundle_file(environment, model)
    if not path.is_file():
        return None
    return parse_declared(path.read_text(encoding="utf-8"), model, path)


def parse_declared(text: str, model: str, path: Path) -> Declared:
    """Read a model's ``bundle.yaml``.

    Raises:
        ContractError: if it does not say which bundle, once and the same everywhere.
    """
    try:
        content = YAML(typ="safe", pure=True).load(text)
        annotations = content["metadata"]["annotations"]
        declared = Declared(annotations[BUNDLE_ANNOTATION], int(annotations[FOLLOWS_ANNOTATION]))
    except (YAMLError, LookupError, TypeError, ValueError) as error:
        raise _wrong(path, f"cannot be read: {type(error).__name__}: {error}.") from None
    if not is_digest(str(declared.digest)) or declared.follows < 0:
        raise _wrong(path, "must name a bundle by its whole digest, and the move that it follows.")
    forms = [YAML(typ="safe", pure=True).load(patch(model, declared, in_pods=form)) for form in (True, False)]
    if content not in forms:
        raise _wrong(
            path, f"must name bundle {declared.digest[:12]} at all of its places, and say nothing else."
        )
    return declared


@dataclass(frozen=True)
class ServingImage:
    """The image that serves a model on an environment's cluster, and what a container of it may use there.

    Attributes:
        reference: The image.
        processors: How many processors; None where all are free to use.
        memory: How many bytes of memory; None where there is no limit.
    """

    reference: str
    processors: float | None
    memory: int | None


def serving_image(environment: EnvironmentFolder, model: str) -> ServingImage:
    """Return what git says serves a model in an environment: container ``server`` of its Deployment.

    Raises:
        ContractError: if git has no such Deployment, or says it in a way that Kubernetes would refuse.
    """
    path = environment.folder / model / OBJECTS_FILE
    try:
        objects = list(YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")))
        (container,) = (
            container
            for found in objects
            if found and found["kind"] == "Deployment"
            for container in found["spec"]["template"]["spec"]["containers"]
            if container["name"] == "server"
        )
        limits = container.get("resources", {}).get("limits", {})
        processors, memory = (
            quantity(limits[name]) if name in limits else None for name in ("cpu", "memory")
        )
        return ServingImage(container["image"], processors, None if memory is None else int(memory))
    except (OSError, YAMLError, LookupError, TypeError, ValueError) as error:
        raise ContractError(
            str(path),
            [Problem("", f"must have one Deployment with a container named server. {error}.")],
            remedy="See docs/how-to/promotion.md for how it is made from charts/model.",
        ) from None


def _wrong(path: Path, message: str) -> ContractError:
    return ContractError(
        str(path), [Problem("", message)], remedy="Let it be written again: seatrial promote MODEL --to ENV"
    )


def object_name(model: str) -> str:
    """Return the name of a model's objects on Kubernetes, which allows no underscore."""
    return model.replace("_", "-")


def patch(model: str, declared: Declared, *, in_pods: bool) -> str:
    """Return the text of a model's ``bundle.yaml``.

    Args:
        model: The model's name.
        declared: What it says.
        in_pods: Whether its pods are given the bundle, and replaced for another one; else they follow the record.
    """
    text = _PATCH + _PODS if in_pods else _PATCH
    return text.format(name=object_name(model), digest=declared.digest, follows=declared.follows)


def patch_there(environment: EnvironmentFolder, model: str, declared: Declared) -> bytes:
    """Return the content of a model's ``bundle.yaml`` in an environment."""
    return patch(model, declared, in_pods=not environment.rules.follows_record).encode()


def changed_files(environment: EnvironmentFolder, model: str, declared: Declared) -> dict[Path, bytes]:
    """Return the files of git that change so that an environment serves a bundle, by their paths.

    The model becomes one of the environment's resources where there is a Deployment to patch.
    """
    files = {bundle_file(environment, model): patch_there(environment, model, declared)}
    kustomization = environment.folder / KUSTOMIZATION
    if has_objects(environment, model):
        before = kustomization.read_text(encoding="utf-8")
        after = _with_resource(before, model)
        if after != before:
            files[kustomization] = after.encode()
    return files


def _with_resource(text: str, model: str) -> str:
    return _with_resources(text, {*_resources(text), model})


def has_objects(environment: EnvironmentFolder, model: str) -> bool:
    """Return whether an environment has objects of a model for a cluster, a Deployment among them."""
    there = (environment.folder / model / OBJECTS_FILE, environment.folder / KUSTOMIZATION)
    return all(path.is_file() for path in there)


def without_resource(text: str, model: str) -> str:
    """Return the text of an environment's ``kustomization.yaml`` without a model among its resources."""
    return _with_resources(text, {*_resources(text)} - {model})


def _resources(text: str) -> list[str]:
    return YAML(typ="safe", pure=True).load(text).get("resources") or []


def _with_resources(text: str, resources: set[str]) -> str:
    if resources == set(_resources(text)):
        return text
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: dict[str, Any] = yaml.load(text)
    content["resources"] = sorted(resources)
    written = io.StringIO()
    yaml.dump(content, written)
    return re.sub(r"\n{3,}", "\n\n", written.getvalue())
