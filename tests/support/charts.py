"""The Helm charts as tests see them: which there are, what they render, and the pods in it.

A chart is found by its ``Chart.yaml``, so a new one is tested from its first commit. A chart is
rendered with its defaults, unless its schema asks for a value that has none, and with each of its
``ci/*-values.yaml``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
NAMESPACE = "harbour"
"""The namespace that tests render for; no chart knows its name."""
DEFAULTS = "defaults"
LONG_RUNNING = ("Deployment", "StatefulSet", "DaemonSet", "SeldonDeployment")

Object = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A chart and the values that it is rendered with.

    Attributes:
        chart: The chart's folder.
        values: The file with values; None for the chart's defaults.
    """

    chart: Path
    values: Path | None

    def __str__(self) -> str:
        values = self.values.name.removesuffix("-values.yaml") if self.values else DEFAULTS
        return f"{self.chart.relative_to(CHARTS)}:{values}"


@dataclass(frozen=True)
class Pod:
    """A pod that an object of a chart makes.

    Attributes:
        owner: Kind and name of the object.
        kind: The object's kind.
        spec: The pod's specification.
        metadata: The pod's labels and annotations.
        namespace: Where it will run.
        replicas: How many of it are asked for.
    """

    owner: str
    kind: str
    spec: Object
    metadata: Object
    namespace: str
    replicas: int = 1

    @property
    def labels(self) -> dict[str, str]:
        """The pod's labels."""
        return self.metadata.get("labels") or {}

    @property
    def lasts(self) -> bool:
        """Whether it runs until it is stopped."""
        return self.kind in LONG_RUNNING

    def containers(self) -> Iterator[Object]:
        """Yield all containers, those that run before the others first."""
        yield from self.spec.get("initContainers") or []
        yield from self.spec["containers"]

    def lasting_containers(self) -> Iterator[Object]:
        """Yield the containers that run until the pod is stopped."""
        yield from (c for c in self.spec.get("initContainers") or [] if c.get("restartPolicy") == "Always")
        yield from self.spec["containers"] if self.lasts else []


@dataclass(frozen=True)
class Workload:
    """Where the pods of a kind of object are found.

    Attributes:
        template: Path to the pod's template.
        replicas: Name of the field of its specification that counts them.
    """

    template: tuple[str, ...]
    replicas: str = "replicas"


WORKLOADS = {
    "Pod": Workload(()),
    "Deployment": Workload(("spec", "template")),
    "StatefulSet": Workload(("spec", "template")),
    "DaemonSet": Workload(("spec", "template")),
    "Job": Workload(("spec", "template"), "parallelism"),
    "CronJob": Workload(("spec", "jobTemplate", "spec", "template")),
}


@dataclass
class Refused(Exception):  # noqa: N818 -- that helm refuses is often what a test wants
    """What helm says when it refuses."""

    said: str = field(default="")


def helm_command() -> str | None:
    """Where helm is: ``$HELM``, else on PATH."""
    return os.environ.get("HELM") or shutil.which("helm")


def kubernetes_version() -> str:
    """Return the version of Kubernetes that the charts are checked against, such as ``v1.34.2``."""
    versions = (ROOT / "tool-versions.env").read_text()
    found = re.search(r"^KUBECTL=(v[\d.]+)$", versions, re.MULTILINE)
    assert found, "tool-versions.env says no KUBECTL"
    return found[1]


def charts() -> list[Path]:
    """Return the folders of all charts, subcharts too."""
    return sorted(path.parent for path in CHARTS.rglob("Chart.yaml"))


def is_subchart(chart: Path) -> bool:
    """Whether a chart is a part of another one."""
    return (chart.parents[1] / "Chart.yaml").is_file()


def schema_of(chart: Path) -> Object:
    """Return a chart's schema of values."""
    found: Object = orjson.loads((chart / "values.schema.json").read_bytes())
    return found


def cases() -> list[Case]:
    """Return every chart with every values file of it."""
    found = []
    for chart in charts():
        if not schema_of(chart).get("required"):
            found.append(Case(chart, None))
        found += [Case(chart, path) for path in sorted(chart.glob("ci/*-values.yaml"))]
    return found


def helm_run(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run helm and return what it printed.

    Raises:
        Refused: with its words, if it ends with an error.
    """
    command = helm_command()
    assert command, "tests without the fixture `helm` need none"
    done = subprocess.run(
        [command, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


def template(case: Case, *arguments: str, namespace: str = NAMESPACE, values: Object | None = None) -> str:
    """Render a chart as text.

    Args:
        case: The chart and its values.
        arguments: Further arguments of ``helm template``.
        namespace: The namespace that it is rendered for.
        values: Values that win over the case's.

    Raises:
        Refused: if helm refuses.
    """
    files: list[str | Path] = ["--values", case.values] if case.values else []
    return helm_run(
        "template",
        "trial",
        case.chart,
        "--namespace",
        namespace,
        "--kube-version",
        kubernetes_version(),
        "--include-crds",
        *files,
        *(["--values", "-"] if values is not None else []),
        *arguments,
        stdin=orjson.dumps(values).decode() if values is not None else None,
    )


@cache
def rendered(case: Case) -> list[Object]:
    """Return the objects that a chart makes; nobody may change them."""
    return parse(template(case))


def parse(text: str) -> list[Object]:
    """Return the objects of a YAML stream, as Kubernetes reads it."""
    documents = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return [document for document in documents if document]


def name_of(found: Object) -> str:
    """Kind and name of an object."""
    return f"{found['kind']}/{found['metadata']['name']}"


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def pods(objects: list[Object]) -> list[Pod]:
    """Return every pod that the objects make."""
    found = []
    for made in objects:
        namespace = made["metadata"].get("namespace", NAMESPACE)
        if made["kind"] == "SeldonDeployment":
            found += _seldon_pods(made, namespace)
        elif workload := WORKLOADS.get(made["kind"]):
            pod = made
            for key in workload.template:
                pod = pod[key]
            replicas = (made.get("spec") or {}).get(workload.replicas, 1)
            metadata = pod.get("metadata") or {}
            found.append(Pod(name_of(made), made["kind"], pod["spec"], metadata, namespace, replicas))
    return found


def _seldon_pods(made: Object, namespace: str) -> list[Pod]:
    """Return the pods that the operator makes, with the labels that it gives them."""
    return [
        Pod(
            name_of(made),
            made["kind"],
            part["spec"],
            {
                **(part.get("metadata") or {}),
                "labels": {
                    **(predictor.get("labels") or {}),
                    **((part.get("metadata") or {}).get("labels") or {}),
                    "seldon-deployment-id": made["metadata"]["name"],
                },
            },
            namespace,
            predictor.get("replicas", made["spec"].get("replicas", 1)),
        )
        for predictor in made["spec"]["predictors"]
        for part in predictor["componentSpecs"]
    ]
