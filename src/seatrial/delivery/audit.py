"""Look whether the record, git, the bundles and what runs agree, and name every place where they do not.

It trusts nothing that it can compute: the chain of the record is hashed anew, every bundle that was
ever served is loaded with all its digests and its signature, every move's approvals are checked as
they were when it was made, and what runs is asked which bundle it answers with.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

import orjson

from seatrial.bundle import Bundle, load_bundle
from seatrial.bundle.manifest import is_digest
from seatrial.cluster.commands import run
from seatrial.delivery.declared import (
    BUNDLE_ANNOTATION,
    BUNDLE_VARIABLE,
    DEPLOYMENT,
    SELDON_DEPLOYMENT,
    Declared,
    declared_models,
    deployment_name,
    names_seldon,
    object_name,
    pods_in,
    read_declared,
)
from seatrial.delivery.drift import differences
from seatrial.delivery.proposal import approvals_needed
from seatrial.delivery.reconcile import move_to
from seatrial.errors import BundleError, SeatrialError, UsageError
from seatrial.promotion.approvals import check_approvals, check_roll_back
from seatrial.promotion.environment import EnvironmentFolder, open_environment
from seatrial.promotion.pointer import (
    PROMOTION,
    ROLL_BACK,
    STAGE,
    is_move,
    is_step,
    pointer_log,
    read_pointer,
)
from seatrial.record_log import Record, RecordLog
from seatrial.workspace import Workspace

ASK_SECONDS = 10.0
_SHOWN = 12


@dataclass(frozen=True)
class Finding:
    """One place where something is not as it must be.

    Attributes:
        environment: The environment.
        model: The model; empty for what belongs to the whole environment.
        what: What is wrong: ``record``, ``bundle``, ``approval``, ``git``, ``served`` or ``cluster``.
        message: In words.
    """

    environment: str
    model: str
    what: str
    message: str


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        findings: Every place that is not as it must be.
        looked_at: What was looked at, in words: what is not among it was not audited.
    """

    findings: list[Finding]
    looked_at: list[str]


@dataclass(frozen=True)
class _Case:
    environment: EnvironmentFolder
    workspace: Workspace
    model: str
    log: RecordLog

    def finding(self, what: str, message: str) -> Finding:
        return Finding(self.environment.name, self.model, what, message)


def audit(
    name: str, *, models: list[str] | None = None, servers: tuple[str, ...] = (), context: str = ""
) -> Audit:
    """Audit an environment.

    Args:
        name: Name of the environment.
        models: Only these models; without it, all that git names or that were ever recorded there.
        servers: Addresses of servers, such as ``http://127.0.0.1:8080``, that must serve what is recorded.
        context: A cluster whose Deployments and SeldonDeployments must serve what is recorded, and whose objects
            must be those of the manifests, by its kubeconfig context.

    Raises:
        UsageError: if there is no such environment, or a server's address is none.
        StoreError: if the store failed.
        ToolError: if kubectl failed.
    """
    environment = open_environment(name)
    workspace = environment.open_workspace()
    if wrong := [server for server in servers if not server.startswith(("http://", "https://"))]:
        raise UsageError(f"A server's address must begin with http:// or https://. Got {wrong[0]!r} instead.")
    recorded = {key.split("/")[2] for key in workspace.list(f"environments/{name}")}
    findings: list[Finding] = []
    looked_at: list[str] = []
    for model in models or sorted({*recorded, *declared_models(environment)}):
        case = _Case(environment, workspace, model, pointer_log(workspace, name, model))
        faults = [case.finding("record", fault) for fault in case.log.faults()]
        findings += faults
        looked_at.append(f"{model}: record")
        if any("damaged" in fault.message for fault in faults):
            continue  # What cannot be read cannot be compared with anything.
        findings += [*_moves(case), *_git(case), *_servers(case, servers), *_cluster(case, context)]
        looked_at += [f"{model}: {what}" for what in ("bundles", "approvals", "git", *servers)]
        looked_at += [f"{model}: {_kind(case)} in {context}"] if context else []
    if context:
        drifted = differences(environment, context)
        findings += [
            Finding(name, one.model, "cluster", one.message)
            for one in drifted
            if not models or one.model in ("", *models)
        ]
        looked_at.append(f"manifests in {context}")
    return Audit(findings, looked_at)


