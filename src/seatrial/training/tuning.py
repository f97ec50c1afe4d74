"""Tune every candidate within its budget, and choose the simplest that is good enough.

Hyper-parameters are searched by optuna's tree-structured Parzen estimator (Bergstra et al. 2011)
on the newest training rows and judged on the validation rows, which come after them in time. The
candidates do not know of each other, and the first trials of a search not either, so they are made beside each other,
as far as there are cores. The winner is then fitted on training and validation rows together; the test rows stay
unseen.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
RANDOM_TRIALS = 10
"""The first trials of a search, which are drawn at random: none waits for another (optuna's own number)."""
HIGHER_IS_BETTER = ("roc_auc", "average_precision")
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
        seconds: Time of its trials and its fit, beside those of the other candidates.
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
    everything = _Rows(
        np.concatenate([fit_on.matrix, judge_on.matrix]), np.concatenate([fit_on.labels, judge_on.labels])
    )
    import_estimators(contract.candidates, loaded.folder)
    tuning = _Tuning(loaded, schema, fit_on, judge_on, everything)
    with linear_algebra_threads(len(everything.labels)), warnings.catch_warnings():
        # What is filtered is the process's, and each fit of scikit-learn sets it anew, in threads here: one may find
        # it empty, take that for a misuse of its own and warn, and the last one leaves whatever it saw.
        warnings.filterwarnings("ignore", message="`sklearn.utils.parallel.delayed` should be used")
        place, results, estimator = tuning.run(progress)
    return TrainedModel(
        estimator=estimator,
        schema=schema,
        threshold=results[place][1],
        candidates=[replace(result, chosen=i == place) for i, (result, _) in enumerate(results)],
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
    sign = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    scores = [sign * result.metrics[metric] for result in results]
    best = max(scores)
    near = [i for i, score in enumerate(scores) if score >= best - margin]
    return min(near, key=lambda i: (results[i].complexity, -scores[i], i))


@dataclass(frozen=True)
class _Search:
    """A search for a candidate's parameters, and its first trials.

    Attributes:
        candidate: The candidate.
        study: The search as optuna knows it.
        asked: The first trials as optuna knows them; none if there is nothing to search.
        tried: What each of them tries.
    """

    candidate: Candidate
    study: Any
    asked: list[Any]
    tried: list[dict[str, Any]]


@dataclass(frozen=True)
class _Searched:
    """What the search for a candidate's parameters found.

    Attributes:
        parameters: The best ones; none if there is nothing to search.
        trials: For each trial its parameters, score and seconds.
        score: The best trial's; None without a trial.
    """

    parameters: dict[str, Any]
    trials: list[dict[str, Any]]
    score: float | None


@dataclass(frozen=True)
class _Tuning:
    """The tuning of all candidates on the same rows."""

    loaded: LoadedContract
    schema: FeatureSchema
    fit_on: _Rows
    judge_on: _Rows
    everything: _Rows

    def run(self, progress: Progress) -> tuple[int, list[tuple[CandidateResult, float]], Any]:
        """Search, judge and choose; return the chosen one's place, all results with their thresholds, and its fit.

        As soon as every search has ended, a core that is free fits the candidate that leads by its trials on all
        rows, while the others, and itself, are still judged. Where another one is chosen in the end, that is fitted.
        """
        contract = self.loaded.contract
        candidates, results = contract.candidates, list[tuple[CandidateResult, float]]()
        cores = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(cores) as threads:
            # First in, first out: whatever waits here waits for what has begun.
            searches: list[Future[_Searched]] = []
            judged: list[Future[tuple[CandidateResult, float]]] = []
            for search, first in self._try_first(threads):
                searches.append(threads.submit(self._finish, search, first))
                judged.append(threads.submit(self._judge, search.candidate, searches[-1]))
            ahead = threads.submit(self._fit_leader, searches) if cores > 1 else None
            for future in judged:
                results.append(future.result())
                self._tell(results[-1][0], progress)
        place = choose([r for r, _ in results], contract.selection.metric, contract.selection.margin)
        leader, estimator = (None, None) if ahead is None else ahead.result()
        if leader != place:
            estimator = self._fit(candidates[place], results[place][0].parameters, self.everything)
        return place, results, estimator

    def _try_first(self, threads: ThreadPoolExecutor) -> list[tuple[_Search, list[Future[dict[str, Any]]]]]:
        """Begin the first trials of all candidates, in turns, so that neither the short nor the long ones come last."""
        begun = [
            (self._begin(candidate), list[Future[dict[str, Any]]]())
            for candidate in self.loaded.contract.candidates
        ]
        for number in range(RANDOM_TRIALS):
            for search, first in begun:
                if number < len(search.tried):
                    first.append(threads.submit(self._try, search.candidate, search.tried[number]))
        return begun

    def _tell(self, result: CandidateResult, progress: Progress) -> None:
        metric = self.loaded.contract.selection.metric
        progress(
            f"{result.name}: {metric} {result.metrics[metric]:.4f} on {len(self.judge_on.labels):,} validation "
            f"rows, {len(result.trials)} trials, {result.seconds:.1f} s"
        )

    def _begin(self, candidate: Candidate) -> _Search:
        """Say what the first trials try, which does not depend on how any of them does."""
        import optuna

        tuning, selection = self.loaded.contract.tuning, self.loaded.contract.selection
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if selection.metric in HIGHER_IS_BETTER else "minimize",
            sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=tuning.seed),
        )
        asked = [study.ask() for _ in range(min(tuning.trials, RANDOM_TRIALS) if candidate.search else 0)]
        return _Search(candidate, study, asked, [_suggest_all(trial, candidate) for trial in asked])

    def _try(self, candidate: Candidate, parameters: dict[str, Any]) -> dict[str, Any]:
        newest = slice(-self.loaded.contract.tuning.sample_rows, None)
        sample = _Rows(self.fit_on.matrix[newest], self.fit_on.labels[newest])
        begun = time.perf_counter()
        value = self._score(candidate, parameters, sample)[0][self.loaded.contract.selection.metric]
        return {"parameters": parameters, "score": value, "seconds": round(time.perf_counter() - begun, 3)}

    def _finish(self, search: _Search, first: list[Future[dict[str, Any]]]) -> _Searched:
        """Take in how the first trials did, and make those that learn from them."""
        trials: list[dict[str, Any]] = []
        for trial, future in zip(search.asked, first, strict=True):
            trials.append(future.result())
            search.study.tell(trial, trials[-1]["score"])
        if not trials:
            return _Searched({}, [], None)

        def objective(trial: Any) -> float:
            trials.append(self._try(search.candidate, _suggest_all(trial, search.candidate)))
            return float(trials[-1]["score"])

        search.study.optimize(objective, n_trials=self.loaded.contract.tuning.trials - len(trials))
        best = search.study.best_trial
        return _Searched(dict(best.params), trials, best.value)

    def _judge(self, candidate: Candidate, search: Future[_Searched]) -> tuple[CandidateResult, float]:
        found = search.result()
        started = time.perf_counter()
        metrics, threshold = self._score(candidate, found.parameters, self.fit_on)
        seconds = time.perf_counter() - started + sum(trial["seconds"] for trial in found.trials)
        result = CandidateResult(
            candidate.name, candidate.complexity, metrics, found.parameters, found.trials, seconds
        )
        return result, threshold

    def _score(
        self, candidate: Candidate, parameters: dict[str, Any], rows: _Rows
    ) -> tuple[dict[str, float], float]:
        """Fit on rows; return the metrics and the cheapest threshold on the validation rows."""
        labels, costs = self.judge_on.labels, self.loaded.contract.costs
        estimator = self._fit(candidate, parameters, rows)
        probabilities = np.asarray(estimator.predict_proba(self.judge_on.matrix)[:, 1], dtype=np.float64)
        threshold = best_threshold(labels, probabilities, costs)
        return classification_metrics(labels, probabilities, threshold=threshold, costs=costs), threshold

    def _fit_leader(self, searches: list[Future[_Searched]]) -> tuple[int | None, Any]:
        """Fit the candidate that leads by its trials on all rows; none leads where one has no trial."""
        found = [search.result() for search in searches]
        scores = [search.score for search in found if search.score is not None]
        if len(scores) < len(found) and len(found) > 1:
            return None, None
        selection, candidates = self.loaded.contract.selection, self.loaded.contract.candidates
        best_first = selection.metric in HIGHER_IS_BETTER
        leader = sorted(range(len(scores)), key=scores.__getitem__, reverse=best_first)[0] if scores else 0
        return leader, self._fit(candidates[leader], found[leader].parameters, self.everything)

    def _fit(self, candidate: Candidate, parameters: dict[str, Any], rows: _Rows) -> Any:
        estimator = make_estimator(
            candidate,
            self.schema,
            self.loaded.folder,
            parameters=parameters,
            seed=self.loaded.contract.tuning.seed,
        )
        try:
            with fit_threads(len(rows.labels)):
                return estimator.fit(rows.matrix, rows.labels)
        except (ValueError, TypeError) as error:
            raise TrainingError(
                f"The candidate {candidate.name!r} cannot be fitted: {str(error).splitlines()[0]}.",
                remedy="Check its parameters and encoding in the contract.",
            ) from error


def _suggest_all(trial: Any, candidate: Candidate) -> dict[str, Any]:
    return {name: _suggest(trial, name, search) for name, search in candidate.search.items()}


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
