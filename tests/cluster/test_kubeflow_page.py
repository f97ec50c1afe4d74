"""The Kubeflow page in headless Chromium: who uses nothing else can start a run and see how it goes.

The pictures of the documentation are taken here: with ``SEATRIAL_PICTURES`` they are written to that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright
from tests.cluster.conftest import AS_OF, ENVIRONMENT, TrainingRun

from seatrial.cluster.context import connect
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.cluster.kubeflow import Kubeflow, pipeline_name
from seatrial.cluster_runs import compile_for_cluster
from support.kubeflow import Command, Pipelines

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
    pytest.mark.timeout(2400),
]
STEP_MILLISECONDS = 900_000
PATIENCE_MILLISECONDS = 120_000
LINEAGE_SECONDS = 60
STEPS = ("ingest", "validate")
STEPS_OF_LEARNING = (
    "features", "split", "train", "evaluate", "gates", "bundle", "report", "register",
)  # fmt: skip
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
    found = Pipelines(context, platform, kubectl)
    _expect_lineage(found)
    return found


def _expect_lineage(pipelines: Pipelines) -> None:
    """The page gets lineage for its graphs; without it each test below would wait in vain, and none would say why."""
    end = time.monotonic() + LINEAGE_SECONDS
    while "grpc-status: 0" not in (said := _lineage(pipelines)):
        if time.monotonic() > end:
            parts = ("metadata-grpc", "metadata-envoy", "ml-pipeline-ui")
            logs = [
                pipelines.kubectl("-n", pipelines.namespace, "logs", f"deployment/{part}") for part in parts
            ]
            pytest.fail("\n".join([f"the page gets no lineage: {said}", *logs]), pytrace=False)
        time.sleep(2)


def _lineage(pipelines: Pipelines) -> str:
    """What the page is answered by the lineage service, as gRPC-Web, whose trailer has the status."""
    with Forward(connect(pipelines.context, pipelines.namespace), *SERVICES["kubeflow"]) as forward:
        request = urllib.request.Request(  # noqa: S310 -- ours
            f"{forward.address}/ml_metadata.MetadataStoreService/GetContextTypes",
            data=bytes(5),  # a message of no bytes
            headers={"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"},
        )
        try:
            with urllib.request.urlopen(request, timeout=LINEAGE_SECONDS) as answer:  # noqa: S310 -- ours
                return f"{answer.headers}{answer.read().decode(errors='replace')}"
        except OSError as error:
            return str(error)


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


@contextmanager
def _opened(pipelines: Pipelines, browser: Browser) -> Iterator[Page]:
    """Open the Kubeflow page anew."""
    with Forward(connect(pipelines.context, pipelines.namespace), *SERVICES["kubeflow"]) as forward:
        opened = browser.new_page(base_url=forward.address, viewport={"width": 1400, "height": 900})
        opened.set_default_timeout(PATIENCE_MILLISECONDS)
        yield opened
        opened.close()


@pytest.fixture
def page(pipelines: Pipelines, browser: Browser) -> Iterator[Page]:
    """The Kubeflow page, opened anew."""
    with _opened(pipelines, browser) as opened:
        yield opened


@pytest.fixture(scope="module")
def started(pipelines: Pipelines, pipeline: str, browser: Browser) -> str:
    """A run that was started on the page, by its id; stopped when its first step was seen to turn green."""
    with _opened(pipelines, browser) as page:
        run = _start(page, pipeline)
        try:
            _expect_green(page, "ingest", STEP_MILLISECONDS)
            _picture(page, "kubeflow-run.png")
        except AssertionError as error:
            pytest.fail(f"{pipelines.told(run)}\n{page.inner_text('body')}\n{error}", pytrace=False)
        finally:
            pipelines.stop(run)
    return run


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


def _expect_green(page: Page, step: str, milliseconds: float = PATIENCE_MILLISECONDS) -> None:
    """Wait for the sign of success on a step of the graph."""
    node = page.locator(".react-flow__node").filter(has=page.locator(f'[id="task.{step}"]'))
    expect(node.locator(SUCCESS)).to_be_visible(timeout=milliseconds)


def _open_learning(page: Page, run: TrainingRun) -> None:
    """Open the graph of a run's part that trains and judges."""
    page.goto(f"/#/runs/details/{run.id}")
    _expect_green(page, "learning")
    page.locator('[id="task.learning"]').click()
    page.get_by_text("OPEN SUB-DAG").click()
    _expect_green(page, "train")


