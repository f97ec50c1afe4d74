"""Hand an environment's manifests to Kubernetes: `kubectl apply -k`, and nothing that it does not do.

What is applied is the folder as it is in the working tree, with the files of a change that git has on
a branch only, such as a roll-back's, in their places. Of a model whose change is merged and not made, for it waits
for an approval, what is recorded stays. A move is recorded before Kubernetes is told of it, so
the cluster is asked first whether it would take the manifests: a person without the right to change them
moves nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from seatrial.cluster.commands import run
from seatrial.delivery.declared import (
    BUNDLE_VARIABLE,
    SELDON_DEPLOYMENT,
    SERVER,
    deployment_name,
    has_objects,
    names_seldon,
    object_name,
)
from seatrial.delivery.recorded import manifests_with, recorded_files
from seatrial.errors import ClusterError, ToolError
from seatrial.promotion.environment import EnvironmentFolder
from seatrial.promotion.pointer import read_pointer

SECONDS = 120.0
ROLL_OUT_SECONDS = 1800
"""How long all pods of a model may take; where none comes up, ``progressDeadlineSeconds`` ends it earlier."""
_NOT_UP = re.compile("exceeded its progress deadline|timed out waiting")
_BUNDLE_OF_PODS = (
    f'{{.spec.template.spec.containers[?(@.name=="{SERVER}")].env[?(@.name=="{BUNDLE_VARIABLE}")].value}}'
)
_FORBIDDEN = re.compile(r'[\w.]+(?: "[^"]+")? is forbidden: .+')


def apply_manifests(
    environment: EnvironmentFolder, context: str, changed: dict[Path, bytes] | None = None
) -> str:
    """Apply an environment's manifests in a cluster, with the bundles that are recorded, and return what kubectl said.

    Args:
        environment: The environment.
        context: The cluster's context in the kubeconfig.
        changed: Files that take the place of those in the working tree, by their paths.

    Raises:
        ContractError: if a file does not say which bundle it names.
        StoreError: if the environment's store failed.
        ToolError: if kubectl is missing or failed.
    """
    recorded = recorded_files(environment, partial(_predictors_there, environment, context))
    with manifests_with(environment, {**recorded, **(changed or {})}) as folder:
        return run("kubectl", "--context", context, "apply", "-k", str(folder), seconds=SECONDS)


def _predictors_there(environment: EnvironmentFolder, context: str, model: str) -> list[dict[str, Any]]:
    place = ("--namespace", environment.rules.namespace or environment.name)
    asked = ("get", SELDON_DEPLOYMENT.lower(), object_name(model), *place)
    said = run("kubectl", "--context", context, *asked, "--ignore-not-found", "--output", "json")
    found: list[dict[str, Any]] = orjson.loads(said)["spec"]["predictors"] if said.strip() else []
    return found


def wait_for_pods(environment: EnvironmentFolder, models: list[str], context: str) -> None:
    """Wait until the pods of models are those that were applied, and none of an earlier template answers.

    Args:
        environment: The environment.
        models: The models; one that serves nothing yet has no pods.
        context: The cluster's context in the kubeconfig.

    Raises:
        ClusterError: if they do not come up; those before them go on answering.
        StoreError: if the environment's store failed.
        ToolError: if kubectl is missing, or failed for another reason.
    """
    workspace = environment.open_workspace()
    for model in models:
        digest = read_pointer(workspace, environment.name, model).digest
        if digest is None or not has_objects(environment, model):
            continue
        namespace = environment.rules.namespace or environment.name
        limit = ("--namespace", namespace, f"--timeout={ROLL_OUT_SECONDS}s")
        try:
            for asked in _waits(environment, model, digest):
                run("kubectl", "--context", context, *asked, *limit, seconds=ROLL_OUT_SECONDS + SECONDS)
        except ToolError as error:
            if not _NOT_UP.search(error.message):
                raise
            raise ClusterError(
                f"The pods of {model} in {namespace} of {context} do not come up as they were applied; those before "
                "them go on answering.",
                remedy=f"See why: kubectl --context {context} --namespace {namespace} get pods; then mend it, or go "
                f"back: seatrial rollback {model} --env {environment.name} --context {context}",
            ) from None


def _waits(environment: EnvironmentFolder, model: str, digest: str) -> Iterator[tuple[str, ...]]:
    """Yield what kubectl is asked to wait for: what is applied to a SeldonDeployment, its operator hands on later."""
    seldon = names_seldon(environment, model)
    deployment = f"deployment/{deployment_name(model, seldon=seldon)}"
    if seldon:
        yield "wait", "--for=create", deployment
    if seldon and not environment.rules.follows_record:
        yield "wait", f"--for=jsonpath={_BUNDLE_OF_PODS}={digest}", deployment
    yield "rollout", "status", deployment


def check_manifests(
    environment: EnvironmentFolder, context: str, changed: dict[Path, bytes] | None = None
) -> None:
    """Ask a cluster whether it would take an environment's manifests, and change nothing there.

    Args:
        environment: The environment.
        context: The cluster's context in the kubeconfig.
        changed: Files that take the place of those in the working tree, by their paths.

    Raises:
        ClusterError: if the context's user may not change what would change.
        ToolError: if kubectl is missing, or would fail for another reason.
    """
    asked = ("--context", context, "apply", "--dry-run=server")
    with manifests_with(environment, changed or {}) as folder:
        try:
            run("kubectl", *asked, "-k", str(folder), seconds=SECONDS)
        except ToolError as error:
            refused = _FORBIDDEN.findall(error.said)
            if not refused:
                raise
            raise ClusterError(
                f"The user of {context} may not change {environment.name} there: {'; '.join(refused)}",
                remedy="Nothing was moved. docs/how-to/promotion.md says which rights are needed.",
            ) from None
