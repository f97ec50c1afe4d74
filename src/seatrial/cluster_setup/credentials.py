"""Makes every Secret of the platform that is missing; one that is there is never changed.

So nothing has a default password, an upgrade keeps what is in force, and whoever brings a Secret of
their own is asked nothing. Names of access keys are random like the keys themselves, because the
name alone once was enough to write (threats: Z1). ``make`` runs before the chart's other objects;
``publish`` then gives each environment's namespace its share: the settings for the object store, the
key that hashes its models' private fields, and the public keys whose bundles it trusts.
"""

from __future__ import annotations

import argparse
import base64
import secrets
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from seatrial.bundle.signing import new_private_key, public_key_file
from seatrial.cluster_setup.entry import read_plan, run, say
from seatrial.errors import ClusterError

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = {"app.kubernetes.io/part-of": "seatrial", MANAGED_BY: "seatrial-credentials"}
"""Labels of what is made here: not Helm's, so that it outlives the release, as the data do."""
ALPHABET = string.ascii_letters + string.digits
ACCESS_KEY_CHARACTERS, SECRET_CHARACTERS = 20, 40
"""The longest that MinIO takes. 20 characters of 62 are 119 bits, 40 are 238."""
NOT_FOUND, CONFLICT = 404, 409
SETTINGS, TRUST, SIGNING_KEY, SIGNING_KEY_FILE = "environment", "trust-root", "signing-key", "signing-key.pem"
PRIVACY_KEY = "privacy-key"
"""Name of the Secret, and of the file in it."""
PRIVACY_KEY_CHARACTERS = 32
"""What the feedback log wants of a key (``seatrial.feedback.concealing.KEY_BYTES``)."""
AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
DATABASE_USERS = ("kfp", "mlmd", "mlflow")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvironmentPlan(_Model):
    """An environment.

    Attributes:
        namespace: Where its models serve.
        workspace: Where its data and bundles lie, as ``s3://`` address.
    """

    namespace: str
    workspace: str


class Plan(_Model):
    """Which Secrets there shall be.

    Attributes:
        namespace: The platform's own.
        minio: Whether MinIO is the chart's, so that keys of the object store are made; else they are the user's.
        mariadb: Whether MariaDB is the chart's, likewise.
        endpoint: The object store's address.
        region: Its region.
        mlflow: MLflow's address.
        environments: The environments by name.
    """

    namespace: str
    minio: bool
    mariadb: bool
    endpoint: str
    region: str
    mlflow: str
    environments: dict[str, EnvironmentPlan]


@dataclass(frozen=True)
class WantedSecret:
    """A Secret that shall be there.

    Attributes:
        name: Its name.
        values: Each key that is needed, with the value for when it is made; None where only the user can say it.
    """

    name: str
    values: dict[str, str | None] = field(repr=False)


def random_text(length: int) -> str:
    """Return ``length`` letters and digits, by the system's generator for secrets."""
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def wanted_secrets(plan: Plan) -> list[WantedSecret]:
    """Return every Secret of the platform's namespace that the plan asks for, with new values."""

    def key_pair(access_key: str, secret_key: str) -> dict[str, str | None]:
        lengths = {access_key: ACCESS_KEY_CHARACTERS, secret_key: SECRET_CHARACTERS}
        return {key: random_text(length) if plan.minio else None for key, length in lengths.items()}

    users = [*(["root"] if plan.mariadb else []), *DATABASE_USERS]
    passwords = {
        f"{user}-password": random_text(SECRET_CHARACTERS) if plan.mariadb else None for user in users
    }
    wanted = [
        *([WantedSecret("minio-root", key_pair("user", "password"))] if plan.minio else []),
        WantedSecret("mariadb", dict(passwords)),
        WantedSecret("mlpipeline-minio-artifact", key_pair("accesskey", "secretkey")),
        WantedSecret("mlflow-object-store", key_pair(*AWS_KEYS)),
    ]
    for name, environment in plan.environments.items():
        settings = environment_settings(plan, environment)
        wanted += [
            WantedSecret(f"{SETTINGS}-{name}", {**key_pair(*AWS_KEYS), **settings}),
            WantedSecret(f"{SIGNING_KEY}-{name}", {SIGNING_KEY_FILE: new_private_key().decode()}),
            WantedSecret(f"{PRIVACY_KEY}-{name}", {PRIVACY_KEY: random_text(PRIVACY_KEY_CHARACTERS)}),
        ]
    return wanted


