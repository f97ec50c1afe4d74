"""What git says an environment serves: ``manifests/environments/ENV/MODEL/bundle.yaml``.

The file is a patch of the model's Deployment or SeldonDeployment, so ``kubectl apply -k
manifests/environments/ENV`` serves what it names. Where servers follow the record it leaves the pods as they are,
which take another bundle without being replaced. Of a SeldonDeployment it is an annotation alone: kustomize replaces
lists of custom resources whole, and the pods are in one; there a replacement of the model's kustomization puts what the
annotation says into them. Beside the bundle's digest it names the move of the record that it follows: a change that was
prepared before somebody else moved is seen to be stale, also after a merge (threats: P5).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import partial
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
VALUES_FILE = "values.yaml"
DEPLOYMENT, SELDON_DEPLOYMENT = "Deployment", "SeldonDeployment"
MAIN, SERVER = "main", "server"
"""The predictor of a SeldonDeployment that serves, and the container of the server in its pods."""
BUNDLE_ANNOTATION = "seatrial.io/bundle"
FOLLOWS_ANNOTATION = "seatrial.io/follows"
BUNDLE_VARIABLE = "BUNDLE"
"""The server's variable that names the bundle, where it does not follow the record."""
_API_VERSIONS = {DEPLOYMENT: "apps/v1", SELDON_DEPLOYMENT: "machinelearning.seldon.io/v1"}
_IN_PODS = (
    f"spec.predictors.[name={MAIN}].componentSpecs.0.spec.containers.[name={SERVER}]"
    f".env.[name={BUNDLE_VARIABLE}].value"
)
_REPLACEMENT = {
    "source": {"kind": SELDON_DEPLOYMENT, "fieldPath": f"metadata.annotations.[{BUNDLE_ANNOTATION}]"},
    "targets": [
        {
            "select": {"kind": SELDON_DEPLOYMENT, "labelSelector": "seatrial.io/serves=digest"},
            "fieldPaths": [_IN_PODS],
        }
    ],
}
"""Of a model's kustomization: the predictor's pods serve what the annotation says, but where they follow the record."""
_PATCH = """\
# Written by `seatrial promote` and `seatrial rollback`: the bundle that is served, and the number of the
# record's move that it follows.
apiVersion: {api_version}
kind: {kind}
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
    forms = [
        patch(model, declared, in_pods=in_pods, seldon=seldon)
        for in_pods, seldon in ((True, False), (False, False), (False, True))
    ]
    if content not in [YAML(typ="safe", pure=True).load(form) for form in forms]:
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
    """Return what git says serves a model in an environment: container ``server`` of its pods.

    Raises:
        ContractError: if git has no such pods, or says it in a way that Kubernetes would refuse.
    """
    path = environment.folder / model / OBJECTS_FILE
    try:
        objects = list(YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")))
        (container,) = (
            container
            for found in objects
            if found
            for pod in pods_in(found)[:1]
            for container in pod["spec"]["containers"]
            if container["name"] == SERVER
        )
        limits = container.get("resources", {}).get("limits", {})
        processors, memory = (
            quantity(limits[name]) if name in limits else None for name in ("cpu", "memory")
        )
        return ServingImage(container["image"], processors, None if memory is None else int(memory))
    except (OSError, YAMLError, LookupError, TypeError, ValueError) as error:
        raise ContractError(
            str(path),
            [Problem("", f"must have one Deployment or predictor with a container named server. {error}.")],
            remedy="See docs/how-to/promotion.md for how it is made from charts/model.",
        ) from None


def pods_in(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the templates of the pods that a Deployment or a SeldonDeployment asks for; none of another object."""
    if found["kind"] == DEPLOYMENT:
        return [found["spec"]["template"]]
    if found["kind"] == SELDON_DEPLOYMENT:
        return [pod for predictor in found["spec"]["predictors"] for pod in predictor["componentSpecs"]]
    return []


def _wrong(path: Path, message: str) -> ContractError:
    return ContractError(
        str(path), [Problem("", message)], remedy="Let it be written again: seatrial promote MODEL --to ENV"
    )


def object_name(model: str) -> str:
    """Return the name of a model's objects on Kubernetes, which allows no underscore."""
    return model.replace("_", "-")


def deployment_name(model: str, *, seldon: bool, predictor: str = MAIN) -> str:
    """Return the name of the Deployment of a model's pods: its own, or that which Seldon's operator makes."""
    name = object_name(model)
    return f"{name}-{predictor}-0-{SERVER}" if seldon else name


