"""Baselines and distances: exact at ties, blind to the order of rows, and quiet where nothing moved."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from seatrial.contract.schema import Monitoring
from seatrial.errors import FeatureError
from seatrial.features import FeatureColumn, FeatureSchema
from seatrial.monitoring import Baseline, ColumnDrift, compare, fit_baseline
from seatrial.monitoring.drift import PSI_BINS, SMALLEST_SHARE

RULES = Monitoring(psi=0.2, ks=0.1)
NUMBER = FeatureSchema(columns=(FeatureColumn(name="x", kind="number"),))
CATEGORY = FeatureSchema(columns=(FeatureColumn(name="c", kind="category", categories=("a", "b", "c")),))

floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
few_values = st.sampled_from([0.0, 1.0, 2.0, float("nan")])
numbers = st.one_of(
    arrays(np.float32, st.integers(1, 300), elements=floats),
    arrays(np.float32, st.integers(1, 300), elements=few_values),
)
codes = arrays(np.float32, st.integers(1, 300), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0]))


def fitted(column: np.ndarray, schema: FeatureSchema = NUMBER) -> Baseline:
    """A baseline of one feature, whose prediction is always one half."""
    return fit_baseline(column.reshape(-1, 1), schema, np.full(len(column), 0.5), np.arange(len(column)) % 2)


def drift(reference: np.ndarray, current: np.ndarray, schema: FeatureSchema = NUMBER) -> ColumnDrift:
    """The distance of one feature."""
    found = compare(
        fitted(reference, schema), current.reshape(-1, 1), np.full(len(current), 0.5), RULES, threads=1
    )
    return found.columns[0]


def _distribution(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The empirical distribution function of ``values`` at ``places``."""
    return np.searchsorted(np.sort(values), places, side="right") / len(values)


def normal(rows: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=rows) + shift).astype(np.float32)


@given(column=numbers)
def test_a_baseline_survives_its_json(column: np.ndarray) -> None:
    """A baseline read back from its JSON is the same, whatever the numbers: none, equal, or infinite."""
    baseline = fitted(column)

    assert Baseline.model_validate_json(baseline.model_dump_json()) == baseline


@given(column=numbers)
def test_rows_against_themselves_have_not_moved(column: np.ndarray) -> None:
    """Both distances of a sample to itself are 0, also with ties, one value, or nothing but missing ones."""
    found = drift(column, column)

    assert found.psi == pytest.approx(0.0, abs=1e-12)
    assert found.ks in (None, 0.0)
    assert (found.missing_rise, found.outside_share, found.drifted) == (0.0, 0.0, False)


@given(column=codes)
def test_categories_against_themselves_have_not_moved(column: np.ndarray) -> None:
    """The distance of a category's codes to themselves is 0, unseen and missing ones included."""
    found = drift(column, column, CATEGORY)

    assert found.psi == pytest.approx(0.0, abs=1e-12)
    assert (found.missing_rise, found.unseen_rise, found.drifted) == (0.0, 0.0, False)


@given(reference=numbers, current=numbers)
def test_distances_stay_in_their_bounds(reference: np.ndarray, current: np.ndarray) -> None:
    """KS is in [0, 1], PSI is not negative, shares are shares, for any two samples."""
    found = drift(reference, current)

    assert found.ks is None or 0 <= found.ks <= 1
    assert found.psi >= 0
    assert 0 <= found.missing_share <= 1
    assert 0 <= found.outside_share <= 1
    assert -1 <= found.missing_rise <= 1


@given(reference=numbers, current=numbers)
def test_ks_is_the_exact_one_to_a_hundredth(reference: np.ndarray, current: np.ndarray) -> None:
    """KS at the knots is never above the distance on all rows and at most 0.01 below it."""
    found = drift(reference, current)
    limit = np.finfo(np.float32).max
    left, right = (np.clip(side[~np.isnan(side)], -limit, limit) for side in (reference, current))
    if found.ks is None:
        assert not len(left) or not len(right)
        return
    places = np.concatenate([left, right])
    exact = np.abs(_distribution(left, places) - _distribution(right, places)).max()

    assert exact - 0.01 - 1e-9 <= found.ks <= exact + 1e-9


