"""One MinIO with its filter for all tests of this folder; it takes seconds to start."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from seatrial.cluster_setup.object_store import BucketPlan, Credentials, Grant, Plan, UserPlan, set_up
from support.measured import measured
from support.minio_server import REGION, ObjectStore, object_store

TEST, PRODUCTION = "environment-test", "environment-production"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A running object store; skips where there is no MinIO."""
    with contextlib.ExitStack() as stack:
        with measured():
            running = stack.enter_context(object_store(tmp_path_factory.mktemp("object-store")))
        yield running


@pytest.fixture(scope="session")
def plan(store: ObjectStore) -> Plan:
    """Two environments in one bucket, as the chart asks for them."""
    return Plan(
        endpoint=store.url,
        region=REGION,
        buckets=[
            BucketPlan(name="mlflow", old_versions_days=3),
            BucketPlan(name="seatrial", lock_days=7, old_versions_days=3),
        ],
        users=[
            UserPlan(
                name=f"environment-{environment}",
                grants=[
                    Grant(bucket="seatrial", prefix=environment, access="full"),
                    Grant(bucket="mlflow", access="append"),
                ],
            )
            for environment in ("test", "production")
        ],
    )


@pytest.fixture(scope="session")
def users(store: ObjectStore, plan: Plan) -> dict[str, Credentials]:
    """The credentials of both environments, in force."""
    made = {name: Credentials(f"key-of-{name[12:]}-xyz", f"secret-of-{name}") for name in (TEST, PRODUCTION)}
    set_up(plan, {"root": store.root, **made})
    return made
