"""Kubeflow Pipelines and Argo Workflows agree with each other, in each version, and with what their steps look for."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
import yaml

from seatrial.errors import StoreError
from seatrial.images import PIPELINE_IMAGE
from seatrial.store_access import StoreAccess
from seatrial.workspace import store_errors
from support.charts import CHARTS, NAMESPACE, Case, Object, Refused, of_kind, parse, pods, rendered, template

ORDER = "$setElementOrder/containers"
ARGO = Case(CHARTS / "platform" / "charts" / "argo-workflows", None)
KUBEFLOW = Case(CHARTS / "platform" / "charts" / "kubeflow-pipelines", None)
PLATFORM = Case(CHARTS / "platform", None)
PODS: Object = {"global": {"kubeflowPipelines": {"drivers": "pods"}}}
ARCHIVED: Object = {"archiveLogs": {"enabled": True}}
NEWER: Object = {"global": {"kubeflowPipelines": {"version": "2.17.0"}}}


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one object of that kind and name."""
    (found,) = (made for made in of_kind(objects, kind) if made["metadata"]["name"] == name)
    return found


def controller_settings(objects: list[Object]) -> dict[str, Any]:
    """The settings of Argo's controller, each as YAML."""
    data = named(objects, "ConfigMap", "workflow-controller-configmap")["data"]
    return {key: yaml.safe_load(text) for key, text in data.items()}


