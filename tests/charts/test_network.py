"""Every pod is behind NetworkPolicies, and what names a pod finds one."""

from __future__ import annotations

from support.charts import NAMESPACE, Case, Object, Pod, is_subchart, name_of, of_kind, pods


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether labels are what a selector wants."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for wanted in selector.get("matchExpressions") or []:
        value, among = labels.get(wanted["key"]), wanted.get("values") or []
        fits = {
            "In": value in among,
            "NotIn": value not in among,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits[wanted["operator"]]:
            return False
    return True


def directions(pod: Pod, policies: list[Object]) -> set[str]:
    """The directions in which a pod's traffic is closed but for what policies allow."""
    return {
        direction
        for policy in policies
        if policy["metadata"].get("namespace", NAMESPACE) == pod.namespace
        and matches(policy["spec"]["podSelector"], pod.labels)
        for direction in policy["spec"]["policyTypes"]
    }


def test_policies_select_every_pod(case: Case, objects: list[Object]) -> None:
    """Each pod's traffic is closed both ways, but for what policies let through; of a subchart alone, one way."""
    policies = of_kind(objects, "NetworkPolicy")
    closed = {pod.owner: directions(pod, policies) for pod in pods(objects)}

    assert [owner for owner, ways in closed.items() if not ways] == []
    if not is_subchart(case.chart):
        assert [owner for owner, ways in closed.items() if ways != {"Ingress", "Egress"}] == []


def test_policies_let_in_nobody_from_everywhere(objects: list[Object]) -> None:
    """No policy lets in whoever comes: each names from where, and the ports."""
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in policy["spec"].get("ingress") or []:
            assert rule.get("from"), f"{name_of(policy)} lets in everybody"
            assert rule.get("ports"), f"{name_of(policy)} opens every port"
            assert {"namespaceSelector": {}} not in rule["from"], f"{name_of(policy)} lets in every namespace"


def test_prometheus_reaches_what_announces_metrics(case: Case, objects: list[Object]) -> None:
    """A pod that says where its metrics are lets Prometheus in at that port; of a subchart alone, if closed."""
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        notes = pod.metadata.get("annotations") or {}
        closing = [one for one in policies if matches(one["spec"]["podSelector"], pod.labels)]
        if notes.get("prometheus.io/scrape") != "true" or not closing:
            continue
        ports = {
            port["port"]
            for policy in closing
            for rule in policy["spec"].get("ingress") or []
            for peer in rule["from"]
            if (peer.get("podSelector") or {}).get("matchLabels", {}).get("app.kubernetes.io/name")
            == "prometheus"
            for port in rule["ports"]
        }
        assert int(notes["prometheus.io/port"]) in ports, pod.owner


def test_models_announce_their_metrics(case: Case, objects: list[Object]) -> None:
    """Every pod of a served model says where its metrics are, whichever engine runs it."""
    for pod in pods(objects):
        if "seatrial.io/model" in pod.labels:
            assert pod.metadata["annotations"]["prometheus.io/path"] == "/metrics", pod.owner


def test_ports_of_models_are_let_in(case: Case, objects: list[Object]) -> None:
    """Each port at which a served model answers, gRPC's too where it is spoken, is let in and served."""
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        if "seatrial.io/model" not in pod.labels:
            continue
        (server,) = [one for one in pod.spec["containers"] if one["name"] == "server"]
        ports = {port["name"]: port["containerPort"] for port in server["ports"]}
        rules = [
            rule
            for policy in policies
            if matches(policy["spec"]["podSelector"], pod.labels)
            for rule in policy["spec"].get("ingress") or []
        ]
        let_in = {port["port"] for rule in rules for port in rule["ports"]}
        assert set(ports.values()) <= let_in, pod.owner
        assert ("--grpc-port=9500" in server["args"]) == ("grpc" in ports), pod.owner
        assert ("grpc" in ports) == ("-all" in str(case)), pod.owner


def test_traces_reach_their_receiver(case: Case, objects: list[Object]) -> None:
    """A served model that is told where its traces go may send them there, and one that is not sends none."""
    policies = of_kind(objects, "NetworkPolicy")
    for pod in pods(objects):
        if "seatrial.io/model" not in pod.labels:
            continue
        (server,) = [one for one in pod.spec["containers"] if one["name"] == "server"]
        told = {one["name"]: one.get("value") for one in server["env"] if one["name"].startswith("OTEL_")}
        let_out = {
            f"http://collector.{peer['namespaceSelector']['matchLabels']['kubernetes.io/metadata.name']}:{port['port']}"
            for policy in policies
            if matches(policy["spec"]["podSelector"], pod.labels)
            for rule in policy["spec"]["egress"]
            for peer in rule["to"]
            if "namespaceSelector" in peer
            for port in rule["ports"]
        }
        assert bool(told) == ("-all" in str(case)), pod.owner
        assert not told or told["OTEL_EXPORTER_OTLP_ENDPOINT"] in let_out, pod.owner


def test_services_find_pods(objects: list[Object]) -> None:
    """Each Service selects a pod, and a port of it by a name or number that the pod has."""
    for service in of_kind(objects, "Service"):
        if not (selector := service["spec"].get("selector")):
            continue
        found = [pod for pod in pods(objects) if matches({"matchLabels": selector}, pod.labels)]
        assert found, f"{name_of(service)} selects no pod"
        names = {
            key
            for pod in found
            for container in pod.containers()
            for port in container.get("ports") or []
            for key in (port.get("name"), port["containerPort"])
        }
        for port in service["spec"]["ports"]:
            assert port.get("targetPort", port["port"]) in names, f"{name_of(service)}: {port}"


def test_budgets_and_scalers_find_their_target(objects: list[Object]) -> None:
    """Each PodDisruptionBudget selects a pod, and each autoscaler names a workload of the chart."""
    names = {name_of(made) for made in objects}
    for budget in of_kind(objects, "PodDisruptionBudget"):
        assert any(matches(budget["spec"]["selector"], pod.labels) for pod in pods(objects)), name_of(budget)
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert f"{target['kind']}/{target['name']}" in names, name_of(scaler)