def environment_settings(plan: Plan, environment: EnvironmentPlan) -> dict[str, str]:
    """Return what an environment's steps and models are told of the platform, beside the keys."""
    return {
        "AWS_ENDPOINT_URL": plan.endpoint,
        "AWS_REGION": plan.region,
        "AWS_ALLOW_HTTP": "true" if plan.endpoint.startswith("http://") else "false",
        "MLFLOW_S3_ENDPOINT_URL": plan.endpoint,
        "MLFLOW_TRACKING_URI": plan.mlflow,
        "SEATRIAL_WORKSPACE": environment.workspace,
    }


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise ClusterError(
            f"Kubernetes refused {doing}: {error.status} {error.reason}.",
            remedy="403: the Job's service account lacks a right; 404: the namespace is not there.",
        ) from None
    except HTTPError as error:
        raise ClusterError(
            f"Kubernetes does not answer {doing}: {type(error).__name__}.",
            remedy="Does a NetworkPolicy deny it? See global.networkPolicies.kubernetesApiPorts.",
        ) from error


def _found(read: Callable[..., Any], name: str, namespace: str) -> Any:
    """Return an object, or None where there is none."""
    from kubernetes.client import ApiException

    with _errors(f"to read {namespace}/{name}"):
        try:
            return read(name, namespace)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise


def _create(
    create: Callable[..., Any],
    kind: str,
    name: str,
    namespace: str,
    values: dict[str, str],
    *,
    encoded: bool = False,
) -> bool:
    """Make a Secret or ConfigMap; return False if somebody else has made it in the meantime."""
    from kubernetes.client import ApiException

    body: dict[str, Any] = {"metadata": {"name": name, "labels": OURS}}
    body["stringData" if kind == "Secret" and not encoded else "data"] = values
    with _errors(f"to make {namespace}/{name}"):
        try:
            create(namespace, body)
        except ApiException as error:
            if error.status == CONFLICT:
                return False
            raise
    say(f"made the {kind} {namespace}/{name}")
    return True


def make(api: CoreV1Api, plan: Plan) -> None:
    """Make each Secret of the platform's namespace that is missing, and each trust root.

    Args:
        api: Kubernetes.
        plan: Which there shall be.

    Raises:
        ClusterError: if Secrets are missing that only the user can make, or one lacks a key: all at once;
            or if Kubernetes refuses.
    """
    problems = []
    for wanted in wanted_secrets(plan):
        values = {key: value for key, value in wanted.values.items() if value is not None}
        found = _found(api.read_namespaced_secret, wanted.name, plan.namespace)
        if found is None and len(values) == len(wanted.values):
            _create(api.create_namespaced_secret, "Secret", wanted.name, plan.namespace, values)
        elif found is None:
            problems.append(f"{wanted.name} is missing; it needs {', '.join(wanted.values)}")
        elif missing := sorted(wanted.values.keys() - (found.data or {}).keys()):
            problems.append(f"{wanted.name} lacks {', '.join(missing)}")
    if problems:
        raise ClusterError(
            f"Secrets of the namespace {plan.namespace} are not as they must be: {'; '.join(problems)}.",
            remedy="Make them with kubectl create secret generic; the chart's README says what each key is.",
        )
    for name in plan.environments:
        signing_key = _found(api.read_namespaced_secret, f"{SIGNING_KEY}-{name}", plan.namespace)
        file, public = public_key_file(base64.b64decode(signing_key.data[SIGNING_KEY_FILE]))
        _trust(api, f"{TRUST}-{name}", plan.namespace, {file: public.decode()})


