"""Datasets are split by time, candidates chosen by simplicity, and models written without pickle."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import numpy as np
import onnxruntime
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info, threadpool_limits

from seatrial.contract.schema import Split
from seatrial.errors import BundleError, TrainingError
from seatrial.training.dataset import AT, LABEL, LABELLED_AT, Dataset, split_dataset
from seatrial.training.export import load_skops, predict_probabilities, to_onnx, to_skops
from seatrial.training.tuning import CandidateResult, choose, fit_threads, linear_algebra_threads

START = datetime(2024, 1, 1, tzinfo=UTC)


def dataset(rows: int, hours_to_label: float = 0.0) -> Dataset:
    """One row an hour; the label alternates and is known some hours later."""
    at = [START + timedelta(hours=i) for i in range(rows)]
    frame = pl.DataFrame(
        {
            "x": [float(i) for i in range(rows)],
            LABEL: [i % 2 for i in range(rows)],
            AT: at,
            LABELLED_AT: [t + timedelta(hours=hours_to_label) for t in at],
        }
    )
    return Dataset(frame, ("x",))


@given(hours=st.floats(0, 16), validation=st.integers(2, 5), test=st.integers(2, 5))
def test_no_row_is_learned_from_before_its_label_was_known(hours: float, validation: int, test: int) -> None:
    """Training labels were known before the validation begins, and validation labels before the test."""
    spans = Split.model_validate({"validation": f"{validation}d", "test": f"{test}d"})
    parts = split_dataset(dataset(24 * 30, hours), spans)

    training, judged, tested = (part.frame for part in parts)
    assert training[LABELLED_AT].max() < judged[AT].min()
    assert judged[LABELLED_AT].max() < tested[AT].min()
    assert tested.height == 24 * test + 1


def test_a_split_by_share_goes_by_the_order_of_the_rows() -> None:
    """Without a time the last share of the rows is the test, and the share before it the validation."""
    rows = dataset(1_000).frame.with_columns(
        pl.int_range(1_000).alias(AT), pl.int_range(1_000).alias(LABELLED_AT)
    )
    spans = Split.model_validate({"validation": 0.2, "test": 0.2})
    parts = split_dataset(Dataset(rows, ("x",)), spans)

    assert [part.frame.height for part in parts] == [640, 160, 200]


@pytest.mark.parametrize("rows", [10, 60])
def test_too_few_rows_are_refused_with_what_to_do(rows: int) -> None:
    """Each part must have enough rows; the error says how many there were."""
    with pytest.raises(TrainingError, match="at least 30") as caught:
        split_dataset(dataset(rows), Split.model_validate({"validation": "1d", "test": "1d"}))

    assert "Ingest more data" in caught.value.remedy


def result(name: str, complexity: int, score: float) -> CandidateResult:
    """A candidate's result with one metric."""
    return CandidateResult(name, complexity, {"average_precision": score, "brier_score": score}, {}, [], 1.0)


def test_the_simplest_within_the_margin_wins() -> None:
    """A simpler candidate wins over a better one that is better by less than the margin."""
    results = [result("tree", 2, 0.60), result("line", 1, 0.596), result("forest", 3, 0.601)]

    assert choose(results, "average_precision", 0.005) == 1
    assert choose(results, "average_precision", 0.003) == 0
    assert choose(results, "average_precision", 0.0) == 2


def test_a_lower_brier_score_is_better() -> None:
    """For a metric of which less is better, the lowest wins."""
    assert choose([result("a", 1, 0.2), result("b", 2, 0.1)], "brier_score", 0.0) == 1


def fitted(estimator: object) -> tuple[object, np.ndarray]:
    """Fit an estimator on a few hundred rows."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(400, 4)).astype(np.float32)
    with fit_threads(400):
        estimator.fit(matrix, (matrix[:, 0] + rng.normal(size=400) > 0).astype(int))  # type: ignore[attr-defined]
    return estimator, matrix


@pytest.mark.parametrize("estimator", [LogisticRegression(), HistGradientBoostingClassifier(max_iter=10)])
def test_onnx_and_skops_answer_like_the_estimator(estimator: object) -> None:
    """Both files of a model answer what the fitted estimator answers."""
    model, matrix = fitted(estimator)
    wanted = model.predict_proba(matrix)[:, 1]  # type: ignore[attr-defined]
    session = onnxruntime.InferenceSession(to_onnx(model, 4))

    assert np.abs(predict_probabilities(session, matrix) - wanted).max() < 1e-5
    assert np.array_equal(load_skops(to_skops(model)).predict_proba(matrix)[:, 1], wanted)


@pytest.mark.parametrize("kind", [LogisticRegression, HistGradientBoostingClassifier])
def test_the_same_model_gives_the_same_bytes(kind: type) -> None:
    """Two fits on the same data give the same ONNX and skops bytes, without addresses or dates."""
    arguments = {"random_state": 1} if kind is HistGradientBoostingClassifier else {}
    first, _ = fitted(kind(**arguments))
    second, _ = fitted(kind(**arguments))

    assert to_onnx(first, 4) == to_onnx(second, 4)
    assert to_skops(first) == to_skops(second)


def test_an_estimator_that_nobody_could_load_is_not_written() -> None:
    """An estimator with a type that is not trusted is refused when it is written, by name."""

    class Mine(LogisticRegression):
        """A class that no other process has."""

    model, _ = fitted(Mine())
    with pytest.raises(TrainingError, match="Mine"):
        to_skops(model)


def test_a_forest_can_be_bundled() -> None:
    """scikit-learn's own trees are trusted although skops alone does not trust them."""
    model, matrix = fitted(RandomForestClassifier(5, random_state=1))

    assert np.array_equal(load_skops(to_skops(model)).predict(matrix), model.predict(matrix))  # type: ignore[attr-defined]


def test_a_skops_file_of_another_type_is_refused() -> None:
    """A file that names a type beyond the fixed list is not loaded (threats: A5)."""
    model, _ = fitted(LogisticRegression())
    changed = _edited(to_skops(model), b"LogisticRegression", b"LogisticRegressionCV")
    evil = _edited(to_skops(model), b'"sklearn.linear_model._logistic"', b'"os"')

    load_skops(to_skops(model))
    for content in (evil, changed[: len(changed) // 2], b"", b"not an archive"):
        with pytest.raises(BundleError):
            load_skops(content)


def test_an_archive_that_unpacks_to_too_much_is_refused_unopened() -> None:
    """The sizes that an archive claims are added up before anything is unpacked."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(6):
            archive.writestr(f"{i}.npy", b"\0" * 100_000_000)
    with pytest.raises(BundleError, match="too large"):
        load_skops(out.getvalue())


def _edited(content: bytes, old: bytes, new: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(old, new))
    return out.getvalue()


@pytest.mark.parametrize(("rows", "threads"), [(20_000, 1), (600_000, 2), (10_000_000, 4)])
@pytest.mark.parametrize(("api", "limited"), [("openmp", fit_threads), ("blas", linear_algebra_threads)])
def test_a_fit_has_threads_by_its_rows(
    api: str, limited: Callable[[int], AbstractContextManager[None]], rows: int, threads: int
) -> None:
    """A small fit has one thread, a large one at most those that there are; afterwards all is as before."""
    with threadpool_limits(4, user_api=api):
        with limited(rows):
            during = threads_of(api)
        after = threads_of(api)

    assert during == {threads}
    assert after == {4}


def threads_of(api: str) -> set[int]:
    """The numbers of threads of all such libraries in this process; scikit-learn has brought some."""
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == api}
