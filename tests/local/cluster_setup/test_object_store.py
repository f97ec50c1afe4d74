from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from minio import Minio
from minio.commonconfig import GOVERNANCE
from minio.error import S3Error

from seatrial.cluster_setup.object_store import (
    BucketPlan,
    Credentials,
    Plan,
    open_client,
    set_up,
    why_closed,
)
from seatrial.errors import StoreError
from seatrial.workspace import Workspace
from support.minio_server import REGION, ObjectStore

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIXES = {"environment-test": "test", "environment-production": "production"}
ACTIONS: dict[str, Callable[[Minio, str], object]] = {
    "get": lambda client, prefix: client.get_object("seatrial", f"{prefix}/there").read(),
    "put": lambda client, prefix: client.put_object("seatrial", f"{prefix}/new", io.BytesIO(b"x"), 1),
    "list": lambda client, prefix: list(client.list_objects("seatrial", prefix=f"{prefix}/")),
    "delete": lambda client, prefix: client.remove_object("seatrial", f"{prefix}/there"),
}


@pytest.fixture
def clients(store: ObjectStore, users: dict[str, Credentials]) -> dict[str, Minio]:
    """A client of each environment, with an object below each prefix."""
    root = open_client(store.url, store.root, REGION)
    for prefix in (*PREFIXES.values(), "testing"):
        root.put_object("seatrial", f"{prefix}/there", io.BytesIO(b"content"), 7)
    return {name: open_client(store.url, credentials, REGION) for name, credentials in users.items()}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("prefix", PREFIXES.values())
@pytest.mark.parametrize("user", PREFIXES)
def test_reaches_its_own_prefix_alone(clients: dict[str, Minio], user: str, prefix: str, action: str) -> None:
    """An environment's key gets, puts, lists and deletes below its own prefix, and nothing of the other's (O12)."""
    if PREFIXES[user] == prefix:
        ACTIONS[action](clients[user], prefix)
        return

    with pytest.raises(S3Error) as refused:
        ACTIONS[action](clients[user], prefix)
    assert refused.value.code == "AccessDenied"
    assert refused.value.response.status == 403


def test_prefix_ends_at_a_slash(clients: dict[str, Minio]) -> None:
    """A key for the prefix test cannot list what begins with the same letters."""
    for prefix in (None, "test", "testing", "testing/"):
        with pytest.raises(S3Error, match="AccessDenied"):
            list(clients["environment-test"].list_objects("seatrial", prefix=prefix, recursive=True))


def test_old_versions_cannot_be_deleted(store: ObjectStore, clients: dict[str, Minio]) -> None:
    """What was overwritten in a workspace is still there, and nobody deletes it before its days are over."""
    client = clients["environment-test"]
    first = client.put_object("seatrial", "test/bundle", io.BytesIO(b"good"), 4)
    client.put_object("seatrial", "test/bundle", io.BytesIO(b"evil"), 4)

    root = open_client(store.url, store.root, REGION)
    for whoever in (client, root):
        with pytest.raises(S3Error, match="WORM protected"):
            whoever.remove_object("seatrial", "test/bundle", version_id=first.version_id)
    assert client.get_object("seatrial", "test/bundle", version_id=first.version_id).read() == b"good"
    retention = root.get_object_retention("seatrial", "test/bundle", version_id=first.version_id)
    assert retention is not None
    assert retention.mode == GOVERNANCE


def test_figures_are_added_and_never_deleted(clients: dict[str, Minio]) -> None:
    """An environment adds to MLflow's artifacts, and deletes none."""
    client = clients["environment-test"]
    client.put_object("mlflow", "1/run/figure", io.BytesIO(b"x"), 1)

    assert client.get_object("mlflow", "1/run/figure").read() == b"x"
    with pytest.raises(S3Error, match="AccessDenied"):
        client.remove_object("mlflow", "1/run/figure")


def test_again_changes_nothing(
    store: ObjectStore, plan: Plan, users: dict[str, Credentials], clients: dict[str, Minio]
) -> None:
    """Setting up what is set up keeps objects and users."""
    set_up(plan, {"root": store.root, **users})

    assert clients["environment-test"].get_object("seatrial", "test/there").read() == b"content"


def test_new_key_ends_the_old_one(store: ObjectStore, plan: Plan, users: dict[str, Credentials]) -> None:
    """When an environment's key is made anew, the former one is refused at once (O10)."""
    new = Credentials("key-made-anew", "secret-made-anew")

    set_up(plan, {"root": store.root, **users, "environment-test": new})

    assert why_closed(store.url, new, REGION, "seatrial", "test") == ""
    assert "InvalidAccessKeyId" in why_closed(
        store.url, users["environment-test"], REGION, "seatrial", "test"
    )
    set_up(plan, {"root": store.root, **users})


def test_bucket_without_lock_is_refused(store: ObjectStore, plan: Plan) -> None:
    """A bucket that was made without object lock cannot get it, and the error says what to do."""
    open_client(store.url, store.root, REGION).make_bucket("lockless")
    locked = BucketPlan(name="lockless", lock_days=1, old_versions_days=1)
    wanted = plan.model_copy(update={"buckets": [locked], "users": []})

    with pytest.raises(StoreError, match="made without object lock"):
        set_up(wanted, {"root": store.root})


def test_wrong_administrator_is_refused_without_its_name(store: ObjectStore, plan: Plan) -> None:
    """Of a key that is refused, the name, which is a secret, is not said."""
    with pytest.raises(StoreError, match="refused making the bucket mlflow") as refused:
        set_up(plan, {"root": Credentials("nobody-knows-me", "x" * 40)})

    assert "nobody-knows-me" not in str(refused.value)


def test_store_that_is_away_is_named(plan: Plan) -> None:
    """Where nothing answers, the error says so instead of a traceback."""
    nowhere = plan.model_copy(update={"endpoint": "http://127.0.0.1:9"})

    with pytest.raises(StoreError, match="failed while making the bucket mlflow"):
        set_up(nowhere, {"root": Credentials("a", "b")})


def test_workspace_works_in_a_locked_bucket(
    store: ObjectStore, users: dict[str, Credentials], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Create-only writes, overwriting, reading and listing work through the filter, in a bucket with object lock."""
    settings = {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": users["environment-production"].access_key,
        "AWS_SECRET_ACCESS_KEY": users["environment-production"].secret_key,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": REGION,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    workspace = Workspace.open("s3://seatrial/production")

    assert workspace.create("environments/a/1.json", b"one")
    assert not workspace.create("environments/a/1.json", b"two")
    workspace.put("tables/x", b"y" * 20_000_000)  # in several parts
    assert workspace.get("environments/a/1.json") == b"one"
    assert workspace.size("tables/x") == 20_000_000
    assert workspace.list("environments") == ["environments/a/1.json"]
