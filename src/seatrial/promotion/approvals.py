"""A person's signed word that an environment may serve a bundle.

An approval is good for one move: it names the environment, the bundle, the move that it follows and
the evidence that the person saw (the record of what the gates found, by its digest, and with it all
that was recorded before). So it cannot be used for another bundle, in another environment, or once
more after somebody else moved (threats: P7). Who may approve is said by public keys in git.

Where a move wants approvals, a roll-back wants a signature by one of the same persons: nobody else is
waited for, and the record says who it was.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from seatrial.bundle import Signer, TrustRoot
from seatrial.bundle.signing import key_id, public_keys
from seatrial.errors import ApprovalError, UntrustedBundleError
from seatrial.promotion.environment import EnvironmentFolder
from seatrial.promotion.pointer import Pointer, append, pointer_log
from seatrial.record_log import Record
from seatrial.workspace import Workspace

APPROVAL = "approval"
APPROVAL_TYPE = "application/vnd.seatrial.approval+json"
ROLL_BACK_TYPE = "application/vnd.seatrial.roll-back+json"
GATES = "gates"


class Approval(BaseModel):
    """What a person has signed.

    Attributes:
        format: Version of the format.
        model: The model's name.
        environment: The environment that may serve the bundle.
        digest: The bundle's digest.
        follows: Generation of the pointer when it was given: the move must be the next one.
        evidence: Digest of the record with what the environment's gates found.
        by: The person's name.
        at: When, ISO 8601.
        expires: Until when the move must have been made, ISO 8601.
        comment: What the person wants to be remembered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["seatrial-approval/1"] = "seatrial-approval/1"
    model: str
    environment: str
    digest: str
    follows: int
    evidence: str
    by: str
    at: datetime
    expires: datetime
    comment: str = ""


