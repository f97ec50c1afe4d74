"""What the server tells Prometheus is what documents, rules and dashboard say that it does."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from tests.local.serving.conftest import Ferry, crossings, outputs

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "charts" / "platform" / "charts" / "prometheus" / "files"
ROWS = crossings(1, start=datetime(2024, 2, 1, tzinfo=UTC), seed=5)
FROM_THE_POD = {"namespace", "pod", "model"}
"""Labels that Prometheus gives to every series of a pod (``seatrial.cluster_setup.scrape_targets``)."""


@pytest.fixture
def families(ferry: Ferry) -> list[Metric]:
    """What a server shows that has answered, refused and learned."""
    with ferry.serve() as server:
        (name,) = outputs(server.infer(ROWS[:1]))["prediction_id"]
        server.feedback({"prediction_id": name, "value": True})
        server.post("/v2/models/ferry/infer", b"{}")
        host = server.address.removeprefix("http://")
        with closing(http.client.HTTPConnection(host, timeout=30)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
    return list(text_string_to_metric_families(text))


def queries() -> list[str]:
    """Return every expression of the rules and the dashboard."""
    rules = re.findall(r"^ +expr: (.+)$", (PROMETHEUS / "rules.yaml").read_text(), re.MULTILINE)
    dashboard = json.loads((PROMETHEUS / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [*rules, *panels, *(one.get("definition", "") for one in dashboard["templating"]["list"])]


def test_rules_and_dashboard_read_what_is_there(families: list[Metric]) -> None:
    """Each series that a rule or a panel reads is one that the server shows, and so is each label of it."""
    shown = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    read = [found for query in queries() for found in re.findall(r"\b(seatrial_\w+)(?:{([^}]*)})?", query)]
    assert len(read) > 8
    for name, matchers in read:
        assert name in shown, f"{name} is read and not shown"
        wanted = set(re.findall(r"(\w+)(?:=~|!=|!~|=)", matchers))
        assert wanted <= shown[name] | FROM_THE_POD, f"{name}{{{matchers}}}"


def test_grouped_labels_are_there(families: list[Metric]) -> None:
    """What a rule sums by is a label that the series have."""
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    for query in queries():
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(re.split(r", *", group)) <= labels | FROM_THE_POD, query


def test_every_metric_is_explained(families: list[Metric]) -> None:
    """Each of the server's own metrics is in the reference, under its name, and nothing else is."""
    page = (ROOT / "docs" / "reference" / "server.md").read_text()
    explained = set(re.findall(r"`(seatrial_\w+)", page))
    kinds = {"counter": "_total", "info": "_info"}
    own = {
        family.name + kinds.get(family.type, "") * (not family.name.endswith(kinds.get(family.type, " ")))
        for family in families
        if family.name.startswith("seatrial_")
    }
    assert own == explained


def test_latency_is_told_from_a_tenth_of_a_millisecond(families: list[Metric]) -> None:
    """The histogram's first bucket ends at 0.1 ms, and its sum and count are there."""
    seconds = next(family for family in families if family.name == "seatrial_request_seconds")
    bounds = [float(sample.labels["le"]) for sample in seconds.samples if "le" in sample.labels]
    assert min(bounds) == 0.0001
    assert {sample.name.removeprefix("seatrial_request_seconds") for sample in seconds.samples} == {
        "_bucket",
        "_sum",
        "_count",
    }