def publish(api: CoreV1Api, plan: Plan) -> None:
    """Give each environment's namespace its settings, its trust root and its privacy key.

    Args:
        api: Kubernetes.
        plan: The environments.

    Raises:
        ClusterError: if Kubernetes refuses.
    """
    for name, environment in plan.environments.items():
        settings = _found(api.read_namespaced_secret, f"{SETTINGS}-{name}", plan.namespace)
        privacy = _found(api.read_namespaced_secret, f"{PRIVACY_KEY}-{name}", plan.namespace)
        trusted = _found(api.read_namespaced_config_map, f"{TRUST}-{name}", plan.namespace)
        if settings is None or privacy is None or trusted is None:
            raise ClusterError(
                f"A Secret {SETTINGS}-{name} or {PRIVACY_KEY}-{name}, or the ConfigMap {TRUST}-{name}, is missing "
                f"in {plan.namespace}.",
                remedy="The chart's hook makes them: helm upgrade runs it again.",
            )
        values = {key: base64.b64decode(value).decode() for key, value in settings.data.items()}
        _copy_settings(api, environment.namespace, values)
        _copy_privacy_key(api, environment.namespace, privacy.data)
        _trust(api, TRUST, environment.namespace, trusted.data or {})


def _copy_settings(api: CoreV1Api, namespace: str, values: dict[str, str]) -> None:
    """Bring the copy in an environment's namespace to what the original says, if the copy is ours."""
    found = _found(api.read_namespaced_secret, SETTINGS, namespace)
    if found is None and _create(api.create_namespaced_secret, "Secret", SETTINGS, namespace, values):
        return
    if found is not None and _is_ours(found):
        with _errors(f"to change {namespace}/{SETTINGS}"):
            api.patch_namespaced_secret(SETTINGS, namespace, {"stringData": values})


def _copy_privacy_key(api: CoreV1Api, namespace: str, data: dict[str, str]) -> None:
    """Give a namespace the key if it has none: with another, nobody finds again what was hashed with the one there."""
    if _found(api.read_namespaced_secret, PRIVACY_KEY, namespace) is None:
        _create(api.create_namespaced_secret, "Secret", PRIVACY_KEY, namespace, data, encoded=True)


def _trust(api: CoreV1Api, name: str, namespace: str, keys: dict[str, str]) -> None:
    """Let a trust root have these keys; those that a person has added stay, and one that is not ours is left."""
    found = _found(api.read_namespaced_config_map, name, namespace)
    if found is None and _create(api.create_namespaced_config_map, "ConfigMap", name, namespace, keys):
        return
    if found is not None and _is_ours(found) and not keys.items() <= (found.data or {}).items():
        with _errors(f"to change {namespace}/{name}"):
            api.patch_namespaced_config_map(name, namespace, {"data": keys})
        say(f"added to the ConfigMap {namespace}/{name}")


def _is_ours(found: Any) -> bool:
    return bool((found.metadata.labels or {}).get(MANAGED_BY) == OURS[MANAGED_BY])


def main() -> None:
    """Make or publish what the plan of the command line says, as the service account of this pod."""
    from kubernetes.client import CoreV1Api
    from kubernetes.config import load_incluster_config

    parser = argparse.ArgumentParser(prog="python -m seatrial.cluster_setup.credentials", description=__doc__)
    parser.add_argument("action", choices=["make", "publish"], help="in the platform's namespace, or from it")
    parser.add_argument("plan", help="which Secrets there shall be, as JSON")
    arguments = parser.parse_args()
    plan = read_plan(Plan, arguments.plan)
    load_incluster_config()
    actions = {"make": make, "publish": publish}
    actions[arguments.action](CoreV1Api(), plan)


if __name__ == "__main__":
    run(main)
