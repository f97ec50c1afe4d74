"""Makes buckets, users and policies in MinIO, and puts right what differs from the plan.

Each user reaches what its policy grants and nothing else (threats: O12), each bucket keeps old versions,
and a workspace's bucket has object lock, so that a bundle cannot be deleted before its days are over
(Z1). It is done at every revision of a release: what is there already stays. The name of an access
key counts as a secret, so that no message says one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from seatrial.cluster_setup.entry import read_plan, run, say
from seatrial.errors import StoreError, UsageError

if TYPE_CHECKING:
    from minio import Minio
    from minio.minioadmin import MinioAdmin

ROOT = "root"
READ_OBJECT = ("s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention")
WRITE_OBJECT = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
LIST_BUCKET = ("s3:ListBucket", "s3:ListBucketVersions")
ATTEMPTS = 3
"""How often a request is tried before it counts as failed; the store is there when the set-up begins."""
VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_NO_VERSIONS = frozenset({"NotImplemented", "MethodNotAllowed", "AccessDenied"})
"""How a store says that it keeps no versions, or shows them to others alone."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BucketPlan(_Model):
    """A bucket.

    Attributes:
        name: Its name.
        lock_days: Days in which no version of an object can be deleted; 0: no object lock.
        old_versions_days: Days after which a version goes that was overwritten or deleted.
    """

    name: str
    lock_days: int = Field(default=0, ge=0)
    old_versions_days: int = Field(ge=1)


class Grant(_Model):
    """What a user may do.

    Attributes:
        bucket: Where.
        prefix: Below which prefix, without slashes at its ends; empty: in the whole bucket.
        access: ``full``, or ``append``: all but deleting.
    """

    bucket: str
    prefix: str = ""
    access: Literal["full", "append"]


class UserPlan(_Model):
    """A user, and the policy of the same name.

    Attributes:
        name: Name of the policy, and of the folder with the user's credentials.
        grants: What it may do.
    """

    name: str
    grants: list[Grant]


class Plan(_Model):
    """What shall be in the object store.

    Attributes:
        endpoint: The store's address, such as ``http://minio.seatrial.svc:9000``.
        region: Its region.
        buckets: The buckets.
        users: The users. Those of their policies that are not named any more are removed.
    """

    endpoint: str
    region: str
    buckets: list[BucketPlan]
    users: list[UserPlan]


@dataclass(frozen=True)
class Credentials:
    """An access key.

    Attributes:
        access_key: Its name.
        secret_key: Its secret.
    """

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Store:
    """A store, and as whom it is asked.

    Attributes:
        endpoint: Its address, such as ``http://minio.seatrial.svc:9000``.
        credentials: Whose access is used.
        region: Its region.
    """

    endpoint: str
    credentials: Credentials
    region: str

    @classmethod
    def of_environment(cls) -> Store:
        """Return the store that the ``AWS_*`` variables name.

        Raises:
            UsageError: if one is not set.
        """
        if missing := [name for name in VARIABLES if not os.environ.get(name)]:
            raise UsageError(f"To look at a bucket, {' and '.join(missing)} must be set.")
        endpoint, access_key, secret_key = (os.environ[name] for name in VARIABLES)
        return cls(endpoint, Credentials(access_key, secret_key), os.environ.get("AWS_REGION", "us-east-1"))


@dataclass(frozen=True)
class StoredVersion:
    """One state of an object; where the bucket keeps no versions, the only one.

    Attributes:
        key: The object's.
        modified: When it came to be, by the store's clock.
        newest: Whether it is what a reader gets.
        deleted: Whether it says that the object is gone.
    """

    key: str
    modified: datetime
    newest: bool
    deleted: bool


def read_credentials(folder: Path, name: str) -> Credentials:
    """Read the credentials of one user, as a Secret is mounted.

    Args:
        folder: Where each user has a folder with the files ``access-key`` and ``secret-key``.
        name: The user's name in the plan.

    Raises:
        StoreError: if they are not there.
    """
    try:
        access, secret = ((folder / name / part).read_text() for part in ("access-key", "secret-key"))
    except OSError as error:
        raise StoreError(
            f"The credentials of {name!r} cannot be read: {error.strerror}.",
            remedy="The Secret must have both keys; see the table of Secrets in the chart's README.",
        ) from error
    return Credentials(access, secret)


