"""Verdicts on a window of live traffic, and what is left unjudged."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seatrial.bundle import Bundle, BundleSchema, InputColumn, Manifest
from seatrial.bundle import content as names
from seatrial.errors import BundleError, FeedbackError
from seatrial.evaluation.intervals import Interval
from seatrial.features import FeatureColumn, FeatureSchema
from seatrial.feedback.rows import PREDICTIONS
from seatrial.monitoring import MonitorResult, fit_baseline, monitor
from seatrial.monitoring.evidently_report import decoded
from seatrial.monitoring.quality import judge_quality
from seatrial.verdicts import Outcome

START, END = datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 8, 1, tzinfo=UTC)
CONTRACT = Path(__file__).parents[2] / "models" / "flights" / "model.yaml"
CHECKS = ["drift", "prediction_drift", "missing", "unseen", "outliers", "quality"]
COLUMNS = (
    FeatureColumn(name="wind", kind="number"),
    FeatureColumn(name="rain", kind="number"),
    FeatureColumn(name="carrier", kind="category", categories=("AA", "UA")),
)


def draw(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encoded rows, probabilities and labels of a world that does not change."""
    generator = np.random.default_rng(seed)
    matrix = np.column_stack(
        [
            generator.uniform(0, 10, rows),
            generator.choice([0, 0, 0, 1], rows),
            generator.choice([0, 1], rows),
        ]
    ).astype(np.float32)
    probabilities = 1 / (1 + np.exp(4 - 0.6 * matrix[:, 0].astype(np.float64)))
    return matrix, probabilities, (generator.uniform(size=rows) < probabilities).astype(np.float64)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A bundle of that world, with the flights' contract: 1,000 rows and 500 outcomes are needed."""
    matrix, probabilities, labels = draw(20_000, 1)
    schema = BundleSchema(
        table="flights",
        key=("flight_id",),
        inputs=(InputColumn(name="flight_id", type="string", required=True),),
        features=FeatureSchema(columns=COLUMNS),
        label="late",
        label_time="landed_at",
        threshold=1 / 6,
    )
    figure = {"value": 0.87, "low": 0.865, "high": 0.875}
    background = {"columns": schema.features.names, "rows": matrix[:500].tolist()}
    files = {
        names.CONTRACT: CONTRACT.read_bytes(),
        names.SCHEMA: schema.model_dump_json().encode(),
        names.BASELINE: fit_baseline(matrix, schema.features, probabilities, labels)
        .model_dump_json()
        .encode(),
        names.METRICS: orjson.dumps({"test": {"roc_auc": figure}}),
        names.BACKGROUND: orjson.dumps(background),
    }
    manifest = Manifest(model="flights", created="2013-07-01T00:00:00+00:00", run="r", data={}, files=())
    return Bundle("a" * 64, manifest, files, "me")


def window(
    bundle: Bundle,
    matrix: np.ndarray,
    probabilities: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    answered_by: str | None = None,
    client: str | None = None,
) -> pl.DataFrame:
    """Predictions with their outcomes, as the join of the feedback tables gives them; of nine clients."""
    rows = len(matrix)
    frame = pl.DataFrame(
        {
            "prediction_id": [f"{place:08d}" for place in range(rows)],
            "bundle": [answered_by or bundle.digest] * rows,
            "client": [client or f"10.0.0.{place % 9}" for place in range(rows)],
            "features": pl.Series(matrix.tolist(), dtype=PREDICTIONS["features"]),
            "probability": probabilities,
        }
    )
    outcome = pl.lit(None, pl.Float64) if labels is None else pl.Series(labels)
    return frame.with_columns(outcome.alias("outcome"))


def judged(bundle: Bundle, frame: pl.DataFrame) -> MonitorResult:
    return monitor(bundle, frame, start=START, end=END)


def failed(result: MonitorResult) -> list[str]:
    return [verdict.check for verdict in result.verdicts if verdict.outcome is Outcome.FAIL]


def test_a_window_like_the_training_rows_passes(bundle: Bundle) -> None:
    """Rows of the same world pass every check, each judged, and the result survives its JSON."""
    result = judged(bundle, window(bundle, *draw(3_000, 2)))

    assert [verdict.check for verdict in result.verdicts] == [f"monitor.{check}" for check in CHECKS]
    assert (result.outcome, failed(result)) == (Outcome.PASS, [])
    assert all(verdict.evidence["judged"] for verdict in result.verdicts)
    assert (result.rows, result.other_rows, result.outcomes) == (3_000, 0, 3_000)
    assert result.quality is not None
    assert result.quality["roc_auc"].value == pytest.approx(0.87, abs=0.02)
    assert MonitorResult.model_validate_json(result.model_dump_json()) == result


def test_rows_of_another_bundle_are_left_out_and_counted(bundle: Bundle) -> None:
    """What another bundle answered, here with another number of features, is not compared."""
    other = window(
        bundle, np.ones((50, 7), dtype=np.float32), np.full(50, 0.5), np.ones(50), answered_by="b" * 64
    )
    own = window(bundle, *draw(1_500, 2))
    result = judged(bundle, pl.concat([own, other]))

    assert (result.rows, result.other_rows, result.outcomes) == (1_500, 50, 1_500)
    assert result.model_copy(update={"other_rows": 0}) == judged(bundle, own)


