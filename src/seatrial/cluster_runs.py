"""The pipelines as a cluster runs them: compiled for one environment, with all that its pods need.

What the steps do is said by ``pipelines/`` and ``components/``, which are the same here and on a
laptop. What only a pod needs is added to the compiled pipeline: credentials from the environment's
Secrets, the keys that are trusted there, the signing key for the one step that signs, memory and
processor, and another try for a step that died. So nobody has to give any of it on the Kubeflow
page, and a model's author never sees it.

Kubeflow's cache is off for every step: it compares the inputs of a step, and most of ours also look
at the workspace, which has moved on since (threats: K6). A step that is tried again does no harm,
as what it writes is create-only or one commit.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.bundle.signing import KEY_VARIABLE, TRUST_VARIABLE
from seatrial.errors import UsageError
from seatrial.local_runs import compile_pipeline
from seatrial.workspace import WORKSPACE_VARIABLE

PIPELINES = ("training", "monitoring")
_ENVIRONMENT = re.compile(r"[a-z]([a-z0-9-]{0,46}[a-z0-9])?")
"""Its name is a part of names of Kubernetes objects."""
TRUST_FOLDER = "/etc/seatrial/trust"
KEY_FOLDER = "/etc/seatrial/signing-key"
SIGNING_KEY = "signing-key.pem"
SIGNS = "bundle"
"""The one component that gets the signing key."""
SECRET_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_ALLOW_HTTP",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_URI",
    WORKSPACE_VARIABLE,
)
"""What an environment's Secret says, each as the variable of that name in every step."""
# On a cluster the one is what a person typed, for any number of runs; kfp.local knows the other one not at all.
_TYPED_NAME, _UNIQUE_NAME = "{{$.pipeline_job_name}}", "{{$.pipeline_job_resource_name}}"


@dataclass(frozen=True)
class Resources:
    """What a step's pod asks for, as Kubernetes writes quantities.

    Attributes:
        memory: Memory that the node sets aside.
        memory_limit: Memory above which the pod is ended.
        processor: Processor time that the node sets aside.
    """

    memory: str
    memory_limit: str
    processor: str = "100m"

    def to_json(self) -> dict[str, str]:
        """Return them as the compiled pipeline has them."""
        return {
            "resourceMemoryRequest": self.memory,
            "resourceMemoryLimit": self.memory_limit,
            "resourceCpuRequest": self.processor,
        }


_USUAL = Resources("384Mi", "2Gi")
_LARGER = {
    name: Resources("768Mi", "4Gi", "200m")
    for name in ("validate", "features", "train", "evaluate", "monitor", "draw")
}


def pipeline_name(name: str, environment: str) -> str:
    """Return what a pipeline is called on the cluster, such as ``training-test``."""
    return f"{name}-{environment}"


def secret_name(environment: str) -> str:
    """Return the name of the Secret with an environment's addresses and credentials."""
    return f"environment-{environment}"


def signing_key_name(environment: str) -> str:
    """Return the name of the Secret with the key that signs an environment's bundles."""
    return f"signing-key-{environment}"


def trust_root_name(environment: str) -> str:
    """Return the name of the ConfigMap with the public keys that an environment trusts."""
    return f"trust-root-{environment}"


def compile_for_cluster(name: str, path: Path, environment: str) -> None:
    """Write a pipeline as YAML that a Kubeflow Pipelines backend runs for an environment.

    The file holds the pipeline and, as a second document, its Kubernetes settings, as the KFP SDK,
    its command line and the Kubeflow page take it.

    Args:
        name: Name of the pipeline: ``training`` or ``monitoring``.
        path: The file to write.
        environment: Name of the environment, whose Secrets lie in the platform's namespace.

    Raises:
        UsageError: if there is no such pipeline, or an environment cannot be called so.
    """
    from ruamel.yaml import YAML

    if not _ENVIRONMENT.fullmatch(environment):
        raise UsageError(
            f"An environment's name on a cluster must match {_ENVIRONMENT.pattern}. Got {environment!r} instead.",
            remedy="Name one of the platform's chart, such as test.",
        )
    compile_pipeline(name, path)
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 4096
    specification = yaml.load(path.read_text(encoding="utf-8").replace(_TYPED_NAME, _UNIQUE_NAME))
    _name(specification, name, environment)
    for task in _tasks(specification):
        # No retries either: of a task that asks for some, Argo tries all failures again, and as soon. Those of the
        # platform (`steps.retries` of its chart) are for what is no fault of the step, and wait for a service.
        task["cachingOptions"] = {}
    executors = specification["deploymentSpec"]["executors"]
    for label, executor in executors.items():
        _equip(executor["container"], _component(label))
    settings = {label: _settings(_component(label), environment) for label in executors}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": settings}}}}
    text = io.StringIO()
    yaml.dump_all([specification, platform], text)
    path.write_text(text.getvalue(), encoding="utf-8")


def _name(specification: dict[str, Any], name: str, environment: str) -> None:
    """Name the pipeline for its environment, and give its parameters that environment's values."""
    facts = specification["pipelineInfo"]
    facts["name"] = pipeline_name(name, environment)
    facts["displayName"] = f"{facts['displayName']} ({environment})"
    parameters = specification["root"]["inputDefinitions"]["parameters"]
    # An empty address means the one of the environment's Secret, so it is said in one place.
    for parameter, value in (("environment", environment), ("workspace", "")):
        parameters[parameter] |= {"defaultValue": value, "isOptional": True}
    parameters["workspace"]["description"] += f" Empty: that of the environment {environment}."


def _tasks(specification: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every task, also those of pipelines and conditions within."""
    for component in (specification["root"], *specification["components"].values()):
        if "dag" in component:
            yield from component["dag"]["tasks"].values()


def _component(label: str) -> str:
    """Return the component of an executor: the second use of one is called ``exec-ingest-2``."""
    return re.sub(r"^exec-|-\d+$", "", label)


def _equip(container: dict[str, Any], component: str) -> None:
    """Say where a step's mounted files lie, and what its pod asks for."""
    places = {TRUST_VARIABLE: TRUST_FOLDER}
    if component == SIGNS:
        places[KEY_VARIABLE] = f"{KEY_FOLDER}/{SIGNING_KEY}"
    container["env"] = [{"name": name, "value": value} for name, value in places.items()]
    container["resources"] = _LARGER.get(component, _USUAL).to_json()


def _settings(component: str, environment: str) -> dict[str, Any]:
    """Return an executor's Kubernetes settings, as the backend's ``KubernetesExecutorConfig`` has them."""
    variables = [{"secretKey": key, "envVar": key} for key in SECRET_KEYS]
    settings: dict[str, Any] = {
        "secretAsEnv": [{"secretName": secret_name(environment), "keyToEnv": variables}],
        "configMapAsVolume": [{"configMapName": trust_root_name(environment), "mountPath": TRUST_FOLDER}],
    }
    if component == SIGNS:
        settings["secretAsVolume"] = [{"secretName": signing_key_name(environment), "mountPath": KEY_FOLDER}]
    return settings