@given(reference=numbers, current=numbers, seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(reference: np.ndarray, current: np.ndarray, seed: int) -> None:
    """Shuffling the rows of either side changes nothing."""
    shuffle = np.random.default_rng(seed).permutation

    assert drift(shuffle(reference), shuffle(current)) == drift(reference, current)


def test_psi_is_the_textbook_one_on_continuous_rows() -> None:
    """On rows without ties PSI is that of ten bins between the reference's deciles."""
    reference, current = normal(5_000, 1), normal(3_000, 2, shift=0.4)
    edges = np.quantile(reference, np.arange(1, PSI_BINS) / PSI_BINS, method="inverted_cdf")
    p = np.bincount(np.searchsorted(edges, reference), minlength=PSI_BINS) / len(reference)
    q = np.bincount(np.searchsorted(edges, current), minlength=PSI_BINS) / len(current)

    assert drift(reference, current).psi == pytest.approx(np.sum((q - p) * np.log(q / p)), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        (lambda x: x + 1, "ks"),
        (lambda x: x * 3, "psi"),
        (lambda x: np.where(np.arange(len(x)) % 2 == 0, np.float32("nan"), x), "missing_rise"),
        (lambda x: np.full_like(x, np.nan), "missing_share"),
        (lambda x: x + 100, "outside_share"),
    ],
)
def test_a_known_change_is_found(change, measure: str) -> None:  # noqa: ANN001
    """A shift, a stretch, and values that go missing are drift, and the measure that says so is high."""
    found = drift(normal(10_000, 1), change(normal(2_000, 2)).astype(np.float32))

    assert found.drifted
    assert getattr(found, measure) > 0.15


def test_a_constant_that_changes_is_found_on_either_side() -> None:
    """A column of one value has drifted when it becomes another, lower or higher."""
    constant = np.full(1_000, 5.0, dtype=np.float32)

    for value in (4.0, 6.0):
        found = drift(constant, np.full(1_000, value, dtype=np.float32))
        assert (found.ks, found.outside_share, found.drifted) == (1.0, 1.0, True)
        assert found.psi > RULES.psi


def test_ties_do_not_hide_a_change() -> None:
    """Of a column that is 0 in nine rows of ten, a fall to six in ten is measured as 0.3."""
    reference = np.repeat(np.float32([0, 1]), [900, 100])
    current = np.repeat(np.float32([0, 1]), [600, 400])

    assert drift(reference, current).ks == pytest.approx(0.3)


def test_a_feature_that_was_never_there_and_comes_is_found() -> None:
    """All missing in training and present now is drift by PSI; KS has nothing to compare."""
    found = drift(np.full(500, np.nan, dtype=np.float32), normal(500, 1))

    assert found.ks is None
    assert (found.drifted, found.missing_rise, found.outside_share) == (True, -1.0, 1.0)


def test_unseen_and_missing_categories_are_counted_apart() -> None:
    """A category that is not known is not the same as none; each has its share, and both move PSI."""
    reference = np.repeat(np.float32([0, 1]), [500, 500])
    current = np.repeat(np.float32([0, -1, -2]), [500, 300, 200])
    found = drift(reference, current, CATEGORY)

    assert (found.unseen_share, found.unseen_rise) == (0.3, 0.3)
    assert (found.missing_share, found.missing_rise) == (0.2, 0.2)
    assert found.drifted


def test_a_feature_with_one_category_does_not_drift_by_itself() -> None:
    """One category only, then and now, is no drift and divides by nothing."""
    only = FeatureSchema(columns=(FeatureColumn(name="c", kind="category", categories=("a",)),))
    zeros = np.zeros(800, dtype=np.float32)
    found = drift(zeros, zeros, only)

    assert (found.psi, found.psi_chance, found.drifted) == (0.0, 0.0, False)


