"""Training on rows that are odd as a whole: it ends in a model that can be written, or in an error that says why."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import polars as pl
import pytest

from seatrial.contract import LoadedContract
from seatrial.errors import TrainingError
from seatrial.model_check import load_features
from seatrial.steps.files import read_json
from seatrial.steps.training import write_model
from seatrial.training import Dataset, build_dataset, split_dataset, to_skops, train_candidates
from support.bundles import AS_OF
from support.small_model import CONTRACT, loaded_model, prices, shops, visits

TREES = """
  - name: trees
    estimator: sklearn.ensemble.HistGradientBoostingClassifier
    complexity: 2
    encoding: ordinal
    parameters: {max_iter: 5}
"""
TWO = """candidates:
  - name: small
    estimator: sklearn.ensemble.HistGradientBoostingClassifier
    complexity: 1
    encoding: ordinal
    parameters: {max_iter: 1}
    search:
      max_leaf_nodes: {low: 2, high: 3, integer: true}
  - name: large
    estimator: sklearn.ensemble.HistGradientBoostingClassifier
    complexity: 2
    encoding: ordinal
    parameters: {max_iter: 20}
    search:
      learning_rate: {low: 0.05, high: 0.2, log: true}

tuning:
  trials: 2
  sample_rows: 200
  seed: 7

selection:
  metric: average_precision
"""


def dataset_of(loaded: LoadedContract, rows: pl.DataFrame) -> Dataset:
    """Return what the model is trained and tested on, from visits."""
    tables = {"visits": rows.lazy(), "prices": prices().lazy(), "shops": shops().lazy()}
    return build_dataset(loaded, load_features(loaded), tables, as_of=AS_OF)


def trained_on(loaded: LoadedContract, rows: pl.DataFrame, folder: Path) -> dict[str, object]:
    """Train on visits and write the model's files; return what was written of the training."""
    training, validation, _ = split_dataset(dataset_of(loaded, rows), loaded.contract.split)
    trained = train_candidates(loaded, training, validation, progress=lambda _: None)
    write_model(loaded, trained, {"seconds": 0.0}, folder)
    facts: dict[str, object] = read_json(str(folder / "training.json"))
    return facts


every_candidate = pytest.mark.parametrize("candidate", ["logistic_regression", "trees"])


def contract_of(candidate: str) -> str:
    """The contract with one candidate."""
    if candidate == "logistic_regression":
        return CONTRACT
    start, end = CONTRACT.index("  - name: logistic"), CONTRACT.index("costs:")
    return CONTRACT[:start] + TREES.lstrip("\n") + "\n" + CONTRACT[end:]


@every_candidate
@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (pl.lit(None, pl.Float64).alias("amount"), "amount"),
        (pl.lit(None, pl.String).alias("shop"), "shop"),
        (("v" + pl.int_range(pl.len()).cast(pl.String)).alias("shop"), "region"),
    ],
    ids=["a number is always missing", "a category is always missing", "a key that nothing is joined by"],
)
def test_a_feature_without_a_value_is_refused_by_name(
    tmp_path: Path, candidate: str, change: pl.Expr, feature: str
) -> None:
    """A column in which there is nothing to know stops the run before it trains, whatever the candidate (D1)."""
    loaded = loaded_model(tmp_path, contract=contract_of(candidate))

    with pytest.raises(TrainingError, match="Got none that is known of: .*") as caught:
        trained_on(loaded, visits(400).with_columns(change), tmp_path / "model")
    assert feature in caught.value.message.split("of: ")[1]
    assert not (tmp_path / "model").exists()


@every_candidate
def test_a_constant_is_no_crash(tmp_path: Path, candidate: str) -> None:
    """A number that is always the same teaches nothing: the model is written, and its two files agree (D1)."""
    loaded = loaded_model(tmp_path, contract=contract_of(candidate))
    facts = trained_on(loaded, visits(400).with_columns(amount=pl.lit(5.0)), tmp_path / "model")

    parity = facts["parity"]
    assert isinstance(parity, dict)
    assert parity["difference"] <= 1e-3


