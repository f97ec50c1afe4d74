"""Steps 6 and 7: evaluate on rows never seen, and judge by the contract's gates."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from seatrial.bundle import BundleSchema, load_bundle, open_trust_root
from seatrial.bundle.content import ONNX, SCHEMA
from seatrial.bundle.store import find_bundle
from seatrial.contract.load import LoadedContract
from seatrial.data_tests import as_of_or_now
from seatrial.errors import SeatrialError, UsageError
from seatrial.evaluation import ChampionAnswers, Evaluation, evaluate, roc_thresholds
from seatrial.features import OnlineFeatures, compute_features
from seatrial.features.definitions import Features
from seatrial.gates import Measurements, judge_gates, passes
from seatrial.model_check import check_model, load_features
from seatrial.onnx_session import open_session
from seatrial.promotion import read_pointer
from seatrial.sources import TYPES
from seatrial.steps.files import open_tables, read_checks, read_dataset, read_json, reported, say, write_json
from seatrial.steps.training import TRAINING
from seatrial.tables import Tables
from seatrial.training import predict_probabilities
from seatrial.training.dataset import Dataset, build_dataset, split_dataset
from seatrial.verdicts import Verdict, verdicts_table
from seatrial.workspace import Workspace

LATENCY_PREDICTIONS = 300
LATENCY_PASSES = 5


@dataclass(frozen=True)
class Evaluated:
    """An evaluation as Kubeflow Pipelines' own viewers want it.

    Attributes:
        figures: The figures on the test rows, by name.
        false_positive_rates: The ROC curve's x.
        true_positive_rates: Its y.
        thresholds: The probability at each of its points.
        confusion: Rows by truth (first index) and answer (second), no before yes.
    """

    figures: dict[str, float]
    false_positive_rates: list[float]
    true_positive_rates: list[float]
    thresholds: list[float]
    confusion: list[list[int]]


@dataclass(frozen=True)
class RunFiles:
    """Paths of what the earlier steps of a run wrote.

    Attributes:
        model: Folder of the model's files.
        test: The test rows.
        versions: The versions of the valid tables.
        checks: What the data tests found.
        profiles: The tables' profiles.
        evaluation: The evaluation.
    """

    model: str
    test: str
    versions: str
    checks: str
    profiles: str
    evaluation: str


@reported
def evaluate_model(
    model: str,
    workspace: str,
    environment: str,
    model_in: str,
    test_in: str,
    versions_in: str,
    evaluation_out: str,
) -> Evaluated:
    """Evaluate a model on the test rows, beside the champion and a constant.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        environment: The environment whose model is the champion.
        model_in: Folder of the model's files.
        test_in: Path of the test rows.
        versions_in: Path of the versions of the valid tables.
        evaluation_out: Path for the evaluation, as JSON.

    Returns:
        The evaluation, as Kubeflow Pipelines' own viewers want it.

    Raises:
        SeatrialError: if the model's files cannot be used.
    """
    loaded, place, test = check_model(model), Workspace.open(workspace), read_dataset(test_in)
    schema = BundleSchema.model_validate_json((Path(model_in) / SCHEMA).read_bytes())
    session = open_session((Path(model_in) / ONNX).read_bytes())
    champion = _champion(loaded, place, environment, test, open_tables(loaded, place, read_json(versions_in)))
    probabilities = predict_probabilities(session, schema.features.encode(test.frame))
    base_rate = float(read_json(f"{model_in}/{TRAINING}")["base_rate"])
    found = _evaluate(loaded, schema, test, probabilities, base_rate, champion)
    write_json(evaluation_out, found)
    auc, cost = found.metrics["roc_auc"], found.metrics["cost_ratio"]
    say(
        f"ROC AUC {_number(auc.value)} ({_number(auc.low)} to {_number(auc.high)}) on {found.rows:,} test rows; "
        f"costs {_number(cost.value)} of doing nothing"
    )
    if found.champion:
        gain = found.champion.differences["average_precision"]
        say(
            f"average precision {_number(gain.value, sign=True)} ({_number(gain.low, sign=True)} to "
            f"{_number(gain.high, sign=True)}) against the champion {found.champion.digest[:12]}"
        )
    return _for_viewers(found, test.labels, probabilities)


def _evaluate(
    loaded: LoadedContract,
    schema: BundleSchema,
    test: Dataset,
    probabilities: NDArray[np.float64],
    base_rate: float,
    champion: ChampionAnswers | None = None,
) -> Evaluation:
    """Evaluate answers to the test rows as the contract wants it; ``base_rate`` is that of training."""
    worst_slice = loaded.contract.gates.worst_slice
    return evaluate(
        test.labels,
        probabilities,
        threshold=schema.threshold,
        costs=loaded.contract.costs,
        training_base_rate=base_rate,
        period=test.period,
        seed=loaded.contract.tuning.seed,
        slices=test.slices,
        minimum_slice_rows=worst_slice.minimum_rows if worst_slice else 1,
        champion=champion,
    )


def _for_viewers(
    found: Evaluation, labels: NDArray[np.int8], probabilities: NDArray[np.float64]
) -> Evaluated:
    matrix = found.confusion
    return Evaluated(
        figures={name: i.value for name, i in found.metrics.items() if i.value is not None},
        false_positive_rates=found.roc.x,
        true_positive_rates=found.roc.y,
        thresholds=roc_thresholds(labels, probabilities),
        confusion=[
            [matrix.true_negatives, matrix.false_positives],
            [matrix.false_negatives, matrix.true_positives],
        ],
    )


def _number(value: float | None, *, sign: bool = False) -> str:
    return "?" if value is None else f"{value:+.3f}" if sign else f"{value:.3f}"


def _champion(
    loaded: LoadedContract,
    workspace: Workspace,
    environment: str,
    test: Dataset,
    tables: dict[str, pl.LazyFrame],
) -> ChampionAnswers | None:
    """The champion's answers to the same rows, by its own features; None if none serves or it cannot answer."""
    pointer = read_pointer(workspace, environment, loaded.contract.name)
    if pointer.digest is None:
        return None
    try:
        bundle = load_bundle(workspace, pointer.digest, open_trust_root(workspace))
        inputs = test.inputs.select([column.name for column in bundle.schema.inputs])
        frame = compute_features(bundle.features, inputs, tables, use=bundle.schema.features.names)
        answers = predict_probabilities(bundle.session(), bundle.schema.features.encode(frame))
    except (SeatrialError, pl.exceptions.PolarsError) as error:
        say(f"the champion {pointer.digest[:12]} cannot be evaluated: {error}")
        return None
    return ChampionAnswers(bundle.digest, answers, bundle.schema.threshold)


