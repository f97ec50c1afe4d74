"""Tune every candidate within its budget, and choose the simplest that is good enough.

Hyper-parameters are searched by optuna's tree-structured Parzen estimator (Bergstra et al. 2011)
on the newest training rows and judged on the validation rows, which come after them in time. The
candidates do not know of each other, so each is tuned in a thread of its own, as far as there are
cores. The winner is then fitted on training and validation rows together; the test rows stay unseen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import Candidate, Metric, Search
from seatrial.errors import TrainingError
from seatrial.evaluation import best_threshold, classification_metrics
from seatrial.features.encoding import FeatureSchema
from seatrial.training.candidates import import_estimators, make_estimator
from seatrial.training.dataset import Dataset

Progress = Callable[[str], None]
ROWS_PER_THREAD = 250_000
"""Rows of a fit for each of its threads: 110,000 take 8 s in one thread, and 41 to 64 s in two on a busy machine."""


@dataclass(frozen=True)
class CandidateResult:
    """How a candidate did on the validation rows.

    Attributes:
        name: The candidate's name.
        complexity: Its rank by simplicity.
        metrics: Its metrics on the validation rows, fitted with the best parameters.
        parameters: The best parameters found.
        trials: For each trial its parameters, score and seconds.
        seconds: Wall-clock time of tuning and fitting, beside the other candidates.
        chosen: Whether it was chosen.
    """

    name: str
    complexity: int
    metrics: dict[str, float]
    parameters: dict[str, Any]
    trials: list[dict[str, Any]]
    seconds: float
    chosen: bool = False


@dataclass(frozen=True)
class TrainedModel:
    """The winner, fitted, and how it was found.

    Attributes:
        estimator: The fitted estimator over the encoded features.
        schema: The features, as they are encoded.
        threshold: Probability from which a row is flagged, the cheapest on the validation rows.
        candidates: How every candidate did.
        base_rate: Share of positives among the rows it was fitted on.
        rows: Number of those rows.
        matrix: Those rows' encoded features, of shape (n_rows, n_features).
        labels: Those rows' labels, of shape (n_rows,).
    """

    estimator: Any
    schema: FeatureSchema
    threshold: float
    candidates: list[CandidateResult]
    base_rate: float
    rows: int
    matrix: NDArray[np.float32] = field(repr=False)
    labels: NDArray[np.int8] = field(repr=False)

    @property
    def chosen(self) -> CandidateResult:
        """The candidate that was chosen."""
        return next(candidate for candidate in self.candidates if candidate.chosen)


@dataclass(frozen=True)
class _Rows:
    matrix: NDArray[np.float32]
    labels: NDArray[np.int8]


def train_candidates(
    loaded: LoadedContract, training: Dataset, validation: Dataset, *, progress: Progress
) -> TrainedModel:
    """Tune the contract's candidates, choose one and fit it.

    Args:
        loaded: The model's contract.
        training: The rows to fit on.
        validation: The rows to choose by, later than the training rows.
        progress: Called with a line for a person about each candidate, in their order.

    Raises:
        TrainingError: if a feature has no value to learn from, or a candidate cannot be made or fitted.
    """
    contract = loaded.contract
    names = list(training.features)
    both = pl.concat([training.frame.select(names), validation.frame.select(names)])
    schema = FeatureSchema.fit(both)
    fit_on = _Rows(schema.encode(training.frame), training.labels)
    judge_on = _Rows(schema.encode(validation.frame), validation.labels)
    _refuse_features_without_value(schema, fit_on)
    results: list[tuple[CandidateResult, float]] = []
    import_estimators(contract.candidates, loaded.folder)
    with (
        linear_algebra_threads(len(fit_on.labels) + len(judge_on.labels)),
        ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads,
    ):
        tuned = threads.map(lambda one: _tune(loaded, one, schema, fit_on, judge_on), contract.candidates)
        for result, threshold in tuned:
            results.append((result, threshold))
            score = result.metrics[contract.selection.metric]
            progress(
                f"{result.name}: {contract.selection.metric} {score:.4f} on {len(judge_on.labels):,} validation "
                f"rows, {len(result.trials)} trials, {result.seconds:.1f} s"
            )
    place = choose([r for r, _ in results], contract.selection.metric, contract.selection.margin)
    winner, threshold = results[place]
    candidate = contract.candidates[place]
    everything = _Rows(
        np.concatenate([fit_on.matrix, judge_on.matrix]), np.concatenate([fit_on.labels, judge_on.labels])
    )
    estimator = make_estimator(
        candidate, schema, loaded.folder, parameters=winner.parameters, seed=contract.tuning.seed
    )
    _fit(estimator, everything, candidate.name)
    return TrainedModel(
        estimator=estimator,
        schema=schema,
        threshold=threshold,
        candidates=[
            CandidateResult(**{**vars(result), "chosen": i == place}) for i, (result, _) in enumerate(results)
        ],
        base_rate=float(everything.labels.mean()),
        rows=len(everything.labels),
        matrix=everything.matrix,
        labels=everything.labels,
    )


def _refuse_features_without_value(schema: FeatureSchema, rows: _Rows) -> None:
    """Refuse a column that says nothing: some estimators fail on it without its name, others hide it."""
    without = [
        column.name
        for place, column in enumerate(schema.columns)
        if np.all(np.isnan(rows.matrix[:, place]) if column.kind == "number" else rows.matrix[:, place] < 0)
    ]
    if without:
        raise TrainingError(
            f"Each feature must have a value in the {len(rows.labels):,} training rows. "
            f"Got none that is known of: {', '.join(without)}.",
            remedy="Look whether the source still brings it, or leave it out by features.use in the contract.",
        )


def choose(results: list[CandidateResult], metric: Metric, margin: float) -> int:
    """Return the place of the simplest candidate within ``margin`` of the best.

    Of equally simple ones the better is chosen, of equally good ones the first.
    """
    sign = 1.0 if metric in ("roc_auc", "average_precision") else -1.0
    scores = [sign * result.metrics[metric] for result in results]
    best = max(scores)
    near = [i for i, score in enumerate(scores) if score >= best - margin]
    return min(near, key=lambda i: (results[i].complexity, -scores[i], i))


def _tune(
    loaded: LoadedContract, candidate: Candidate, schema: FeatureSchema, fit_on: _Rows, judge_on: _Rows
) -> tuple[CandidateResult, float]:
    import optuna

    contract = loaded.contract
    started = time.perf_counter()
    trials: list[dict[str, Any]] = []
    newest = slice(-contract.tuning.sample_rows, None)
    sample = _Rows(fit_on.matrix[newest], fit_on.labels[newest])

    def score(parameters: dict[str, Any], rows: _Rows) -> tuple[dict[str, float], NDArray[np.float64]]:
        estimator = make_estimator(
            candidate, schema, loaded.folder, parameters=parameters, seed=contract.tuning.seed
        )
        _fit(estimator, rows, candidate.name)
        probabilities = np.asarray(estimator.predict_proba(judge_on.matrix)[:, 1], dtype=np.float64)
        threshold = best_threshold(judge_on.labels, probabilities, contract.costs)
        metrics = classification_metrics(
            judge_on.labels, probabilities, threshold=threshold, costs=contract.costs
        )
        return metrics, probabilities

    def objective(trial: optuna.Trial) -> float:
        parameters = {name: _suggest(trial, name, search) for name, search in candidate.search.items()}
        begun = time.perf_counter()
        value = score(parameters, sample)[0][contract.selection.metric]
        seconds = time.perf_counter() - begun
        trials.append({"parameters": parameters, "score": value, "seconds": round(seconds, 3)})
        return value

    best: dict[str, Any] = {}
    if candidate.search:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        higher = contract.selection.metric in ("roc_auc", "average_precision")
        study = optuna.create_study(
            direction="maximize" if higher else "minimize",
            sampler=optuna.samplers.TPESampler(seed=contract.tuning.seed),
        )
        study.optimize(objective, n_trials=contract.tuning.trials)
        best = dict(study.best_trial.params)
    metrics, probabilities = score(best, fit_on)
    threshold = best_threshold(judge_on.labels, probabilities, contract.costs)
    seconds = time.perf_counter() - started
    return CandidateResult(candidate.name, candidate.complexity, metrics, best, trials, seconds), threshold


def _suggest(trial: Any, name: str, search: Search) -> Any:
    if search.choices is not None:
        return trial.suggest_categorical(name, search.choices)
    assert search.low is not None
    assert search.high is not None
    if search.integer:
        return trial.suggest_int(name, int(search.low), int(search.high), log=search.log)
    return trial.suggest_float(name, search.low, search.high, log=search.log)


@contextmanager
def fit_threads(rows: int) -> Iterator[None]:
    """Give what is done within a thread for every so many rows, and at most those that OpenMP has.

    Boosted trees meet at some hundred barriers a tree. On few rows, waiting there costs more than a
    second thread brings, and on a machine with other work to do many times more.
    """
    with _limited("openmp", rows):
        yield


@contextmanager
def linear_algebra_threads(rows: int) -> Iterator[None]:
    """Give linear algebra within a thread for every so many rows, and at most those that it has.

    Unlike OpenMP's, this limit is the whole process's: it is set once, around fits that run beside each other.
    A logistic regression asks for hundreds of thousands of tiny sums, each of which would wake all threads; one
    thread took half of the time.
    """
    with _limited("blas", rows):
        yield


@contextmanager
def _limited(api: str, rows: int) -> Iterator[None]:
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController().select(user_api=api)
    most = max((library.num_threads for library in libraries.lib_controllers), default=1)
    with libraries.limit(limits=max(1, min(most, rows // ROWS_PER_THREAD))):
        yield


def _fit(estimator: Any, rows: _Rows, name: str) -> None:
    try:
        with fit_threads(len(rows.labels)):
            estimator.fit(rows.matrix, rows.labels)
    except (ValueError, TypeError) as error:
        raise TrainingError(
            f"The candidate {name!r} cannot be fitted: {str(error).splitlines()[0]}.",
            remedy="Check its parameters and encoding in the contract.",
        ) from error
