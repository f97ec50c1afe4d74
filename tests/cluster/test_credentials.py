from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config
from tests.cluster.conftest import Command

from seatrial.cluster_setup.credentials import EnvironmentPlan, Plan, make, publish
from seatrial.errors import ClusterError
from support.charts import CHARTS, Case, of_kind, parse, template


@pytest.fixture(scope="module")
def api(context: str) -> CoreV1Api:
    """The cluster's API."""
    return CoreV1Api(new_client_from_config(context=context))


@pytest.fixture
def plan(api: CoreV1Api) -> Iterator[Plan]:
    """A platform and an environment in namespaces of their own, with nothing in them."""
    platform = f"credentials-{secrets.token_hex(3)}"
    for name in (platform, f"{platform}-test"):
        api.create_namespace({"metadata": {"name": name}})
    yield Plan(
        namespace=platform,
        minio=True,
        mariadb=True,
        endpoint="http://minio:9000",
        region="us-east-1",
        mlflow="http://mlflow:5000",
        environments={"test": EnvironmentPlan(namespace=f"{platform}-test", workspace="s3://seatrial/test")},
    )
    for name in (platform, f"{platform}-test"):
        api.delete_namespace(name)


def data_of(api: CoreV1Api, namespace: str) -> dict[str, Any]:
    """The content of each Secret and ConfigMap of ours in a namespace."""
    selector = "app.kubernetes.io/managed-by=seatrial-credentials"
    found = [
        *api.list_namespaced_secret(namespace, label_selector=selector).items,
        *api.list_namespaced_config_map(namespace, label_selector=selector).items,
    ]
    return {entry.metadata.name: entry.data for entry in found}


def test_made_once_and_kept(api: CoreV1Api, plan: Plan) -> None:
    """Everything is made, and made again it is what it was: an upgrade keeps what is in force."""
    make(api, plan)
    publish(api, plan)
    before = data_of(api, plan.namespace), data_of(api, f"{plan.namespace}-test")
    make(api, plan)
    publish(api, plan)

    assert (data_of(api, plan.namespace), data_of(api, f"{plan.namespace}-test")) == before
    made, there = before
    assert made.keys() == {
        "minio-root",
        "mariadb",
        "mlpipeline-minio-artifact",
        "mlflow-object-store",
        "environment-test",
        "signing-key-test",
        "privacy-key-test",
        "trust-root-test",
    }
    assert there == {name: made[f"{name}-test"] for name in ("environment", "privacy-key", "trust-root")}


def as_account(context: str, namespace: str, name: str) -> CoreV1Api:
    """The cluster's API with the rights of a service account, and no others."""
    client = new_client_from_config(context=context)
    client.set_default_header("Impersonate-User", f"system:serviceaccount:{namespace}:{name}")
    return CoreV1Api(client)


def test_rights_of_the_chart_suffice(kubectl: Command, context: str, api: CoreV1Api, plan: Plan) -> None:
    """With the roles that the chart gives to its two Jobs everything is made and published, the second time too."""
    environments = {name: one.model_dump() for name, one in plan.environments.items()}
    case = Case(CHARTS / "platform" / "charts" / "credentials", None)
    rendered = template(case, namespace=plan.namespace, values={"global": {"environments": environments}})
    granted = of_kind(parse(rendered), "ServiceAccount", "Role", "RoleBinding")
    for made in granted:
        made["metadata"].setdefault("namespace", plan.namespace)
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": granted}))

    for _ in range(2):
        make(as_account(context, plan.namespace, "credentials"), plan)
        publish(as_account(context, plan.namespace, "environments"), plan)

    assert data_of(api, f"{plan.namespace}-test").keys() == {"environment", "privacy-key", "trust-root"}


def test_secret_of_the_user_wins(api: CoreV1Api, plan: Plan) -> None:
    """A Secret that is there beforehand stays as it is; one that lacks a key is named, with the key."""
    brought = {"user": "mine", "password": "my-password"}
    api.create_namespaced_secret(plan.namespace, {"metadata": {"name": "minio-root"}, "stringData": brought})
    partial = {"metadata": {"name": "mariadb"}, "stringData": {"root-password": "x"}}
    api.create_namespaced_secret(plan.namespace, partial)

    with pytest.raises(ClusterError, match="mariadb lacks kfp-password, mlflow-password, mlmd-password"):
        make(api, plan)

    kept = api.read_namespaced_secret("minio-root", plan.namespace).data
    assert {key: base64.b64decode(value).decode() for key, value in kept.items()} == brought


def test_keys_of_another_store_are_asked_for(api: CoreV1Api, plan: Plan) -> None:
    """Keys that only the user can bring are asked for all at once."""
    with pytest.raises(
        ClusterError, match="mlpipeline-minio-artifact is missing; it needs accesskey"
    ) as asked:
        make(api, plan.model_copy(update={"minio": False}))

    assert "environment-test is missing" in asked.value.message


def test_new_key_is_published(api: CoreV1Api, plan: Plan) -> None:
    """A key that was made anew reaches the environment, and keys that a person trusts there stay trusted."""
    make(api, plan)
    publish(api, plan)
    there = f"{plan.namespace}-test"
    before = data_of(api, there)
    api.patch_namespaced_config_map("trust-root", there, {"data": {"other.pem": "a key of another team"}})
    for name in ("environment-test", "signing-key-test"):
        api.delete_namespaced_secret(name, plan.namespace)

    make(api, plan)
    publish(api, plan)

    after = data_of(api, there)
    assert after["environment"]["AWS_ACCESS_KEY_ID"] != before["environment"]["AWS_ACCESS_KEY_ID"]
    assert after["environment"] == data_of(api, plan.namespace)["environment-test"]
    assert len(after["trust-root"]) == 3
    assert {"other.pem", *before["trust-root"]} < after["trust-root"].keys()


def test_privacy_key_is_never_replaced(api: CoreV1Api, plan: Plan) -> None:
    """A key of any bytes that a person brought is handed on as it is; one that is there stays, whatever comes later."""
    brought = {"privacy-key": base64.b64encode(bytes(range(224, 256))).decode()}
    api.create_namespaced_secret(plan.namespace, {"metadata": {"name": "privacy-key-test"}, "data": brought})
    make(api, plan)
    publish(api, plan)
    there = api.read_namespaced_secret("privacy-key", f"{plan.namespace}-test").data
    api.delete_namespaced_secret("privacy-key-test", plan.namespace)

    make(api, plan)
    publish(api, plan)

    assert there == brought
    assert api.read_namespaced_secret("privacy-key", f"{plan.namespace}-test").data == brought
    assert api.read_namespaced_secret("privacy-key-test", plan.namespace).data != brought


def test_namespace_that_is_not_there(api: CoreV1Api, plan: Plan) -> None:
    """An environment without its namespace is an error with words."""
    make(api, plan)
    gone = {"test": EnvironmentPlan(namespace="credentials-nowhere", workspace="s3://seatrial/test")}

    with pytest.raises(ClusterError, match="refused to make credentials-nowhere/environment: 404"):
        publish(api, plan.model_copy(update={"environments": gone}))
