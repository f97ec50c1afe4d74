"""Steps 1 to 4: ingest, validate, features, split."""

from __future__ import annotations

from collections import Counter

from seatrial.data_tests import as_of_or_now, profile, validate
from seatrial.errors import DataTestError
from seatrial.model_check import check_model, load_features
from seatrial.sources import ingest
from seatrial.steps.files import (
    open_tables,
    read_dataset,
    read_json,
    reported,
    say,
    write_dataset,
    write_json,
)
from seatrial.table_facts import versions_to_json
from seatrial.tables import Tables
from seatrial.training.dataset import build_dataset, split_dataset
from seatrial.verdicts import Outcome, Verdict
from seatrial.workspace import Workspace

_SHOWN = 3


@reported
def ingest_data(model: str, workspace: str, as_of: str, batches_out: str) -> int:
    """Append every period that has ended by ``as_of`` to the raw tables.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        as_of: Instant of the run; empty: now.
        batches_out: Path for the batches, as JSON.

    Returns:
        Number of rows added or replaced.

    Raises:
        SeatrialError: if the contract or a source is wrong or the store fails.
    """
    results = ingest(check_model(model), Workspace.open(workspace), until=as_of_or_now(as_of))
    write_json(batches_out, results)
    rows = 0
    for table in dict.fromkeys(result.table for result in results):
        mine = [result for result in results if result.table == table]
        written = [result for result in mine if result.status != "unchanged"]
        rows += sum(result.rows for result in written)
        new = ", ".join(f"{result.batch} {result.status}" for result in written[-_SHOWN:]) or "nothing new"
        more = f"{len(written) - _SHOWN} more, " if len(written) > _SHOWN else ""
        say(f"{table}: {sum(r.rows for r in mine):,} rows in {len(mine)} batches ({more}{new})")
    return rows


@reported
def validate_data(
    model: str, workspace: str, as_of: str, checks_out: str, versions_out: str, profiles_out: str
) -> int:
    """Test every batch and make what passes valid; a failed batch stops the run.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        as_of: Instant of the run; empty: now.
        checks_out: Path for what the data tests found, as JSON.
        versions_out: Path for the versions of the valid tables, as JSON.
        profiles_out: Path for the tables' profiles, as JSON.

    Returns:
        Number of rows in quarantine.

    Raises:
        DataTestError: if a batch failed; what was found is written all the same.
        SeatrialError: if the contract is wrong or the store fails.
    """
    loaded, place = check_model(model), Workspace.open(workspace)
    checks = validate(loaded, place, as_of=as_of_or_now(as_of))
    write_json(checks_out, checks)
    quarantined = sum(check.quarantined for check in checks)
    reasons: Counter[str] = Counter()
    for check in checks:
        reasons.update(check.reasons)
    top = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
    say(
        f"{sum(c.rows for c in checks):,} rows in {len(checks)} batches tested, {quarantined} in quarantine"
        f"{': ' + top if top else ''}"
    )
    failed = [(c, v) for c in checks for v in c.verdicts if v.outcome is Outcome.FAIL]
    if failed:
        raise DataTestError(
            "The data tests failed: " + " ".join(_said(verdict) for _, verdict in failed),
            remedy=f"Look at the rows: seatrial data show {loaded.contract.name} {failed[0][0].table} --layer "
            "quarantine. Correct the source and ingest it with --replace.",
        )
    valid = Tables(place, loaded.contract.name, "valid")
    write_json(versions_out, versions_to_json([valid.version(name) for name in loaded.contract.tables]))
    write_json(profiles_out, {name: profile(valid.read(name).collect()) for name in loaded.contract.tables})
    return quarantined


def _said(verdict: Verdict) -> str:
    wanted = "at least" if verdict.check.startswith("data.rows.") else "at most"
    bound, got = (
        "nothing" if n is None else f"{n:g} {verdict.unit}".rstrip() for n in (verdict.bound, verdict.value)
    )
    return f"{verdict.message} It must be {wanted} {bound}. Got {got} instead."


@reported
def make_features(model: str, workspace: str, as_of: str, versions_in: str, features_out: str) -> int:
    """Compute the features of every labelled row.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        as_of: Instant of the run; empty: now.
        versions_in: Path of the versions of the valid tables.
        features_out: Path for the dataset, as Parquet.

    Returns:
        Number of rows.

    Raises:
        SeatrialError: if the features cannot be computed.
    """
    loaded, place = check_model(model), Workspace.open(workspace)
    tables = open_tables(loaded, place, read_json(versions_in))
    dataset = build_dataset(loaded, load_features(loaded), tables, as_of=as_of_or_now(as_of))
    write_dataset(features_out, dataset)
    start, end = dataset.period
    say(
        f"{len(dataset.features)} features of {dataset.frame.height:,} labelled rows, {start[:16]} to {end[:16]}, "
        f"{dataset.labels.mean():.1%} {loaded.contract.label.column}"
    )
    return dataset.frame.height


@reported
def split_rows(model: str, features_in: str, training_out: str, validation_out: str, test_out: str) -> None:
    """Divide the rows by time into training, validation and test rows.

    Args:
        model: The model's name or folder.
        features_in: Path of the dataset.
        training_out: Path for the training rows, as Parquet.
        validation_out: Path for the validation rows, as Parquet.
        test_out: Path for the test rows, as Parquet.

    Raises:
        TrainingError: if there are too few rows.
    """
    parts = split_dataset(read_dataset(features_in), check_model(model).contract.split)
    for part, path in zip(parts, (training_out, validation_out, test_out), strict=True):
        write_dataset(path, part)
    counts = [f"{part.frame.height:,}" for part in parts]
    say(
        f"{counts[0]} training, {counts[1]} validation, {counts[2]} test rows; test from {parts[2].period[0][:10]}"
    )