class SignedRollBack(BaseModel):
    """What a person has signed who rolled back.

    Attributes:
        format: Version of the format.
        model: The model's name.
        environment: The environment.
        digest: The bundle that it returns to.
        follows: Generation of the pointer before: it is good for the next move alone.
        reason: Why.
        by: The person's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["seatrial-roll-back/1"] = "seatrial-roll-back/1"
    model: str
    environment: str
    digest: str
    follows: int
    reason: str
    by: str


def approver_names(environment: EnvironmentFolder) -> dict[str, str]:
    """Return who may approve in an environment: the person's name by the name of the key.

    Raises:
        StoreError: if a file there is not an Ed25519 public key.
    """
    found = public_keys(environment.folder / "approvers")
    return {key_id(key): name for name, key in found.items()}


def gates_record(records: list[Record], digest: str) -> Record | None:
    """Return the newest record of what the gates found for a bundle."""
    found = [r for r in records if r.content.get("kind") == GATES and r.content.get("digest") == digest]
    return found[-1] if found else None


def approve(
    environment: EnvironmentFolder,
    workspace: Workspace,
    model: str,
    digest: str,
    *,
    signer: Signer,
    expected: Pointer,
    evidence: Record,
    comment: str = "",
) -> Approval:
    """Sign and record that an environment may serve a bundle, as its next move.

    Args:
        environment: The environment.
        workspace: Its workspace.
        model: The model's name.
        digest: The bundle's digest.
        signer: The person's key.
        expected: What the environment serves now.
        evidence: The record of what the gates found, which the person has seen.
        comment: What the person wants to be remembered.

    Raises:
        ApprovalError: if the key is not one of the environment's approvers.
        PointerMovedError: if the environment moved in the meantime.
        StoreError: if the store failed.
    """
    person = _person(environment, signer)
    moment = datetime.now(UTC).replace(microsecond=0)
    approval = Approval(
        model=model,
        environment=environment.name,
        digest=digest,
        follows=expected.generation,
        evidence=evidence.sha256,
        by=person,
        at=moment,
        expires=moment + environment.rules.approval_valid,
        comment=comment,
    )
    payload = orjson.dumps(approval.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    content = {
        "kind": APPROVAL,
        "digest": digest,
        "by": approval.by,
        "comment": comment,
        "envelope": orjson.loads(signer.sign(payload, APPROVAL_TYPE)),
    }
    append(workspace, environment.name, model, content, expected=expected)
    return approval


def _person(environment: EnvironmentFolder, signer: Signer) -> str:
    names = approver_names(environment)
    if signer.name not in names:
        raise ApprovalError(
            f"The key {signer.name[:12]} may not approve in {environment.name}. "
            f"Who may: {', '.join(sorted(names.values())) or 'nobody'}.",
            remedy=f"Who may is said by the files {environment.folder / 'approvers'}/NAME.pem.",
        )
    return names[signer.name]


def _trust(environment: EnvironmentFolder) -> TrustRoot:
    folder = environment.folder / "approvers"
    return TrustRoot({key_id(key): key for key in public_keys(folder).values()}, str(folder))


def sign_roll_back(
    environment: EnvironmentFolder, model: str, digest: str, *, signer: Signer, follows: int, reason: str
) -> dict[str, Any]:
    """Return what the record of a roll-back says of the person who made it.

    Args:
        environment: The environment.
        model: The model's name.
        digest: The bundle that it returns to.
        signer: The person's key.
        follows: Generation of the pointer before.
        reason: Why.

    Raises:
        ApprovalError: if the key is not one of the environment's approvers.
        StoreError: if a file among these is not an Ed25519 public key.
    """
    said = SignedRollBack(
        model=model,
        environment=environment.name,
        digest=digest,
        follows=follows,
        reason=reason,
        by=_person(environment, signer),
    )
    payload = orjson.dumps(said.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
    return {"by": said.by, "envelope": orjson.loads(signer.sign(payload, ROLL_BACK_TYPE))}


def check_roll_back(environment: EnvironmentFolder, model: str, record: Record, *, follows: int) -> None:
    """Check that an approver has signed a roll-back, as it was recorded.

    Args:
        environment: The environment.
        model: The model's name.
        record: The record of the roll-back.
        follows: Number of the move before it.

    Raises:
        ApprovalError: if nobody has who may, or something else was signed.
        StoreError: if a file among the approvers' is not an Ed25519 public key.
    """
    shown = f"The roll-back in record {record.number}"
    try:
        envelope = orjson.dumps(record.content.get("envelope"))
        payload, key = _trust(environment).open(envelope, ROLL_BACK_TYPE, shown)
        said = SignedRollBack.model_validate_json(payload)
    except UntrustedBundleError as error:
        raise ApprovalError(error.message) from None
    except ValidationError:
        raise ApprovalError(f"{shown} does not say what a roll-back says.") from None
    wanted = SignedRollBack(
        model=model,
        environment=environment.name,
        digest=str(record.content.get("digest")),
        follows=follows,
        reason=str(record.content.get("reason")),
        by=approver_names(environment)[key],
    )
    if said != wanted:
        raise ApprovalError(f"{shown} is not what {wanted.by} has signed.")


def read_approval(record: Record, trust: TrustRoot) -> tuple[Approval, str]:
    """Return what an approval's record says, and the name of the approver's key that signed it.

    Raises:
        ApprovalError: if no approver of the environment has signed it, or it is no approval.
    """
    shown = f"The approval in record {record.number}"
    try:
        payload, signer = trust.open(orjson.dumps(record.content.get("envelope")), APPROVAL_TYPE, shown)
        return Approval.model_validate_json(payload), signer
    except UntrustedBundleError as error:
        raise ApprovalError(error.message) from None
    except ValidationError:
        raise ApprovalError(f"{shown} does not say what an approval says.") from None


def check_approvals(
    environment: EnvironmentFolder,
    records: list[Record],
    *,
    model: str,
    digest: str,
    follows: int,
    needed: int,
    at: datetime,
) -> list[int]:
    """Return the numbers of the records that approve a move, one for each person.

    Args:
        environment: The environment.
        records: The record of the model in it, up to the move.
        model: The model's name.
        digest: The bundle that shall be served.
        follows: Generation of the pointer before the move.
        needed: How many persons must have approved.
        at: When the move is made.

    Raises:
        ApprovalError: if too few have; with what is wrong with each approval that does not count.
    """
    names = approver_names(environment)
    trust = _trust(environment)
    wanted = {"model": model, "environment": environment.name, "digest": digest, "follows": follows}
    evidence = gates_record(records, digest)
    counted: dict[str, int] = {}
    wrong: list[str] = []
    for record in (r for r in records if r.content.get("kind") == APPROVAL):
        try:
            approval, signer = read_approval(record, trust)
        except ApprovalError as error:
            wrong.append(error.message)
            continue
        if why := _why_not(approval, wanted, names[signer], evidence, at):
            wrong.append(f"The approval in record {record.number} by {approval.by} {why}.")
        else:
            counted.setdefault(approval.by, record.number)
    if len(counted) < needed:
        raise ApprovalError(
            f"{environment.name} wants {needed} approval{'s' * (needed > 1)} of bundle {digest[:12]} of {model}. "
            f"It has {len(counted)} (by {', '.join(counted) or 'nobody'}). {' '.join(wrong)}".rstrip(),
            remedy=f"Let a person look and approve: seatrial approve {model} --env {environment.name}",
        )
    return sorted(counted.values())


def _why_not(
    approval: Approval, wanted: dict[str, Any], signer: str, evidence: Record | None, at: datetime
) -> str:
    """Say why an approval does not count for a move; empty where it does."""
    said = approval.model_dump()
    for key, value in wanted.items():
        if said[key] != value:
            return f"is for {key} {str(said[key])[:12]}, not {str(value)[:12]}"
    if approval.by != signer:
        return f"was signed by the key of {signer}"
    if evidence is None or approval.evidence != evidence.sha256:
        return "rests on other evidence than the newest: what the gates found was recorded anew"
    if at > approval.expires:
        return f"was good until {approval.expires.isoformat()}"
    if approval.at > at + timedelta(days=1):
        return f"is of the future ({approval.at.isoformat()})"
    return ""


def records_of(workspace: Workspace, environment: str, model: str) -> list[Record]:
    """Return all that was recorded of a model in an environment, oldest first.

    Raises:
        StoreError: if the store failed or a record is damaged.
    """
    return pointer_log(workspace, environment, model).all()
