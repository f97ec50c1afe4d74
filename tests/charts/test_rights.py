"""Nobody has more rights than it uses, and no chart knows a secret."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.charts import NAMESPACE, Object, cases, name_of, of_kind, pods, rendered
from support.policy_exceptions import EXCEPTIONS

DANGEROUS_VERBS = {"escalate", "bind", "impersonate"}
DANGEROUS_RESOURCES = {"pods/exec", "pods/attach", "pods/portforward", "serviceaccounts/token", "nodes/proxy"}
SECRET_NAME = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|ACCESS_?KEY|CREDENTIAL|PRIVATE_?KEY", re.IGNORECASE)
SECRET_WORDS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|://[^/\s:@{}$]+:[^/\s:@{}$]+@|(?:password|passwd)\s*[=:]\s*[\w!]+",
    re.IGNORECASE,
)
DEFAULT_PASSWORDS = re.compile(r"minioadmin|minio123|changeme|change-me|root:root|admin:admin", re.IGNORECASE)


def rules_of(objects: list[Object]) -> Iterator[tuple[str, str, Object]]:
    """Yield kind, name and rule of every role."""
    for role in of_kind(objects, "Role", "ClusterRole"):
        for rule in role.get("rules") or []:
            yield role["kind"], name_of(role), rule


def broken(rule: str, objects: list[Object]) -> Iterator[str]:
    """Yield the roles that break a rule."""
    for kind, name, granted in rules_of(objects):
        verbs, resources = set(granted["verbs"]), set(granted.get("resources") or [])
        everything = "*" in [*verbs, *resources, *(granted.get("apiGroups") or [])]
        found = {
            "grants_no_wildcard": everything,
            "grants_no_rights_to_rights": bool(verbs & DANGEROUS_VERBS),
            "grants_no_way_into_pods": bool(resources & DANGEROUS_RESOURCES and verbs - {"get", "list"}),
            "grants_no_secrets_of_others": kind == "ClusterRole"
            and "secrets" in resources
            and not granted.get("resourceNames"),
        }
        if found[rule]:
            yield name


RIGHTS_RULES = (
    "grants_no_wildcard",
    "grants_no_rights_to_rights",
    "grants_no_way_into_pods",
    "grants_no_secrets_of_others",
)


@pytest.mark.parametrize("rule", RIGHTS_RULES)
def test_roles_keep_the_rules(objects: list[Object], rule: str) -> None:
    """Each role keeps the rule, or is on the list of exceptions with a reason."""
    assert [place for place in broken(rule, objects) if (rule, place) not in EXCEPTIONS] == []


def test_exceptions_are_needed(helm: str) -> None:
    """An exception that no role needs any more is taken off the list."""
    needed = {
        (rule, place) for rule in RIGHTS_RULES for case in cases() for place in broken(rule, rendered(case))
    }

    assert {key for key in EXCEPTIONS if key[0] in RIGHTS_RULES} - needed == set()


def test_bindings_name_accounts_and_roles_that_are_made(objects: list[Object]) -> None:
    """Every binding gives a role of the chart to a service account of the chart."""
    made = {
        (found["kind"], found["metadata"]["name"], found["metadata"].get("namespace", NAMESPACE))
        for found in of_kind(objects, "Role", "ClusterRole", "ServiceAccount")
    }
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        namespace = binding["metadata"].get("namespace", NAMESPACE)
        role = binding["roleRef"]
        place = namespace if role["kind"] == "Role" else NAMESPACE
        assert (role["kind"], role["name"], place) in made, name_of(binding)
        for subject in binding["subjects"]:
            assert subject["kind"] == "ServiceAccount", name_of(binding)
            assert ("ServiceAccount", subject["name"], subject["namespace"]) in made, name_of(binding)


def test_each_workload_has_an_account_of_its_own(objects: list[Object]) -> None:
    """No two workloads share a service account, and a token goes to none that is everybody's."""
    users: dict[tuple[str, str], set[str]] = {}
    for pod in pods(objects):
        if pod.spec.get("automountServiceAccountToken"):
            account = pod.spec.get("serviceAccountName", "default")
            assert account != "default", pod.owner
            users.setdefault((pod.namespace, account), set()).add(pod.owner)

    assert {account: owners for account, owners in users.items() if len(owners) > 1} == {}


def test_no_secret_is_written_down(objects: list[Object]) -> None:
    """A chart makes no Secret with content: credentials are made on the cluster or brought by the user."""
    for secret in of_kind(objects, "Secret"):
        assert not secret.get("data"), name_of(secret)
        assert not secret.get("stringData"), name_of(secret)


def test_no_secret_is_in_the_open(objects: list[Object]) -> None:
    """Neither environment, command, nor ConfigMap holds a password or a key in the open."""
    for pod in pods(objects):
        for container in pod.containers():
            for variable in container.get("env") or []:
                literal = variable.get("value") and SECRET_NAME.search(variable["name"])
                assert not literal or variable["value"].startswith("/"), f"{pod.owner}: {variable['name']}"
            text = " ".join([*(container.get("command") or []), *(container.get("args") or [])])
            assert not SECRET_WORDS.search(text), f"{pod.owner}: {text}"
    for found in of_kind(objects, "ConfigMap"):
        for key, text in (found.get("data") or {}).items():
            assert not SECRET_WORDS.search(text), f"{name_of(found)}: {key}"


def test_no_default_password_is_anywhere(objects: list[Object]) -> None:
    """None of the passwords that the world knows is in what a chart makes."""
    assert DEFAULT_PASSWORDS.findall(str(objects)) == []