# scikit-learn sums all numbers to see at once whether they are finite, and looks at each where the sum is not.
@pytest.mark.filterwarnings("ignore:invalid value encountered in reduce")
@every_candidate
@pytest.mark.parametrize("sign", [1, -1], ids=["one end", "both ends"])
def test_a_number_at_the_end_of_its_range_ends_in_a_model(tmp_path: Path, candidate: str, sign: int) -> None:
    """Where most are the largest float64 and some are missing, the median is a number and the two files agree (D1)."""
    row, largest = pl.int_range(pl.len()), sys.float_info.max
    amount = pl.when(row % 5 > 2).then(largest).when(row % 5 > 0).then(sign * largest).otherwise(None)
    facts = trained_on(
        loaded_model(tmp_path, contract=contract_of(candidate)),
        visits(400).with_columns(amount=amount),
        tmp_path / "model",
    )

    parity = facts["parity"]
    assert isinstance(parity, dict)
    assert parity["difference"] <= 1e-3


def test_rows_that_are_all_alike_end_in_a_model(tmp_path: Path) -> None:
    """The same visit again and again, with either outcome: there is nothing to learn, and no crash (D1)."""
    alike = visits(400).with_columns(shop=pl.lit("AA"), amount=pl.lit(5.0), items=pl.lit(1))
    facts = trained_on(loaded_model(tmp_path), alike, tmp_path / "model")

    assert facts["rows"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit(True).alias("returned"), "must have both classes. All 400 rows have 1"),
        (pl.lit(False).alias("returned"), "must have both classes. All 400 rows have 0"),
        (pl.lit(None, pl.Boolean).alias("returned"), "At least 30 rows must have a label"),
        ((pl.col("at").dt.month() == 1).alias("returned"), "must be at least 30 and have both classes"),
    ],
    ids=["all true", "all false", "none known", "one class in each part"],
)
def test_a_label_that_cannot_be_learned_is_refused(tmp_path: Path, change: pl.Expr, message: str) -> None:
    """A label of one class, or without a value, stops the run before it trains, and says so (D1)."""
    rows = visits(400).with_columns(change, returned_at=pl.col("at"))

    with pytest.raises(TrainingError, match=message):
        trained_on(loaded_model(tmp_path), rows, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_no_rows_are_refused(tmp_path: Path) -> None:
    """A table without a row stops the run, and says how many it needs (D1)."""
    with pytest.raises(
        TrainingError, match="At least 30 rows must have a label by the time of the run. Got 0"
    ):
        trained_on(loaded_model(tmp_path), visits(400).clear(), tmp_path / "model")


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_the_model_does_not_depend_on_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margin: float
) -> None:
    """Where a core is free, who leads is fitted ahead of the choice; whoever is chosen, the model is the same."""
    start, end = CONTRACT.index("candidates:"), CONTRACT.index("costs:")
    contract = f"{CONTRACT[:start]}{TWO}  margin: {margin}\n\n{CONTRACT[end:]}"
    loaded = loaded_model(tmp_path, contract=contract)
    training, validation, _ = split_dataset(dataset_of(loaded, visits(600)), loaded.contract.split)
    made = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr("seatrial.training.tuning.os.sched_getaffinity", lambda _, found=cores: found)
        made.append(train_candidates(loaded, training, validation, progress=lambda _: None))

    best = max(made[0].candidates, key=lambda one: one.metrics["average_precision"])
    assert made[0].chosen.name == made[1].chosen.name == (best.name if margin == 0.0 else "small")
    assert to_skops(made[0].estimator) == to_skops(made[1].estimator)
    assert [one.metrics for one in made[0].candidates] == [one.metrics for one in made[1].candidates]


def test_the_process_is_warned_of_the_same_things_after_a_training(tmp_path: Path) -> None:
    """Fits in threads set the process's filters of warnings each for itself: none fails by it, and they stay."""
    start, end = CONTRACT.index("  - name: logistic"), CONTRACT.index("costs:")
    several = "".join(
        CONTRACT[start:end].rstrip().replace("logistic_regression", f"number_{number}") + "\n"
        for number in range(4)
    )
    loaded = loaded_model(tmp_path, contract=f"{CONTRACT[:start]}{several}\n{CONTRACT[end:]}")
    training, validation, _ = split_dataset(dataset_of(loaded, visits(400)), loaded.contract.split)
    # The first one imports what adds filters.
    train_candidates(loaded, training, validation, progress=lambda _: None)
    before, pause = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            train_candidates(loaded, training, validation, progress=lambda _: None)
            assert list(warnings.filters) == before
    finally:
        sys.setswitchinterval(pause)