def _moves(case: _Case) -> Iterator[Finding]:
    """Check every bundle that was served or tried, and that what wanted approvals had them."""
    records, trust = case.log.all(), case.environment.open_trust_root()
    loaded: dict[str, Bundle | None] = {}
    for record in (record for record in records if is_step(record.content)):
        digest = str(record.content.get("digest"))
        if digest not in loaded:
            try:
                loaded[digest] = load_bundle(case.workspace, digest, trust)
            except BundleError as error:
                loaded[digest] = None
                yield case.finding("bundle", f"{error.message} Record {record.number} served it.")
        if record.content.get("kind") == STAGE:
            yield from _stage(case, records, record)
        bundle = loaded[digest]
        promoted = {r.content["digest"] for r in records if r.number < record.number and is_move(r.content)}
        if record.content.get("kind") == ROLL_BACK and digest not in promoted:
            yield case.finding("record", f"Move {record.number} rolls back to what was never served before.")
        if bundle is not None and record.content.get("kind", PROMOTION) != ROLL_BACK:
            yield from _approvals(case, records, record, bundle)
        elif bundle is not None:
            yield from _roll_back(case, records, record, bundle)


def _roll_back(case: _Case, records: list[Record], record: Record, bundle: Bundle) -> Iterator[Finding]:
    """Check who made a roll-back: a person who may, or a guard, and that only of a candidate."""
    before = [earlier for earlier in records if earlier.number < record.number and is_step(earlier.content)]
    if "guards" in record.content:
        on_trial = bool(before) and before[-1].content.get("kind") == STAGE
        if not on_trial or before[-1].content.get("previous") != bundle.digest:
            yield case.finding("record", f"Roll-back {record.number} by a guard takes no candidate back.")
    elif approvals_needed(case.environment, bundle):
        follows = max((earlier.number for earlier in before if is_move(earlier.content)), default=0)
        try:
            check_roll_back(case.environment, case.model, record, follows=follows)
        except SeatrialError as error:
            yield case.finding("approval", f"Move {record.number} was made all the same: {error}")


def _stage(case: _Case, records: list[Record], record: Record) -> Iterator[Finding]:
    """Check that a stage says of the move that it follows what that says: servers believe it."""
    moves = [earlier for earlier in records if earlier.number < record.number and is_move(earlier.content)]
    said = (record.content.get("follows"), record.content.get("previous"))
    if not moves or said != (moves[-1].number, moves[-1].content["digest"]):
        yield case.finding("record", f"Stage {record.number} follows another move than the one before it.")


def _approvals(case: _Case, records: list[Record], record: Record, bundle: Bundle) -> Iterator[Finding]:
    needed = approvals_needed(case.environment, bundle)
    before = [earlier for earlier in records if earlier.number < record.number]
    follows = [earlier.number for earlier in before if is_move(earlier.content)]
    try:
        check_approvals(
            case.environment,
            before,
            model=case.model,
            digest=bundle.digest,
            follows=follows[-1] if follows else 0,
            needed=needed,
            at=datetime.fromisoformat(str(record.content.get("at"))),
        )
    except (SeatrialError, ValueError) as error:
        yield case.finding("approval", f"Move {record.number} was made all the same: {error}")


def _git(case: _Case) -> Iterator[Finding]:
    """Check that the newest move is the one that git says; an environment without files follows its pointer."""
    try:
        declared = read_declared(case.environment, case.model)
        if declared is None:
            return
        made = move_to(case.log.all(), declared, case.environment.name, case.model) is not None
        if not made and declared.digest != _tried(case):
            yield case.finding("git", _not_made(case, declared))
    except SeatrialError as error:
        yield case.finding("git", error.message)


def _tried(case: _Case) -> str | None:
    stage = read_pointer(case.workspace, case.environment.name, case.model).stage
    return stage.digest if stage else None


def _not_made(case: _Case, declared: Declared) -> str:
    return (
        f"Git says that {declared.digest[:_SHOWN]} is served after move {declared.follows}, and that move is not made: "
        f"seatrial reconcile {case.environment.name}"
    )


