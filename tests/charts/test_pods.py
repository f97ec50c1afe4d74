"""Every pod of every chart runs as little as it can: what Pod Security "restricted" asks for, and more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from support.charts import Case, Object, Pod, cases, of_kind, pods, rendered
from support.policy_exceptions import EXCEPTIONS

MOST_MEMORY = 4 * 2**30
UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "m": Decimal("0.001"),
}
MOVING_TAGS = {"latest", "main", "master", "edge", "stable", "nightly"}

Rule = Callable[[Pod, Object], bool]


def effective(pod: Pod, container: Object, key: str) -> object:
    """A field of the security context: the container's, else the pod's."""
    own = container.get("securityContext") or {}
    shared = pod.spec.get("securityContext") or {}
    return own.get(key, shared.get(key))


def quantity(text: str) -> Decimal:
    """Return a quantity of Kubernetes such as ``512Mi`` as a number."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert found, f"{text!r} is no quantity"
    return Decimal(found[1]) * UNITS[found[2]]


def runs_as_a_numbered_user(pod: Pod, container: Object) -> bool:
    user = effective(pod, container, "runAsUser")
    return effective(pod, container, "runAsNonRoot") is True and isinstance(user, int) and user > 0


def has_a_read_only_root(_: Pod, container: Object) -> bool:
    return (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is True


def drops_all_capabilities(_: Pod, container: Object) -> bool:
    return (container.get("securityContext") or {}).get("capabilities") == {"drop": ["ALL"]}


def cannot_gain_privileges(_: Pod, container: Object) -> bool:
    context = container.get("securityContext") or {}
    return context.get("allowPrivilegeEscalation") is False and not context.get("privileged")


def has_the_default_seccomp_profile(pod: Pod, container: Object) -> bool:
    return effective(pod, container, "seccompProfile") == {"type": "RuntimeDefault"}


def asks_for_resources(_: Pod, container: Object) -> bool:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return {"cpu", "memory"} <= requests.keys() and "memory" in limits


def limit_is_no_less_than_the_request(_: Pod, container: Object) -> bool:
    resources = container.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    return all(quantity(limits[key]) >= quantity(requests[key]) for key in limits.keys() & requests.keys())


def names_a_version(_: Pod, container: Object) -> bool:
    _, _, last = container["image"].rpartition("/")
    _, colon, tag = last.partition(":")
    return "@sha256:" in container["image"] or (bool(colon) and tag not in MOVING_TAGS)


def is_pulled_if_absent(_: Pod, container: Object) -> bool:
    return container.get("imagePullPolicy") == "IfNotPresent"


def opens_no_port_of_the_node(_: Pod, container: Object) -> bool:
    return not any("hostPort" in port for port in container.get("ports") or [])


RULES: tuple[Rule, ...] = (
    runs_as_a_numbered_user,
    has_a_read_only_root,
    drops_all_capabilities,
    cannot_gain_privileges,
    has_the_default_seccomp_profile,
    asks_for_resources,
    limit_is_no_less_than_the_request,
    names_a_version,
    is_pulled_if_absent,
    opens_no_port_of_the_node,
)


def broken(rule: str, objects: list[Object]) -> Iterator[str]:
    """Yield the places that break a rule: object and container, or the object alone."""
    by_name = {found.__name__: found for found in RULES}
    for pod in pods(objects):
        if rule in by_name:
            bad = [c for c in pod.containers() if not by_name[rule](pod, c)]
        elif rule == "has_probes":
            bad = [c for c in pod.lasting_containers() if not {"livenessProbe", "readinessProbe"} <= c.keys()]
        else:
            bad = []
        yield from (f"{pod.owner}/{container['name']}" for container in bad)


POD_RULES = [*(rule.__name__ for rule in RULES), "has_probes"]


@pytest.mark.parametrize("rule", POD_RULES)
def test_containers_keep_the_rules(objects: list[Object], rule: str) -> None:
    """Each container of each pod keeps the rule, or is on the list of exceptions with a reason."""
    assert [place for place in broken(rule, objects) if (rule, place) not in EXCEPTIONS] == []


def test_pods_share_nothing_with_the_node(objects: list[Object]) -> None:
    """No pod sees the node's network, processes or files."""
    for pod in pods(objects):
        assert not any(pod.spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), pod.owner
        assert not any("hostPath" in volume for volume in pod.spec.get("volumes") or []), pod.owner


def test_pods_get_a_token_if_they_have_rights(objects: list[Object]) -> None:
    """A pod says whether it wants a token of the API; only one whose account has rights gets one."""
    accounts = {
        (subject["name"], subject.get("namespace"))
        for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
        if subject["kind"] == "ServiceAccount"
    }
    for pod in pods(objects):
        wants = pod.spec.get("automountServiceAccountToken")
        assert isinstance(wants, bool), f"{pod.owner} does not say automountServiceAccountToken"
        if wants:
            assert (pod.spec.get("serviceAccountName"), pod.namespace) in accounts, pod.owner


def test_platform_fits(case: Case, objects: list[Object]) -> None:
    """All pods together that a chart keeps running ask for at most 4 GiB of memory."""
    asked = sum(
        pod.replicas
        * max(
            sum(quantity(c["resources"]["requests"]["memory"]) for c in pod.lasting_containers()),
            max((quantity(c["resources"]["requests"]["memory"]) for c in pod.containers()), default=0),
        )
        for pod in pods(objects)
        if pod.lasts
    )

    assert asked <= MOST_MEMORY, f"{case} asks for {asked / 2**20:.0f} MiB"


def test_exceptions_are_needed(helm: str) -> None:
    """An exception that nothing needs any more is taken off the list, and each has a reason."""
    needed = {
        (rule, place) for rule in POD_RULES for found in cases() for place in broken(rule, rendered(found))
    }

    assert {key for key in EXCEPTIONS if key[0] in POD_RULES} - needed == set()
    assert all(EXCEPTIONS.values())
