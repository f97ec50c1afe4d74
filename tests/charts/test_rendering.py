from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from seatrial import __version__
from support.charts import (
    CHARTS,
    NAMESPACE,
    Case,
    Object,
    charts,
    helm_run,
    is_subchart,
    kubernetes_version,
    name_of,
    of_kind,
    parse,
    template,
)

CLUSTER_WIDE = (
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)
"""Kinds that are in no namespace, so that two releases in one cluster could take each other's."""
SERVICE_HOST = re.compile(r"\b[a-z][a-z0-9-]*\.([a-z][a-z0-9-]*)\.svc\b")


def test_lints(case: Case) -> None:
    """Helm's own lint finds nothing, not even something to warn of."""
    values = ["--values", case.values] if case.values else []

    said = helm_run("lint", "--strict", case.chart, "--namespace", NAMESPACE, *values)

    assert "[WARNING]" not in said


def test_renders_the_same_twice(case: Case) -> None:
    """Nothing is drawn by lot, so what a person reviews is what will be applied."""
    assert template(case) == template(case)


def custom_definitions() -> dict[tuple[str, str], Object]:
    """The schemas of the custom resources that the charts define, by API version and kind."""
    return {
        (f"{made['spec']['group']}/{version['name']}", made["spec"]["names"]["kind"]): version["schema"][
            "openAPIV3Schema"
        ]
        for path in CHARTS.rglob("crds/*.yaml")
        for made in parse(path.read_text())
        for version in made["spec"]["versions"]
    }


def test_objects_are_what_the_api_takes(objects: list[Object]) -> None:
    """Each object fits the API's own schema, with no field that the API does not know."""
    custom = custom_definitions()
    for made in objects:
        if schema := custom.get((made["apiVersion"], made["kind"])):
            jsonschema.Draft202012Validator(schema).validate(made)
        else:
            kubernetes_validate.validate(made, kubernetes_version(), strict=True)


def test_objects_are_made_once(objects: list[Object]) -> None:
    """No two objects of a chart have the same kind, namespace and name."""
    names = [(name_of(made), made["metadata"].get("namespace", NAMESPACE)) for made in objects]

    assert len(set(names)) == len(names)


def test_no_namespace_is_built_in(case: Case, objects: list[Object]) -> None:
    """Objects and the Services that they call are in a namespace that the chart is told, or makes."""
    told = (
        yaml.safe_load(case.values.read_text()).get("global", {}).get("environments", {})
        if case.values
        else {}
    )
    known = {
        NAMESPACE,
        *(made["metadata"]["name"] for made in of_kind(objects, "Namespace")),
        *(environment["namespace"] for environment in told.values() if "namespace" in environment),
    }

    assert {made["metadata"].get("namespace", NAMESPACE) for made in objects} <= known
    assert set(SERVICE_HOST.findall(template(case))) <= known


def test_objects_without_a_namespace_are_told_apart(objects: list[Object]) -> None:
    """What is in no namespace carries the release's in its name, so that two releases do not collide."""
    wide = [name_of(made) for made in of_kind(objects, *CLUSTER_WIDE)]

    assert [name for name in wide if NAMESPACE not in name] == []


@pytest.mark.parametrize("chart", charts(), ids=lambda chart: str(chart.relative_to(CHARTS)))
def test_chart_says_what_it_is(chart: Path) -> None:
    """A chart has the package's version, says in a sentence what it is, and has a README and notes."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text())

    assert about["name"] == chart.name
    assert about["version"] == __version__
    assert about["description"].endswith(".")
    if not is_subchart(chart):
        assert (chart / "README.md").is_file()
        assert (chart / "templates" / "NOTES.txt").is_file()