def _servers(case: _Case, servers: tuple[str, ...]) -> Iterator[Finding]:
    wanted = read_pointer(case.workspace, case.environment.name, case.model).digest
    for server in servers:
        try:
            served = _served_by(server, case.model)
        except (OSError, ValueError, LookupError) as error:
            yield case.finding(
                "served", f"{server} does not say which bundle of {case.model} it serves: {error}"
            )
            continue
        if served is not None and served != wanted:
            yield case.finding(
                "served",
                f"{server} serves bundle {served[:_SHOWN]} of {case.model}; "
                f"by the record it is {str(wanted)[:_SHOWN]}.",
            )


def _served_by(server: str, model: str) -> str | None:
    """Return the digest that a server says it answers with; None where it has another model."""
    try:
        address = f"{server.rstrip('/')}/v2/models/{model}"
        with urllib.request.urlopen(address, timeout=ASK_SECONDS) as answer:  # noqa: S310 -- http(s), as checked
            said = orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise
    digest = str(said["parameters"]["bundle"])
    if not is_digest(digest):
        raise ValueError(f"{digest!r} is no digest")
    return digest


def _kind(case: _Case) -> str:
    return SELDON_DEPLOYMENT if names_seldon(case.environment, case.model) else DEPLOYMENT


def _cluster(case: _Case, context: str) -> Iterator[Finding]:
    """Check that a cluster serves what is recorded: by what was applied, and by what an operator made of it."""
    wanted = read_pointer(case.workspace, case.environment.name, case.model).digest
    if not context or wanted is None or read_declared(case.environment, case.model) is None:
        return
    kind, name = _kind(case), object_name(case.model)
    asked = [(kind, name)]
    if kind == SELDON_DEPLOYMENT:
        asked.append((DEPLOYMENT, deployment_name(case.model, seldon=True)))
    for one, its_name in asked:
        yield from _made(case, context, one, its_name, wanted, names_it=one == kind)


def _made(
    case: _Case, context: str, kind: str, name: str, wanted: str, *, names_it: bool
) -> Iterator[Finding]:
    """Check an object that has a model's pods; ``names_it``: whether it must say which bundle it serves."""
    namespace = case.environment.rules.namespace or case.environment.name
    asked = ("--context", context, "get", kind.lower(), name, "--namespace", namespace)
    said = run("kubectl", *asked, "--ignore-not-found", "--output", "json")
    if not said.strip():
        yield case.finding("served", f"There is no {kind} {name} in the namespace {namespace} of {context}.")
        return
    found = orjson.loads(said)
    places = dict(_bundles_in(found))
    # While a bundle is rolled out, git names it already, and servers follow the record.
    wrong = {place: digest for place, digest in places.items() if digest not in (wanted, _tried(case))}
    if wrong or (names_it and not places):
        shown = ", ".join(f"{place} {str(digest)[:_SHOWN]}" for place, digest in wrong.items()) or "nothing"
        yield case.finding(
            "served",
            f"The {kind} {name} in {namespace} of {context} says {shown}; by the record it is "
            f"{wanted[:_SHOWN]}.",
        )
    if kind == DEPLOYMENT and (earlier := _earlier_pods(found)):
        yield case.finding(
            "served",
            f"{earlier} of the pods of {name} in {namespace} of {context} are of an earlier Deployment than the one "
            "there is.",
        )


def _earlier_pods(deployment: dict[str, Any]) -> int:
    """Return how many pods of a Deployment are of an earlier template: one that does not come up leaves them there."""
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return int(status.get("replicas", 0)) - (int(status.get("updatedReplicas", 0)) if seen else 0)


def _bundles_in(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every place of a Deployment or SeldonDeployment that names a bundle, and the digest there."""
    templates = pods_in(found)
    noted = [("its annotation", found), *(("its pods' annotation", pod) for pod in templates)]
    for where, one in noted:
        annotations = one.get("metadata", {}).get("annotations", {})
        if BUNDLE_ANNOTATION in annotations:
            yield where, annotations[BUNDLE_ANNOTATION]
    for container in (container for pod in templates for container in pod["spec"]["containers"]):
        for variable in container.get("env", []):
            if variable["name"] == BUNDLE_VARIABLE:
                yield f"{BUNDLE_VARIABLE} of {container['name']}", variable.get("value", "")