@reported
def judge_model(
    model: str,
    workspace: str,
    environment: str,
    run: str,
    as_of: str,
    files: RunFiles,
    found_out: str,
    verdicts_out: str,
) -> bool:
    """Judge a model by the contract's gates, and gather what the run found.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        environment: The environment whose model is the champion.
        run: Name of the run.
        as_of: Instant of the run; empty: now.
        files: What the earlier steps wrote.
        found_out: Path for all that the run found, as JSON.
        verdicts_out: Path for the verdicts, as a Markdown table.

    Returns:
        Whether every gate passed.

    Raises:
        SeatrialError: if the model's files cannot be used.
    """
    loaded, place = check_model(model), Workspace.open(workspace)
    verdicts = judge_gates(loaded.contract.gates, _measure(loaded, place, environment, files))
    for verdict in verdicts:
        say(f"{verdict.outcome.upper():4} {verdict.check}: {_measured(verdict)}")
    training = read_json(f"{files.model}/{TRAINING}")
    found = {
        "model": loaded.contract.name,
        "run": run,
        "as_of": as_of_or_now(as_of).isoformat(),
        "environment": environment,
        "verdicts": verdicts,
        "training": training,
        "evaluation": read_json(files.evaluation),
        "versions": read_json(files.versions),
        "checks": read_json(files.checks),
        "profiles": read_json(files.profiles),
    }
    write_json(found_out, found)
    Path(verdicts_out).write_text("\n".join(verdicts_table(verdicts)) + "\n", encoding="utf-8")
    return passes(verdicts)


def _measured(verdict: Verdict) -> str:
    if verdict.value is None:
        return verdict.message
    bound = "" if verdict.bound is None else f" (bound {verdict.bound:g})"
    return f"{verdict.value:.4g} {verdict.unit}".rstrip() + bound