def environment(objects: list[Object], deployment: str) -> dict[str, str]:
    """The literal environment variables of a Deployment's first container."""
    container = named(objects, "Deployment", deployment)["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def patches(objects: list[Object]) -> tuple[str, str]:
    """The patches of a step's pod and of a driver's, out of Argo's expression."""
    expression = controller_settings(objects)["workflowDefaults"]["spec"]["podSpecPatch"]
    assert expression.startswith("{{=")
    assert expression.endswith("}}")
    assert "}}" not in expression[:-2], "two closing braces end Argo's expression"
    step, driver, other = re.findall(r"'(\{[^']*)'", expression)
    assert json.loads(other) == {}
    return step, driver


@pytest.mark.parametrize("values", [{}, NEWER], ids=["tested", "newer"])
def test_one_value_chooses_all_versions(helm: str, values: Object) -> None:
    """All images of Kubeflow Pipelines have one version, and Argo the one that goes with it."""
    wanted = {"kubeflow/kfp": "2.17.0", "argoproj/": "v4.0.5"}
    if not values:
        wanted = {"kubeflow/kfp": "2.14.3", "argoproj/": "v3.6.18"}
    found = template(ARGO, values=values) + template(KUBEFLOW, values=values)

    for repositories, tag in wanted.items():
        assert set(re.findall(rf"/{repositories}[a-z-]+:([^\s\"]+)", found)) == {tag}


def test_steps_are_restricted_by_settings_alone(helm: str) -> None:
    """Every container of a step's pod gets what Pod Security "restricted" asks for, without the pipeline's doing."""
    objects = rendered(ARGO)
    settings = controller_settings(objects)
    pod = settings["workflowDefaults"]["spec"]["securityContext"]
    (launcher,) = json.loads(patches(objects)[0])["initContainers"]

    assert (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert pod["runAsUser"] > 0
    assert launcher["name"] == "kfp-launcher"
    for container in (settings["executor"], settings["mainContainer"], launcher):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("values", [{}, NEWER], ids=["tested", "newer"])
def test_steps_may_write_to_their_volumes(helm: str, values: Object) -> None:
    """A step's pod has its group on its volumes, also where Kubeflow writes a security context of its own."""
    objects = parse(template(ARGO, values=values))
    everywhere = controller_settings(objects)["workflowDefaults"]["spec"]["securityContext"]
    patched = json.loads(patches(objects)[0]).get("securityContext", {} if values else everywhere)

    assert patched.get("fsGroup") == everywhere["runAsUser"]


def test_drivers_are_patched_where_they_are(helm: str) -> None:
    """A driver's pod gets its resources, and no container that it does not have."""
    driver = json.loads(patches(rendered(ARGO))[1])

    assert set(driver) == {"containers", ORDER}
    assert [(container["name"], list(container)) for container in driver["containers"]] == [
        ("main", ["name", "resources"])
    ]


def test_work_starts_before_what_waits_for_it(helm: str) -> None:
    """In the pods of steps and drivers, the container that works is started first."""
    for patch in patches(rendered(ARGO))[:2]:
        assert [container["name"] for container in json.loads(patch)[ORDER]] == ["main", "wait"]


def test_steps_are_labelled_for_what_they_reach(helm: str) -> None:
    """Pods of runs carry the labels of the services that they use, and a policy selects them."""
    objects = rendered(ARGO)
    labels = controller_settings(objects)["workflowDefaults"]["spec"]["podMetadata"]["labels"]
    policy = named(objects, "NetworkPolicy", "pipeline-step")["spec"]

    assert {key for key in labels if key.startswith("access.")} == {
        f"access.seatrial.io/{service}" for service in ("minio", "mlflow", "pipelines", "metadata")
    }
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert "ingress" not in policy


def test_page_looks_for_logs_where_argo_puts_them(helm: str) -> None:
    """Bucket and keys of archived logs are the same on both sides."""
    store = controller_settings(parse(template(ARGO, values=ARCHIVED)))["artifactRepository"]["s3"]
    page = environment(rendered(KUBEFLOW), "ml-pipeline-ui")

    assert page["ARGO_KEYFORMAT"] == store["keyFormat"]
    assert page["ARGO_ARCHIVE_BUCKETNAME"] == store["bucket"]
    assert f"{page['MINIO_HOST'].split('.')[0]}:{page['MINIO_PORT']}" == store["endpoint"]
    assert page["MINIO_NAMESPACE"] == ""


def test_page_does_not_sign_with_the_key_of_the_store(helm: str) -> None:
    """2.17.0 prints what it signs with, which is that key where nothing else is named: here, its pod's own id."""
    page = named(rendered(KUBEFLOW), "Deployment", "ml-pipeline-ui")["spec"]["template"]["spec"]
    sources = {variable["name"]: variable.get("valueFrom") for variable in page["containers"][0]["env"]}
    assert sources["TENSORBOARD_PROXY_SIGNING_SECRET"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


@pytest.mark.parametrize("endpoint", ["", "https://s3.example.org"], ids=["own", "external"])
def test_all_use_one_object_store(helm: str, endpoint: str) -> None:
    """API server, launcher, page and Argo speak to the same store, with or without TLS, by the same Secret."""
    values = {"global": {"objectStore": {"external": {"endpoint": endpoint}}}}
    objects = parse(template(KUBEFLOW, values=values))
    argo = controller_settings(parse(template(ARGO, values=values | ARCHIVED)))["artifactRepository"]["s3"]
    api = json.loads(named(objects, "ConfigMap", "ml-pipeline")["data"]["config.json"])["ObjectStoreConfig"]
    launcher = yaml.safe_load(named(objects, "ConfigMap", "kfp-launcher")["data"]["providers"])["minio"][
        "default"
    ]
    page = environment(objects, "ml-pipeline-ui")
    wanted = ("s3.example.org", "443") if endpoint else (f"minio.{NAMESPACE}.svc", "9000")

    assert (api["Host"], api["Port"]) == wanted
    assert launcher["endpoint"] == argo["endpoint"] == (":".join(wanted) if endpoint else "minio:9000")
    assert (page["MINIO_HOST"], page["MINIO_PORT"]) == wanted
    assert (api["Secure"] == "true", not launcher["disableSSL"], not argo["insecure"]) == (
        bool(endpoint),
    ) * 3
    assert launcher["credentials"]["secretRef"]["secretName"] == argo["accessKeySecret"]["name"]


@pytest.mark.parametrize("values", [{}, NEWER], ids=["tested", "newer"])
def test_api_server_reads_settings_of_the_chart_alone(helm: str, values: Object) -> None:
    """Its settings replace those of the image, which hold keys that the world knows and a plugin of a vendor."""
    objects = parse(template(KUBEFLOW, values=values))
    settings = json.loads(named(objects, "ConfigMap", "ml-pipeline")["data"]["config.json"])
    pod = named(objects, "Deployment", "ml-pipeline")["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}

    assert mounts["/config"] == "config"
    assert "plugins" not in settings
    assert not {"AccessKey", "SecretAccessKey"} & settings["ObjectStoreConfig"].keys()
    assert "Password" not in settings["DBConfig"]["MySQLConfig"]


@pytest.mark.parametrize(
    ("values", "enabled"),
    [
        ({}, True),
        (PODS, False),
        ({"apiServer": {"cache": False}}, False),
        ({**PODS, "apiServer": {"cache": True}}, True),
    ],
    ids=["checked", "unchecked", "off", "on whoever looks"],
)
def test_no_step_is_answered_from_a_cache_that_nobody_checks(
    helm: str, values: Object, *, enabled: bool
) -> None:
    """On where the driver service looks, and off elsewhere, unless somebody who knows better says so (K6)."""
    config = named(parse(template(KUBEFLOW, values=values)), "ConfigMap", "ml-pipeline")["data"]

    assert json.loads(config["config.json"])["CacheEnabled"] == json.dumps(enabled)


@pytest.mark.parametrize("endpoint", ["", "https://s3.example.org"], ids=["own", "external"])
@pytest.mark.parametrize("cache", ["checked", True, False])
def test_the_driver_service_looks_where_the_cache_answers(
    helm: str, cache: str | bool, endpoint: str
) -> None:
    """It is told whom to ask, and reaches the store with the steps' keys; without a cache it has none of it."""
    values = {"apiServer": {"cache": cache}, "global": {"objectStore": {"external": {"endpoint": endpoint}}}}
    objects = parse(template(KUBEFLOW, values=values))
    pod = named(objects, "Deployment", "ml-pipeline-driver")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    services = {
        f"{one['metadata']['name']}:{port['port']}"
        for one in of_kind(objects, "Service")
        for port in one["spec"]["ports"]
    }
    secrets = {
        one["valueFrom"].get("secretKeyRef", {}).get("name") for one in container["env"] if "valueFrom" in one
    }

    assert ("access.seatrial.io/minio" in pod["metadata"]["labels"]) == bool(cache)
    assert ("mlpipeline-minio-artifact" in secrets) == bool(cache)
    if not cache:
        assert "--check-cache" not in container["args"]
        return
    at = container["args"].index("--check-cache")
    assert container["args"][at + 1 :] == ["ml-pipeline:8887", "metadata-grpc-service:8080"]
    assert set(container["args"][at + 1 :]) <= services
    url = environment(objects, "ml-pipeline-driver")["AWS_ENDPOINT_URL"]
    assert url == (endpoint or f"http://minio.{NAMESPACE}.svc:9000")


def test_services_have_the_names_that_steps_dial(helm: str) -> None:
    """Names, and the order of the ports, are those that drivers, launchers and the page assume."""
    ports = {
        service["metadata"]["name"]: [(port["name"], port["port"]) for port in service["spec"]["ports"]]
        for service in of_kind(rendered(KUBEFLOW), "Service")
    }

    assert ports["ml-pipeline"] == [("http", 8888), ("grpc", 8887)]
    assert ports["metadata-grpc-service"] == [("grpc-api", 8080)]
    assert ports["metadata-envoy-service"] == [("grpc-web", 9090)]
    assert ports["ml-pipeline-ui"] == [("http", 80)]


def test_steps_may_do_little(helm: str) -> None:
    """The account of steps can report, and read two objects by name: no pods, no other Secrets."""
    rules = named(rendered(KUBEFLOW), "Role", "pipeline-runner")["rules"]

    assert [(rule["resources"], rule["verbs"], rule.get("resourceNames")) for rule in rules] == [
        (["workflowtaskresults"], ["create", "patch"], None),
        (["configmaps"], ["get"], ["kfp-launcher"]),
        (["secrets"], ["get"], ["mlpipeline-minio-artifact"]),
    ]


def test_runs_are_held_where_somebody_lets_them_go(helm: str) -> None:
    """Argo holds a run exactly where the service is that lets it go."""
    for case, values, held in ((PLATFORM, {}, True), (PLATFORM, PODS, False), (ARGO, {}, False)):
        objects = parse(template(case, values=values))
        there = any(
            found["metadata"]["name"] == "ml-pipeline-driver" for found in of_kind(objects, "Deployment")
        )
        assert (controller_settings(objects)["workflowDefaults"]["spec"].get("suspend") is True, there) == (
            held,
            held,
        )


def test_runs_that_nobody_would_let_go_are_refused(helm: str) -> None:
    """The value to change is named."""
    without: Object = {"kubeflow-pipelines": {"enabled": False}}
    with pytest.raises(Refused, match=r"set global\.kubeflowPipelines\.drivers=pods"):
        template(PLATFORM, values=without)

    template(PLATFORM, values={**without, **PODS})


@pytest.mark.parametrize("values", [{}, NEWER], ids=["tested", "newer"])
def test_the_driver_service_runs_the_driver_of_that_version(helm: str, values: Object) -> None:
    """The program comes from the image that drivers' pods would have, and one service works at a time."""
    objects = parse(template(KUBEFLOW, values=values))
    deployment = named(objects, "Deployment", "ml-pipeline-driver")["spec"]
    (program,) = deployment["template"]["spec"]["initContainers"]
    version = values.get("global", {}).get("kubeflowPipelines", {}).get("version", "2.14.3")

    assert program["image"] == environment(objects, "ml-pipeline")["V2_DRIVER_IMAGE"]
    assert program["image"].endswith(f"kfp-driver:{version}")
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    (service,) = deployment["template"]["spec"]["containers"]
    own = f"--launcher-in={PIPELINE_IMAGE}=/opt/kubeflow/launcher-2.14.3"
    assert (own in service["args"]) == (not values), "the image has one version's launcher"


def test_two_controllers_cannot_work_at_once(helm: str) -> None:
    """An upgrade ends the old controller first, and each holds a lease in its own name."""
    deployment = named(rendered(ARGO), "Deployment", "workflow-controller")["spec"]
    variables = {
        variable["name"]: variable for variable in deployment["template"]["spec"]["containers"][0]["env"]
    }

    assert deployment["strategy"] == {"type": "Recreate"}
    assert variables["LEADER_ELECTION_IDENTITY"]["valueFrom"]["fieldRef"] == {"fieldPath": "metadata.name"}
    assert "LEADER_ELECTION_DISABLE" not in variables


def test_bad_annotation_is_refused_in_this_namespace_alone(helm: str) -> None:
    """The policy against the annotation that crashes the controller denies, and only in its own namespace."""
    objects = rendered(ARGO)
    (policy,) = of_kind(objects, "ValidatingAdmissionPolicy")
    (binding,) = of_kind(objects, "ValidatingAdmissionPolicyBinding")

    assert policy["spec"]["failurePolicy"] == "Fail"
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    assert binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": NAMESPACE
    }


def test_both_fit(helm: str) -> None:
    """What runs all the time asks for at most 1.6 GiB of memory, of the 4 GiB of the whole platform."""
    asked = [
        Decimal(container["resources"]["requests"]["memory"].removesuffix("Mi"))
        for case in (ARGO, KUBEFLOW)
        for pod in pods(rendered(case))
        for container in pod.lasting_containers()
    ]

    assert sum(asked) <= Decimal("1.6") * 1024


def transient(objects: list[Object]) -> str:
    """The pattern by which the controller tells what is no fault of a step."""
    container = named(objects, "Deployment", "workflow-controller")["spec"]["template"]["spec"]["containers"][
        0
    ]
    (pattern,) = (v["value"] for v in container["env"] if v["name"] == "TRANSIENT_ERROR_PATTERN")
    assert isinstance(pattern, str)
    return pattern


@pytest.mark.parametrize(
    ("message", "again"),
    [
        ("pod deleted", True),
        ("The node was low on resource: memory. Threshold quantity: 100Mi", True),
        ("Pod was terminated in response to imminent node shutdown.", True),
        ("OOMKilled (exit code 137)", True),
        ("Error (exit code 143)", True),
        ("Error (exit code 1): rpc error: code = Unavailable desc = connection error", True),
        ("Error (exit code 1): Put http://minio:9000/x: dial tcp 10.96.0.1:9000: connect: refused", True),
        ("Error (exit code 2): panic: ... component.(*LauncherV2).publish(0x1?, ...)", True),
        ("Error (exit code 2)", True),
        ("Error (exit code 1): seatrial: the gate failed", False),
        ("Error (exit code 1): a log that says Error (exit code 2)", False),
        ("Error (exit code 14): ValueError", False),
        ("", False),
    ],
)
def test_only_what_is_no_fault_of_a_step_is_tried_again(helm: str, message: str, again: bool) -> None:
    """Messages of lost pods and of services that do not answer are transient; a step's own failure is not."""
    assert bool(re.search(transient(rendered(ARGO)), message)) == again


def test_a_step_of_ours_whose_store_failed_is_tried_again(helm: str) -> None:
    """What it says of a store that does not answer is known to the platform, whosever it is."""
    pattern = transient(rendered(ARGO))
    for owner in ("", "staging"):
        with pytest.raises(StoreError) as caught, store_errors("reading a table", StoreAccess(owner)):
            raise OSError("connection refused")
        assert re.search(pattern, f"Error (exit code 1): seatrial.errors.StoreError: {caught.value}")


def test_retries_of_a_pipeline_are_left_alone(helm: str) -> None:
    """The default is the workflow's and not merged into templates, where it would change what a pipeline asked for."""
    spec = controller_settings(rendered(ARGO))["workflowDefaults"]["spec"]

    assert spec["retryStrategy"]["retryPolicy"] == "OnTransientError"
    assert "retryStrategy" not in spec.get("templateDefaults", {})