def test_an_empty_bin_counts_as_a_ten_thousandth() -> None:
    """A category that vanished has a finite index: its share counts as 0.0001."""
    current = np.zeros(1_000, dtype=np.float32)
    p, q = np.array([0.5, 0.5]), np.array([1.0, SMALLEST_SHARE])
    found = drift(np.repeat(np.float32([0, 1]), [500, 500]), current, CATEGORY)

    assert found.psi == pytest.approx(np.sum((q - p) * np.log(q / p)))


def test_chance_alone_is_rarely_called_drift() -> None:
    """With bounds next to 0, columns that did not move are called drifted about once in a thousand times.

    Without that rule every one of them would be called drifted.
    """
    tiny = Monitoring(psi=1e-9, ks=1e-9)
    generator = np.random.default_rng(5)
    columns = [FeatureColumn(name=f"x{i}", kind="number") for i in range(100)]
    names = tuple(str(i) for i in range(100))
    columns += [FeatureColumn(name=f"c{i}", kind="category", categories=names) for i in range(100)]

    def draw(rows: int) -> np.ndarray:
        kinds = generator.geometric(0.05, size=(rows, 100)).clip(1, 100) - 1
        return np.hstack([generator.gamma(2, size=(rows, 100)), kinds]).astype(np.float32)

    training = draw(5_000)
    baseline = fit_baseline(training, FeatureSchema(columns=tuple(columns)), training[:, 0], np.zeros(5_000))
    found = [compare(baseline, rows := draw(500), rows[:, 0], tiny).columns for _ in range(5)]
    drifted = [column.drifted for window in found for column in window]

    assert np.mean(drifted) < 0.004


def test_the_share_of_outlier_rows_counts_a_row_once() -> None:
    """A row with two numbers out of range is one outlier; a missing number is none."""
    schema = FeatureSchema(columns=tuple(FeatureColumn(name=name, kind="number") for name in "xy"))
    training = np.array([[0, 0], [1, 1]], dtype=np.float32)
    rows = np.array([[2, 2], [0.5, -1], [0.5, np.nan], [1, 0]], dtype=np.float32)
    baseline = fit_baseline(training, schema, np.array([0.1, 0.9]), np.array([0, 1]))
    found = compare(baseline, rows, np.full(4, 0.5), RULES)

    assert found.outlier_share == 0.5
    assert [column.outside_share for column in found.columns] == [0.25, 0.5]


def test_a_baseline_is_small() -> None:
    """A number takes less than 4 kB, however many rows there are."""
    baseline = fitted(normal(100_000, 1))

    assert len(baseline.model_dump_json()) < 4_000
    assert len(baseline.features[0].values) == 101


def test_rows_that_do_not_fit_are_refused() -> None:
    """No row, another width, another number of probabilities, and a code of no category are errors."""
    baseline = fitted(normal(10, 1))
    one = np.zeros((1, 1), dtype=np.float32)

    with pytest.raises(FeatureError, match=r"Got a matrix of shape \(0, 1\)"):
        compare(baseline, one[:0], np.zeros(0), RULES)
    with pytest.raises(FeatureError, match=r"Got a matrix of shape \(1, 2\)"):
        compare(baseline, np.zeros((1, 2), dtype=np.float32), np.zeros(1), RULES)
    with pytest.raises(FeatureError, match="2 probabilities"):
        compare(baseline, one, np.zeros(2), RULES)
    with pytest.raises(FeatureError, match=r"must be from -2 to 2\. Got codes from 7.0 to 7.0"):
        drift(np.zeros(5, dtype=np.float32), np.full(5, 7, dtype=np.float32), CATEGORY)
    with pytest.raises(FeatureError, match="at least one row"):
        fit_baseline(one[:0], NUMBER, np.zeros(0), np.zeros(0))
