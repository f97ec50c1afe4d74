"""What a step left in a real object store, and what was done to it since: only what nobody touched is taken again."""

from __future__ import annotations

import io
import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import pytest
from minio import Minio

from seatrial.cluster_setup import object_store
from seatrial.cluster_setup.object_store import (
    BucketPlan,
    Credentials,
    Grant,
    Plan,
    Store,
    UserPlan,
    open_client,
    set_up,
    versions_below,
)
from seatrial.errors import StoreError
from seatrial.kubeflow_driver.kept import why_not_again
from seatrial.kubeflow_driver.lineage import Artifact
from support.minio_server import REGION, ObjectStore

LONG_AGO = timedelta(minutes=1)


@dataclass(frozen=True)
class Step:
    """A step that left a folder of three files.

    Attributes:
        client: A client of its store.
        bucket: The bucket.
        key: The artifact's.
        artifact: As the lineage knows it, at once after it was stored.
        store: The store, as who looks is known there.
    """

    client: Minio
    bucket: str
    key: str
    artifact: Artifact
    store: Store

    def why(self, *, ended: timedelta = timedelta(0)) -> str:
        """Why it is not taken again, had it ended that much earlier."""
        artifact = Artifact(self.artifact.uri, self.artifact.kind, self.artifact.recorded - ended)
        return why_not_again([artifact], partial(versions_below, self.store, most=100))

    def put(self, name: str) -> None:
        """Write a file of the folder."""
        self.client.put_object(self.bucket, f"{self.key}/{name}", io.BytesIO(b"kept"), 4)


def _left(store: ObjectStore, bucket: str) -> Step:
    client = open_client(store.url, store.root, REGION)
    key = f"v2/artifacts/kept/{secrets.token_hex(4)}/keep/model"
    for name in ("a", "b/c", "b/d e+f%"):
        client.put_object(bucket, f"{key}/{name}", io.BytesIO(b"kept"), 4)
    ended = max(one.last_modified for one in client.list_objects(bucket, prefix=key, recursive=True))
    artifact = Artifact(f"minio://{bucket}/{key}", "system.Model", ended)
    return Step(client, bucket, key, artifact, Store(store.url, store.root, REGION))


@pytest.fixture
def versioned(store: ObjectStore) -> Step:
    """In a bucket as the chart makes it."""
    plan = Plan(
        endpoint=store.url,
        region=REGION,
        buckets=[BucketPlan(name="mlpipeline", old_versions_days=3)],
        users=[],
    )
    set_up(plan, {"root": store.root})
    return _left(store, "mlpipeline")


@pytest.fixture
def plain(store: ObjectStore) -> Step:
    """In a bucket that keeps no versions, as another store's may."""
    client = open_client(store.url, store.root, REGION)
    if not client.bucket_exists("plain"):
        client.make_bucket("plain")
    return _left(store, "plain")


def test_what_nobody_touched_is_taken(versioned: Step, plain: Step) -> None:
    """With versions and without, also beside another artifact whose name begins alike."""
    for step in (versioned, plain):
        step.client.put_object(step.bucket, f"{step.key}-2", io.BytesIO(b"kept"), 4)
        assert step.why() == ""


def test_with_versions_every_touch_is_seen(versioned: Step) -> None:
    """A file that is overwritten at once, though its time is hardly later than the step's end (K6)."""
    versioned.put("b/c")

    assert f"mlpipeline/{versioned.key}/b/c was written more than once" in versioned.why()


def test_with_versions_one_deleted_file_is_missed(versioned: Step) -> None:
    """One of three, which a list does not show; put back as it was, it is a stranger's all the same (K6)."""
    versioned.client.remove_object("mlpipeline", f"{versioned.key}/b/d e+f%")
    assert f"mlpipeline/{versioned.key}/b/d e+f% was deleted" in versioned.why()

    versioned.put("b/d e+f%")
    assert versioned.why()


def test_what_was_added_or_replaced_later_is_seen(versioned: Step, plain: Step) -> None:
    """By its time alone, where the bucket shows no more (K6)."""
    versioned.put("added")
    assert "was written at" in versioned.why(ended=LONG_AGO)

    plain.put("b/c")
    assert "was written at" in plain.why(ended=LONG_AGO)


def test_what_is_gone_is_missed(versioned: Step, plain: Step) -> None:
    """All of it, with the versions too, as who cleans up for good leaves it (K6)."""
    for step, versions in ((versioned, True), (plain, False)):
        found = step.client.list_objects(
            step.bucket, prefix=step.key, recursive=True, include_version=versions
        )
        for one in found:
            step.client.remove_object(step.bucket, str(one.object_name), version_id=one.version_id)
        assert step.why() == f"{step.bucket}/{step.key} is gone"


def test_who_may_not_see_versions_sees_what_is_there(
    store: ObjectStore, plain: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another store's keys may allow no more than to list."""
    monkeypatch.setattr(object_store, "LIST_BUCKET", ("s3:ListBucket",))
    name = f"lister-{secrets.token_hex(4)}"
    credentials = Credentials(name, "s" * 40)
    grants = [Grant(bucket="plain", access="append")]
    plan = Plan(endpoint=store.url, region=REGION, buckets=[], users=[UserPlan(name=name, grants=grants)])
    set_up(plan, {"root": store.root, name: credentials})
    step = Step(plain.client, plain.bucket, plain.key, plain.artifact, Store(store.url, credentials, REGION))

    policy = json.dumps(object_store.policy_document(grants))
    assert "ListBucketVersions" not in policy
    assert step.why() == ""
    assert "was written at" in step.why(ended=LONG_AGO)


def test_a_store_that_cannot_be_asked_says_so(store: ObjectStore, versioned: Step) -> None:
    """Wrong keys, no such bucket, and more than anybody looks at."""
    stranger = Store(store.url, Credentials("stranger", "s" * 40), REGION)
    with pytest.raises(StoreError, match="InvalidAccessKeyId"):
        versions_below(stranger, "mlpipeline", versioned.key, most=100)
    with pytest.raises(StoreError, match="NoSuchBucket"):
        versions_below(versioned.store, "nowhere", versioned.key, most=100)

    assert len(versions_below(versioned.store, "mlpipeline", versioned.key, most=3)) == 3
    with pytest.raises(StoreError, match="more than 2 versions of objects below mlpipeline/"):
        versions_below(versioned.store, "mlpipeline", versioned.key, most=2)