def test_a_small_window_is_not_judged_and_says_so(bundle: Bundle) -> None:
    """Below the contract's rows and outcomes every check passes unjudged, with the reason."""
    result = judged(bundle, window(bundle, *draw(499, 2)))

    assert result.outcome is Outcome.PASS
    assert [verdict.evidence for verdict in result.verdicts] == [{"judged": False}] * len(CHECKS)
    assert (
        result.verdicts[0].message == "Not judged: 499 predictions in the window, at least 1000 are needed."
    )
    assert result.verdicts[-1].message == "Not judged: 499 outcomes in the window, at least 500 are needed."
    assert (result.drift, result.quality) == (None, None)


def test_an_empty_window_is_not_judged(bundle: Bundle) -> None:
    """No prediction at all is no error and no failure."""
    result = judged(bundle, window(bundle, *draw(1, 2)).clear())

    assert (result.rows, result.outcome_rate, result.outcome) == (0, None, Outcome.PASS)


def test_drift_is_judged_without_outcomes(bundle: Bundle) -> None:
    """Outcomes that have not arrived leave quality unjudged and the rest judged."""
    matrix, probabilities, _ = draw(2_000, 2)
    result = judged(bundle, window(bundle, matrix, probabilities))

    assert result.verdict("monitor.drift").evidence["judged"]
    assert result.verdict("monitor.quality").evidence == {"judged": False}


def test_drift_of_the_world_fails_and_is_named(bundle: Bundle) -> None:
    """Wind and carriers that change fail the drift verdict, which names both and not the rain."""
    matrix, probabilities, labels = draw(2_000, 2)
    matrix[:, 0] /= 2
    matrix[:, 2] = 0
    result = judged(bundle, window(bundle, matrix, probabilities, labels))

    assert failed(result) == ["monitor.drift"]
    verdict = result.verdict("monitor.drift")
    assert verdict.evidence["drifted"] == ["wind", "carrier"]
    assert verdict.value == pytest.approx(2 / 3)
    assert verdict.bound == 0.3