def patch(model: str, declared: Declared, *, in_pods: bool, seldon: bool = False) -> str:
    """Return the text of a model's ``bundle.yaml``.

    Args:
        model: The model's name.
        declared: What it says.
        in_pods: Whether its pods are given the bundle, and replaced for another one; else they follow the record.
        seldon: Whether a SeldonDeployment has its pods, into which its kustomization puts what is said here.
    """
    text = _PATCH + _PODS if in_pods and not seldon else _PATCH
    kind = SELDON_DEPLOYMENT if seldon else DEPLOYMENT
    return text.format(
        api_version=_API_VERSIONS[kind],
        kind=kind,
        name=object_name(model),
        digest=declared.digest,
        follows=declared.follows,
    )


def runs_on_seldon(values: Path) -> bool:
    """Return whether a model's ``values.yaml`` asks for Seldon's operator; without the file it does not."""
    said = YAML(typ="safe", pure=True).load(values.read_text(encoding="utf-8")) if values.is_file() else None
    return (said or {}).get("engine") == "seldon"


def names_seldon(environment: EnvironmentFolder, model: str) -> bool:
    """Return whether it is a SeldonDeployment that git names a model's bundle for."""
    path = bundle_file(environment, model)
    said = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return (said or {}).get("kind") == SELDON_DEPLOYMENT


def patch_there(environment: EnvironmentFolder, model: str, declared: Declared) -> bytes:
    """Return the content of a model's ``bundle.yaml`` in an environment."""
    seldon = runs_on_seldon(environment.folder / model / VALUES_FILE)
    return patch(model, declared, in_pods=not environment.rules.follows_record, seldon=seldon).encode()


def changed_files(environment: EnvironmentFolder, model: str, declared: Declared) -> dict[Path, bytes]:
    """Return the files of git that change so that an environment serves a bundle, by their paths.

    The model becomes one of the environment's resources where there is a Deployment or SeldonDeployment to patch, and
    the kustomization of a SeldonDeployment puts the bundle into its pods.
    """
    files = {bundle_file(environment, model): patch_there(environment, model, declared)}
    if has_objects(environment, model):
        seldon = runs_on_seldon(environment.folder / model / VALUES_FILE)
        changes = {
            environment.folder / KUSTOMIZATION: partial(_with_resource, model=model),
            environment.folder / model / KUSTOMIZATION: partial(in_kustomization, seldon=seldon),
        }
        for path, change in changes.items():
            before = path.read_text(encoding="utf-8")
            after = change(before)
            if after != before:
                files[path] = after.encode()
    return files


def in_kustomization(text: str, *, seldon: bool) -> str:
    """Return the text of a model's ``kustomization.yaml`` as it goes with what runs its pods.

    Args:
        text: The text.
        seldon: Whether that is a SeldonDeployment, into whose pods the kustomization puts the bundle.
    """
    before = YAML(typ="safe", pure=True).load(text).get("replacements") or []
    if seldon == (_REPLACEMENT in before):
        return text
    others = [one for one in before if one != _REPLACEMENT]
    return _with(text, "replacements", [*others, _REPLACEMENT] if seldon else others)


def _with_resource(text: str, *, model: str) -> str:
    return _with_resources(text, {*_resources(text), model})


def has_objects(environment: EnvironmentFolder, model: str) -> bool:
    """Return whether an environment has objects of a model for a cluster, what runs its pods among them."""
    there = (
        environment.folder / KUSTOMIZATION,
        *(environment.folder / model / n for n in (OBJECTS_FILE, KUSTOMIZATION)),
    )
    return all(path.is_file() for path in there)


def without_resource(text: str, model: str) -> str:
    """Return the text of an environment's ``kustomization.yaml`` without a model among its resources."""
    return _with_resources(text, {*_resources(text)} - {model})


def _resources(text: str) -> list[str]:
    return YAML(typ="safe", pure=True).load(text).get("resources") or []


def _with_resources(text: str, resources: set[str]) -> str:
    return text if resources == set(_resources(text)) else _with(text, "resources", sorted(resources))


def _with(text: str, key: str, value: list[Any]) -> str:
    """Return a kustomization with another list at a key; its comments stay."""
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    content: dict[str, Any] = yaml.load(text)
    content[key] = value
    written = io.StringIO()
    yaml.dump(content, written)
    return re.sub(r"\n{3,}", "\n\n", written.getvalue())