def _visualize(page: Page, artifact: str) -> None:
    """Open what the page makes of an artifact."""
    page.locator(f'[id="artifact.{artifact}"]').click()
    page.get_by_role("button", name="Visualization").click()


def _expect_words(page: Page | FrameLocator, *texts: str) -> None:
    """Wait for each of some words to be seen."""
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible(timeout=PATIENCE_MILLISECONDS)


def _picture(page: Page, name: str) -> None:
    """Keep a picture for the documentation, if somebody asked for it."""
    if folder := os.environ.get("SEATRIAL_PICTURES"):
        page.screenshot(path=Path(folder) / name)


def test_a_pipeline_explains_its_parameters(page: Page, pipeline: str) -> None:
    """Beside the graph stands what the pipeline does and what each of its parameters means."""
    page.goto("/#/pipelines")
    page.get_by_text(pipeline, exact=True).first.click()
    page.get_by_text("Show Summary").click()

    _expect_words(
        page,
        "Train a model on all data that has arrived",
        "Name of the model, whose contract is in the image",
    )
    _picture(page, "kubeflow-pipeline.png")


def test_a_run_is_started_and_seen_to_turn_green(page: Page, started: str) -> None:
    """A run that was started on the page is shown as a graph, whose first step got the sign of success."""
    page.goto(f"/#/runs/details/{started}")

    _expect_green(page, "ingest")


def test_every_step_of_a_run_is_green(page: Page, training_run: TrainingRun) -> None:
    """Every step of a run that went well has the sign of success, those of the pipeline within it too."""
    page.goto(f"/#/runs/details/{training_run.id}")
    for step in STEPS:
        _expect_green(page, step)
    _open_learning(page, training_run)
    for step in STEPS_OF_LEARNING:
        _expect_green(page, step)
    _picture(page, "kubeflow-learning.png")


def test_the_report_is_read_on_the_page(page: Page, training_run: TrainingRun) -> None:
    """The report is an artifact that the page shows as it is."""
    _open_learning(page, training_run)
    _visualize(page, "report.page")

    _expect_words(page.frame_locator("iframe").first, "passed")
    _picture(page, "kubeflow-report.png")


def test_curve_and_confusion_matrix_are_drawn(page: Page, training_run: TrainingRun) -> None:
    """The page draws the ROC curve and the confusion matrix by viewers of its own."""
    _open_learning(page, training_run)
    _visualize(page, "evaluate.curves")

    _expect_words(page, "ROC Curve", "Confusion Matrix")
    _picture(page, "kubeflow-curves.png")


def test_the_figures_are_listed(page: Page, training_run: TrainingRun) -> None:
    """The evaluation's figures stand in a table, by name and value."""
    _open_learning(page, training_run)
    _visualize(page, "evaluate.figures")

    _expect_words(page, "average_precision")


def test_two_runs_are_compared(page: Page, training_run: TrainingRun, started: str) -> None:
    """Parameters and figures of two runs stand side by side."""
    page.goto(f"/#/compare?runlist={training_run.id},{started}")

    expect(page.get_by_text(f'"{AS_OF}"')).to_have_count(2, timeout=PATIENCE_MILLISECONDS)
    _expect_words(page, "roc_auc")
    _picture(page, "kubeflow-compare.png")


def test_the_lineage_leads_from_model_to_data(page: Page, training_run: TrainingRun) -> None:
    """From the model's artifact the page finds the step that made it, and the rows that it was made of."""
    _open_learning(page, training_run)
    page.locator('[id="artifact.train.fitted"]').click()
    page.get_by_role("link", name="fitted").first.click()
    page.get_by_text("Lineage Explorer").click()

    for words in ("train", "training", "validation"):
        expect(page.get_by_text(words, exact=True).first).to_be_visible(timeout=PATIENCE_MILLISECONDS)
    _picture(page, "kubeflow-lineage.png")