def odd_rows(rows: int, wind: float, carrier: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of one wind and one carrier, in no rain, whose outcomes are the opposite of the answers."""
    matrix = np.tile(np.array([wind, 0, carrier], dtype=np.float32), (rows, 1))
    probabilities = np.linspace(0.01, 0.99, rows)
    return matrix, probabilities, (probabilities < 0.5).astype(np.float64)


@given(
    rows=st.integers(150, 4_000),
    wind=st.floats(-1e6, 1e6, width=32) | st.just(float("nan")),
    carrier=st.sampled_from([-2, -1, 0, 1]),
)
@example(rows=4_000, wind=1e6, carrier=-1)
@settings(max_examples=10, deadline=None)
def test_whatever_one_client_sends_fails_nothing_but_by_itself(
    bundle: Bundle, rows: int, wind: float, carrier: int
) -> None:
    """Among clients as ever, one that sends anything in any number is named by each verdict that fails (T5)."""
    honest = window(bundle, *draw(1_200, 2))
    odd = window(bundle, *odd_rows(rows, wind, carrier), client="mallory")
    result = judged(bundle, pl.concat([honest, odd]))

    for check in failed(result):
        assert result.verdict(check).evidence["one_client"] == "mallory"
        assert "Without the predictions of client mallory it would pass." in result.verdict(check).message
    if (rows, wind, carrier) == (4_000, 1e6, -1):
        assert failed(result) == [f"monitor.{check}" for check in CHECKS if check != "missing"]


def test_what_all_clients_see_rests_on_none(bundle: Bundle) -> None:
    """Drift and a fall of quality that every client meets name no client, though one is far the largest."""
    matrix, probabilities, labels = draw(9_000, 2)
    matrix[:, 0] /= 2
    labels = np.random.default_rng(3).permutation(labels)
    frame = window(bundle, matrix, probabilities, labels)
    large = pl.when(pl.col("prediction_id") < "00005000").then(pl.lit("large")).otherwise("client")
    result = judged(bundle, frame.with_columns(client=large))

    assert failed(result) == ["monitor.drift", "monitor.quality"]
    assert all("one_client" not in result.verdict(check).evidence for check in failed(result))


@pytest.mark.parametrize("client", ["10.0.0.1", None])
def test_drift_of_the_only_client_rests_on_it(bundle: Bundle, client: str | None) -> None:
    """Where one client asks for all, or none is named, nobody else is there to bear the drift out."""
    matrix, probabilities, labels = draw(2_000, 2)
    matrix[:, 0] /= 2
    matrix[:, 2] = 0
    frame = window(bundle, matrix, probabilities, labels).with_columns(client=pl.lit(client, pl.String))
    verdict = judged(bundle, frame).verdict("monitor.drift")

    assert verdict.evidence["one_client"] == (client or "(unnamed)")
    assert verdict.message.endswith("too few are left to judge.")


def test_drift_of_the_prediction_fails_by_itself(bundle: Bundle) -> None:
    """Probabilities that move are found although the features are as ever."""
    matrix, probabilities, labels = draw(2_000, 2)
    result = judged(bundle, window(bundle, matrix, probabilities**2, labels))

    assert failed(result) == ["monitor.prediction_drift"]


def test_missing_unseen_and_outlying_values_fail_each_by_its_own_bound(bundle: Bundle) -> None:
    """A sixth of the wind missing, a tenth of the carriers unseen, a tenth of the winds above all known."""
    for place, value, share, check in (
        (0, np.nan, 6, "missing"),
        (2, -1, 10, "unseen"),
        (0, 11, 10, "outliers"),
    ):
        matrix, probabilities, labels = draw(2_000, 2)
        matrix[::share, place] = value
        result = judged(bundle, window(bundle, matrix, probabilities, labels))
        assert f"monitor.{check}" in failed(result)
        assert result.verdict(f"monitor.{check}").value == pytest.approx(1 / share, abs=0.001)


def test_a_fall_of_live_quality_fails(bundle: Bundle) -> None:
    """Outcomes that the model cannot tell fail the quality verdict, with the figures as evidence."""
    matrix, probabilities, labels = draw(3_000, 2)
    result = judged(
        bundle, window(bundle, matrix, probabilities, np.random.default_rng(3).permutation(labels))
    )
    verdict = result.verdict("monitor.quality")

    assert failed(result) == ["monitor.quality"]
    assert verdict.value == pytest.approx(0.37, abs=0.03)
    assert verdict.evidence["reference"] == {"roc_auc": 0.87}
    assert set(verdict.evidence["live"]) >= {"roc_auc", "average_precision", "brier_score", "cost_per_row"}


@pytest.mark.parametrize(
    ("live", "outcome"),
    [
        (Interval(value=0.83, low=0.81, high=0.85), Outcome.PASS),
        (Interval(value=0.80, low=0.72, high=0.88), Outcome.WARN),
        (Interval(value=0.80, low=0.78, high=0.86), Outcome.FAIL),
        (Interval(value=None), Outcome.FAIL),
    ],
)
def test_a_fall_that_may_be_chance_is_a_warning(bundle: Bundle, live: Interval, outcome: Outcome) -> None:
    """A fall beyond the bound fails only where the live interval lies below the bundle's 0.87."""
    verdict = judge_quality(bundle, {"roc_auc": live})

    assert verdict.outcome is outcome
    assert ("may be chance" in verdict.message) == (outcome is Outcome.WARN)


def test_what_cannot_be_computed_fails(bundle: Bundle) -> None:
    """Outcomes of one class, probabilities that are no numbers, and metrics without a figure all fail."""
    matrix, probabilities, labels = draw(2_000, 2)
    one_class = judged(bundle, window(bundle, matrix, probabilities, np.zeros(2_000)))
    assert failed(one_class) == ["monitor.quality"]
    assert "could not be computed" in one_class.verdict("monitor.quality").message

    no_number = np.where(np.arange(2_000) == 7, np.nan, probabilities)
    broken = judged(bundle, window(bundle, matrix, no_number, labels))
    assert failed(broken) == ["monitor.prediction_drift", "monitor.quality"]
    assert broken.verdict("monitor.prediction_drift").value is None

    without = Bundle(bundle.digest, bundle.manifest, {**bundle.files, names.METRICS: b'{"test": {}}'}, "me")
    assert failed(judged(without, window(bundle, matrix, probabilities, labels))) == ["monitor.quality"]


def test_predictions_with_other_features_are_refused(bundle: Bundle) -> None:
    """A prediction of this bundle with another number of features is an error that says so."""
    wrong = window(bundle, np.zeros((1_000, 2), dtype=np.float32), np.full(1_000, 0.5))

    with pytest.raises(FeedbackError, match=r"must have 3 features. Got 1000 predictions"):
        judged(bundle, wrong)


def test_a_bundle_without_a_baseline_cannot_be_watched(bundle: Bundle) -> None:
    """A bundle that lacks its baseline is an error that names the file."""
    files = {name: content for name, content in bundle.files.items() if name != names.BASELINE}

    with pytest.raises(BundleError, match=r"has no baseline\.json"):
        judged(Bundle(bundle.digest, bundle.manifest, files, "me"), window(bundle, *draw(5, 2)))


def test_categories_are_shown_by_their_names() -> None:
    """In the report a code is its category, and unseen and missing ones say so; infinity is missing."""
    matrix = np.array([[1, np.inf, 0], [2, 1, 1], [3, 1, -1], [4, np.nan, -2]], dtype=np.float32)
    frame = decoded(matrix, COLUMNS)

    assert frame["carrier"].tolist() == ["AA", "UA", "(unseen)", "(missing)"]
    assert frame["rain"].isna().tolist() == [True, False, False, True]


def test_the_verdict_does_not_import_what_draws() -> None:
    """Judging a window imports neither evidently nor pandas nor scikit-learn, each of which takes seconds."""
    code = "import sys, seatrial.monitoring, seatrial.triggers; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"evidently", "pandas", "sklearn", "matplotlib"} & set(done.stdout.split())
