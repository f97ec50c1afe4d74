"""The Kubeflow page in headless Chromium: who uses nothing else can start a run and see how it goes.

The pictures of the documentation are taken here: with ``SEATRIAL_PICTURES`` they are written to that folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from seatrial.cluster.context import connect
from seatrial.cluster.kubeflow import Kubeflow, pipeline_name
from seatrial.cluster_runs import compile_for_cluster
from support.kubeflow import Command, Pipelines, forwarded

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
    pytest.mark.timeout(2400),
]
ENVIRONMENT = "test"
STEP_MILLISECONDS = 900_000
PATIENCE_MILLISECONDS = 120_000
AS_OF = "2013-04"
"""As the other tests of the cluster: a workspace that has later data than a run may see stops it."""
SUCCESS = '.text-mui-green-600 path[d^="M12 2C6.48"]'
"""The green tick on a step of the graph."""


@pytest.fixture(scope="module")
def pipelines(context: str, platform: str, kubectl: Command) -> Pipelines:
    """Kubeflow Pipelines with the training pipeline uploaded; skips where there is no page."""
    ready = kubectl(
        "-n", platform, "get", "deployment", "ml-pipeline-ui", "-o", "jsonpath={.status.readyReplicas}"
    )
    if not ready.strip():
        pytest.skip("the cluster cannot have the image of the Kubeflow page")
    return Pipelines(context, platform, kubectl)


@pytest.fixture(scope="module")
def pipeline(pipelines: Pipelines, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the uploaded training pipeline."""
    package = tmp_path_factory.mktemp("page") / "training.yaml"
    compile_for_cluster("training", package, ENVIRONMENT)
    with Kubeflow(connect(pipelines.context, pipelines.namespace)) as kubeflow:
        kubeflow.version(package)
    return pipeline_name(package)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(pipelines: Pipelines, browser: Browser) -> Iterator[Page]:
    """The Kubeflow page, opened anew."""
    with forwarded(pipelines.context, pipelines.namespace, "ml-pipeline-ui", 80) as address:
        opened = browser.new_page(base_url=f"http://{address}", viewport={"width": 1200, "height": 800})
        opened.set_default_timeout(PATIENCE_MILLISECONDS)
        yield opened
        opened.close()


def _start(page: Page, pipeline: str) -> str:
    """Start a run as a person does, and return its id."""
    page.goto("/#/pipelines")
    page.get_by_text(pipeline, exact=True).first.click()
    expect(page.get_by_text("ingest", exact=True)).to_be_visible(timeout=PATIENCE_MILLISECONDS)
    page.get_by_role("button", name="Create run").click()
    expect(page.get_by_label("model - string")).to_be_visible(timeout=PATIENCE_MILLISECONDS)
    page.get_by_role("button", name="Choose").nth(2).click()
    page.get_by_role("dialog").get_by_text("Default", exact=True).click()
    page.get_by_role("button", name="Use this experiment").click()
    page.get_by_label("model - string").fill("flights")
    page.get_by_label("as_of - string").fill(AS_OF)
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/details/"), timeout=PATIENCE_MILLISECONDS)
    return page.url.rpartition("/")[2]


def _picture(page: Page, name: str) -> None:
    """Keep a picture for the documentation, if somebody asked for it."""
    if folder := os.environ.get("SEATRIAL_PICTURES"):
        page.screenshot(path=Path(folder) / name)


def test_a_pipeline_explains_its_parameters(page: Page, pipeline: str) -> None:
    """Beside the graph stands what the pipeline does and what each of its parameters means."""
    page.goto("/#/pipelines")
    page.get_by_text(pipeline, exact=True).first.click()
    page.get_by_text("Show Summary").click()

    for words in (
        "Train a model on all data that has arrived",
        "Name of the model, whose contract is in the image",
    ):
        expect(page.get_by_text(words).first).to_be_visible(timeout=PATIENCE_MILLISECONDS)
    _picture(page, "kubeflow-pipeline.png")


def test_a_run_is_started_and_seen_to_turn_green(page: Page, pipelines: Pipelines, pipeline: str) -> None:
    """A run that was started on the page is shown as a graph, and its first step gets the sign of success."""
    run = _start(page, pipeline)
    try:
        node = page.locator(".react-flow__node").filter(has=page.locator('[id="task.ingest"]'))
        expect(node.locator(SUCCESS)).to_be_visible(timeout=STEP_MILLISECONDS)
        _picture(page, "kubeflow-run.png")
    finally:
        with pipelines.client() as client:
            client.terminate_run(run)