def _measure(loaded: LoadedContract, place: Workspace, environment: str, files: RunFiles) -> Measurements:
    folder = Path(files.model)
    test = read_dataset(files.test)
    tables = open_tables(loaded, place, read_json(files.versions))
    schema = BundleSchema.model_validate_json((folder / SCHEMA).read_bytes())
    training = read_json(f"{files.model}/{TRAINING}")
    onnx = (folder / ONNX).read_bytes()
    return Measurements(
        data=[verdict for check in read_checks(read_json(files.checks)) for verdict in check.verdicts],
        evaluation=Evaluation.model_validate(read_json(files.evaluation)),
        champion_expected=read_pointer(place, environment, loaded.contract.name).digest is not None,
        latency_milliseconds=measure_latency(load_features(loaded), schema, onnx, test, tables),
        bundle_bytes=sum(path.stat().st_size for path in folder.iterdir()),
        parity_difference=training["parity"]["difference"],
        parity_rows=training["parity"]["rows"],
        training_seconds=training["cost"].get("seconds"),
        training_watt_hours=training["cost"].get("energy_watt_hours"),
    )


def measure_latency(
    features: Features,
    schema: BundleSchema,
    onnx: bytes,
    test: Dataset,
    tables: dict[str, pl.LazyFrame],
) -> list[float]:
    """Time single predictions, from a request's values to the probability, as the server makes them.

    Each is made several times, in passes over all of them, and its best time counts: what is
    measured is the model, not the other work of a busy machine.

    Returns:
        Milliseconds of each prediction, sorted; the first ten, which warm up, are left out.
    """
    session = open_session(onnx)
    kinds = {column.name: TYPES[column.type] for column in schema.inputs}
    online = OnlineFeatures(features, tables, kinds, use=schema.features.names)
    takes_plain = schema.features.takes_plain(online.compute([]))
    requests = list(test.inputs.tail(LATENCY_PREDICTIONS).iter_rows())

    def encode(request: tuple[Any, ...]) -> NDArray[np.float32]:
        plain = online.compute_plain([request]) if takes_plain else None
        if plain is None:
            return schema.features.encode(online.compute([request]))
        return schema.features.encode_rows(plain[0])

    def milliseconds(request: tuple[Any, ...]) -> float:
        started = time.perf_counter()
        predict_probabilities(session, encode(request))
        return (time.perf_counter() - started) * 1000

    for request in requests[:10]:
        milliseconds(request)
    passes_made = [[milliseconds(request) for request in requests] for _ in range(LATENCY_PASSES)]
    return sorted(min(times) for times in zip(*passes_made, strict=True))


def evaluate_bundle(
    model: str, workspace: str | None, environment: str, digest: str, as_of: str
) -> Evaluation:
    """Evaluate a bundle on the newest rows whose label is known: those that a training would test on.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace; None: the default one.
        environment: The environment whose bundle is taken where no digest is given.
        digest: Digest of the bundle, or its beginning; empty: the one that is served.
        as_of: Instant up to which labels are known; empty: now.

    Returns:
        The evaluation.

    Raises:
        UsageError: if nothing serves in the environment.
        SeatrialError: if the bundle or the tables cannot be used.
    """
    loaded, place = check_model(model), Workspace.open(workspace)
    pointer = read_pointer(place, environment, loaded.contract.name)
    if not digest and pointer.digest is None:
        raise UsageError(
            f"Nothing serves {loaded.contract.name} in {environment}.",
            remedy=f"Train a model first: seatrial train {loaded.contract.name}",
        )
    found = find_bundle(place, digest) if digest else str(pointer.digest)
    bundle = load_bundle(place, found, open_trust_root(place))
    valid = Tables(place, loaded.contract.name, "valid")
    tables = {name: valid.read(name) for name in bundle.contract.contract.tables}
    dataset = build_dataset(bundle.contract, bundle.features, tables, as_of=as_of_or_now(as_of))
    test = split_dataset(dataset, bundle.contract.contract.split)[2]
    probabilities = predict_probabilities(bundle.session(), bundle.schema.features.encode(test.frame))
    base_rate = float(bundle.json(TRAINING)["base_rate"])
    return _evaluate(bundle.contract, bundle.schema, test, probabilities, base_rate)
