"""The schema of a chart's values is closed: a key that is mistyped is refused and not ignored.

Helm ignores an unknown key where the schema says nothing of it, so a schema that is closed at its
top alone is not enough. Every level is tried, by helm itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.charts import CHARTS, Case, Object, Refused, charts, schema_of, template

UNKNOWN = "mistyped"
HANDED_ON = {
    # Keys whose content is handed on as it is, so that it is no business of the chart's to close it.
    "resources": "a ResourceRequirements of Kubernetes",
    "global": "values for all charts of a release, which are helm's",
}


def subcharts(chart: Path) -> set[str]:
    """The keys of a chart's values that switch a subchart on; the rest of them is in the subchart's own schema."""
    keys: Object = schema_of(chart)["properties"]
    return {key for key, part in keys.items() if part.get("required") == ["enabled"]}


def levels(schema: Object, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Object]]:
    """Yield each level of a schema that takes an object, with its place: ``[]`` is an item, ``*`` any key."""
    if schema.get("type") == "object" or "properties" in schema:
        yield place, schema
    for key, part in (schema.get("properties") or {}).items():
        yield from levels(part, (*place, key))
    for word, step in (("additionalProperties", "*"), ("items", "[]")):
        if isinstance(part := schema.get(word), dict):
            yield from levels(part, (*place, step))
    for word in ("oneOf", "anyOf", "allOf"):
        for part in schema.get(word) or []:
            yield from levels(part, place)


def values_at(place: tuple[str, ...], value: Any) -> Any:
    """Return values that have ``value`` at a place."""
    for step in reversed(place):
        value = [value] if step == "[]" else {"any" if step == "*" else step: value}
    return value


def own_levels(chart: Path) -> list[tuple[tuple[str, ...], Object]]:
    """The levels of a chart's schema that are its own to close."""
    parts = subcharts(chart)
    return [(place, schema) for place, schema in levels(schema_of(chart)) if not parts & set(place[:1])]


CHART_IDS = {"argvalues": charts(), "ids": lambda chart: str(chart.relative_to(CHARTS))}


@pytest.mark.parametrize("chart", **CHART_IDS)
def test_schema_is_closed(chart: Path) -> None:
    """Every level says which keys it takes, or of what kind the values of all keys are."""
    open_levels = [
        ".".join(place)
        for place, schema in own_levels(chart)
        if schema.get("additionalProperties", True) is True and not HANDED_ON.keys() & set(place[-1:])
    ]

    assert open_levels == []


def first_case(chart: Path) -> Case:
    """The chart with its defaults, or with the first of its values files where it wants some."""
    files = sorted(chart.glob("ci/*-values.yaml"))
    return Case(chart, files[0] if schema_of(chart).get("required") else None)


@pytest.mark.parametrize("chart", **CHART_IDS)
def test_helm_refuses_an_unknown_key_at_each_level(chart: Path, helm: str) -> None:
    """A key that nobody knows is refused wherever it stands, and helm names it."""
    accepted = []
    for place, schema in own_levels(chart):
        if schema.get("additionalProperties") is not False:
            continue
        try:
            template(first_case(chart), values=values_at(place, {UNKNOWN: 1}))
        except Refused as refused:
            if UNKNOWN not in refused.said:
                accepted.append(f"{'.'.join(place)}: {refused.said}")
        else:
            accepted.append(".".join(place))

    assert accepted == []


@pytest.mark.parametrize("chart", **CHART_IDS)
def test_parts_that_can_be_switched_are_there(chart: Path) -> None:
    """What the schema switches on and off are the subcharts that the chart has, each by a condition."""
    parts = yaml.safe_load((chart / "Chart.yaml").read_text()).get("dependencies") or []

    assert {part["name"]: part["condition"] for part in parts} == {
        name: f"{name}.enabled" for name in subcharts(chart)
    }


@pytest.mark.parametrize("chart", **CHART_IDS)
def test_every_key_is_described(chart: Path) -> None:
    """Each key of the schema says what it is for, as the reference is made of it."""
    silent = [
        ".".join((*place, key))
        for place, schema in own_levels(chart)
        for key, part in (schema.get("properties") or {}).items()
        if not part.get("description") and "$ref" not in part
    ]

    assert silent == []


@pytest.mark.parametrize("chart", **CHART_IDS)
def test_values_and_schema_have_the_same_keys(chart: Path) -> None:
    """The defaults show every key that the schema takes, so a reader of one knows the other."""
    values = yaml.safe_load((chart / "values.yaml").read_text()) or {}
    missing = []
    for place, schema in own_levels(chart):
        if {"[]", "*", *HANDED_ON} & set(place):
            continue
        found: Any = values
        for key in place:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            keys = (schema.get("properties") or {}).keys() - subcharts(chart) - HANDED_ON.keys()
            required = set(schema.get("required") or []) if not place else set()
            missing += [".".join((*place, key)) for key in sorted(keys - found.keys() - required)]

    assert missing == []