def policy_document(grants: list[Grant]) -> dict[str, Any]:
    """Return the policy, in S3's own language, that allows ``grants`` and nothing else.

    A prefix ends at a slash: ``test`` grants ``test/a`` and not ``testing/a``, for listing too.
    """
    statements: list[dict[str, Any]] = []
    for grant in grants:
        bucket = f"arn:aws:s3:::{grant.bucket}"
        objects = f"{bucket}/{grant.prefix}/*" if grant.prefix else f"{bucket}/*"
        deleting = ("s3:DeleteObject",) if grant.access == "full" else ()
        listing = _allow(LIST_BUCKET, bucket)
        if grant.prefix:
            listing["Condition"] = {"StringLike": {"s3:prefix": [f"{grant.prefix}/", f"{grant.prefix}/*"]}}
        statements += [
            _allow(("s3:GetBucketLocation",), bucket),
            listing,
            _allow((*READ_OBJECT, *WRITE_OBJECT, *deleting), objects),
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(actions: tuple[str, ...], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": [resource]}


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Turn the client's errors into one that says what to do, and no more than the store's own code."""
    from minio.error import MinioAdminException, MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        yield
    except S3Error as error:
        raise StoreError(f"The object store refused {doing}: {error.code}.", remedy=_remedy()) from None
    except MinioAdminException as error:
        code = json.loads(error._body or "{}").get("Code", error._code)  # noqa: SLF001 -- it has no other way
        raise StoreError(f"The object store refused {doing}: {code}.", remedy=_remedy()) from None
    except (MinioException, HTTPError) as error:
        raise StoreError(
            f"The object store failed while {doing}: {type(error).__name__}.", remedy=_remedy()
        ) from error


def _remedy() -> str:
    return "Look at its log: kubectl logs minio-0 --container minio"


def open_client(endpoint: str, credentials: Credentials, region: str) -> Minio:
    """Return a client of the store at ``endpoint`` that gives up soon, so that the caller can say so."""
    import urllib3
    from minio import Minio

    address = urlsplit(endpoint)
    return Minio(
        address.netloc,
        access_key=credentials.access_key,
        secret_key=credentials.secret_key,
        secure=address.scheme == "https",
        region=region,
        http_client=urllib3.PoolManager(timeout=10, retries=urllib3.Retry(ATTEMPTS, backoff_factor=0.2)),
    )


def _open_admin(endpoint: str, credentials: Credentials, region: str) -> MinioAdmin:
    from minio.credentials.providers import StaticProvider
    from minio.minioadmin import MinioAdmin

    address = urlsplit(endpoint)
    return MinioAdmin(
        endpoint=address.netloc,
        credentials=StaticProvider(credentials.access_key, credentials.secret_key),
        region=region,
        secure=address.scheme == "https",
    )


def set_up(plan: Plan, credentials: dict[str, Credentials]) -> None:
    """Bring the object store to what the plan says.

    Args:
        plan: What shall be there.
        credentials: Those of the administrator, by the name ``root``, and of each user of the plan.

    Raises:
        StoreError: if the store is away or refuses, or a bucket is there without the object lock it shall have.
    """
    client = open_client(plan.endpoint, credentials[ROOT], plan.region)
    admin = _open_admin(plan.endpoint, credentials[ROOT], plan.region)
    for bucket in plan.buckets:
        _set_up_bucket(client, bucket)
    for user in plan.users:
        _set_up_user(admin, user, credentials[user.name])


def _set_up_bucket(client: Minio, plan: BucketPlan) -> None:
    from minio.commonconfig import ENABLED, GOVERNANCE, Filter
    from minio.lifecycleconfig import LifecycleConfig, NoncurrentVersionExpiration, Rule
    from minio.objectlockconfig import DAYS, ObjectLockConfig
    from minio.versioningconfig import VersioningConfig

    with _errors(f"making the bucket {plan.name}"):
        if made := not client.bucket_exists(plan.name):
            client.make_bucket(plan.name, object_lock=plan.lock_days > 0)
        client.set_bucket_versioning(plan.name, VersioningConfig(ENABLED))
        expiry = NoncurrentVersionExpiration(noncurrent_days=plan.old_versions_days)
        rule = Rule(ENABLED, Filter(prefix=""), rule_id="old-versions", noncurrent_version_expiration=expiry)
        client.set_bucket_lifecycle(plan.name, LifecycleConfig([rule]))
    if plan.lock_days:
        if not made and not _is_lockable(client, plan.name):
            raise StoreError(
                f"The bucket {plan.name} is there, but was made without object lock, which a bucket gets "
                "only when it is made.",
                remedy="Name another bucket in the environment's workspace, or move its objects and delete it.",
            )
        with _errors(f"locking the bucket {plan.name}"):
            client.set_object_lock_config(plan.name, ObjectLockConfig(GOVERNANCE, plan.lock_days, DAYS))
    say(f"the bucket {plan.name} is {'made' if made else 'there'}")


def _is_lockable(client: Minio, bucket: str) -> bool:
    from minio.error import S3Error

    with _errors(f"looking at the lock of the bucket {bucket}"):
        try:
            client.get_object_lock_config(bucket)
        except S3Error as error:
            if error.code == "ObjectLockConfigurationNotFoundError":
                return False
            raise
    return True


def _set_up_user(admin: MinioAdmin, plan: UserPlan, credentials: Credentials) -> None:
    with _errors(f"making the user and policy {plan.name}"):
        admin.policy_add(plan.name, policy=policy_document(plan.grants))
        admin.user_add(credentials.access_key, credentials.secret_key)
        admin.policy_set(plan.name, user=credentials.access_key)
        users: dict[str, dict[str, Any]] = json.loads(admin.user_list())
        former = [
            key
            for key, user in users.items()
            if user.get("policyName") == plan.name and key != credentials.access_key
        ]
        for key in former:
            admin.user_remove(key)
    gone = f"; {len(former)} former access key(s) removed" if former else ""
    say(f"the user {plan.name} is there, with what it may do{gone}")


def why_closed(endpoint: str, credentials: Credentials, region: str, bucket: str, prefix: str = "") -> str:
    """Return why a bucket cannot be listed with these credentials; empty if it can.

    Args:
        endpoint: The store's address.
        credentials: Whose access is tried.
        region: The store's region.
        bucket: The bucket.
        prefix: Below which prefix to look.
    """
    client = open_client(endpoint, credentials, region)
    try:
        with _errors(f"to list {bucket}"):
            next(client.list_objects(bucket, prefix=f"{prefix}/" if prefix else None), None)
    except StoreError as error:
        return error.message.rstrip(".")
    return ""


def versions_below(store: Store, bucket: str, prefix: str, *, most: int) -> list[StoredVersion]:
    """List the versions of all objects whose keys begin with a text, or what is there where none are kept.

    Args:
        store: The store.
        bucket: The bucket.
        prefix: How the keys begin.
        most: How many are listed at most.

    Raises:
        StoreError: if the store is away or refuses, or if there are more.
    """
    from minio.error import S3Error

    client = open_client(store.endpoint, store.credentials, store.region)
    with _errors(f"to list {bucket}/{prefix}"):
        try:
            found = _listed(client, bucket, prefix, versions=True, most=most + 1)
        except S3Error as error:
            if error.code not in _NO_VERSIONS:
                raise
            found = _listed(client, bucket, prefix, versions=False, most=most + 1)
    if len(found) > most:
        raise StoreError(f"There are more than {most} versions of objects below {bucket}/{prefix}.")
    return found


_NOBODY_KNOWS = datetime.max.replace(tzinfo=UTC)


def _listed(client: Minio, bucket: str, prefix: str, *, versions: bool, most: int) -> list[StoredVersion]:
    found = client.list_objects(bucket, prefix=prefix, recursive=True, include_version=versions)
    return [
        StoredVersion(
            str(one.object_name),
            one.last_modified or _NOBODY_KNOWS,
            str(one.is_latest).lower() != "false",
            bool(one.is_delete_marker),
        )
        for one in itertools.islice(found, most)
    ]


def main() -> None:
    """Read the plan and the credentials, and bring the store to it."""
    parser = argparse.ArgumentParser(
        prog="python -m seatrial.cluster_setup.object_store", description=__doc__
    )
    parser.add_argument("plan", help="what shall be there, as JSON")
    parser.add_argument("--credentials", type=Path, required=True, help="folder with a folder a user")
    arguments = parser.parse_args()
    plan = read_plan(Plan, arguments.plan)
    names = [ROOT, *(user.name for user in plan.users)]
    set_up(plan, {name: read_credentials(arguments.credentials, name) for name in names})


if __name__ == "__main__":
    run(main)
