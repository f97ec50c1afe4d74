"""One contract for every source: the same rows arrive the same, wherever they come from."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seatrial.contract import LoadedContract
from seatrial.errors import SourceError
from seatrial.sources import PROBLEMS, read_source
from support.small_model import CONTRACT, loaded_model, visits, write_csv

Frames = pl.DataFrame


def _csv(frame: Frames, folder: Path) -> str:
    write_csv(frame, folder / "in" / "visits.csv")
    return "{kind: file, path: in/visits.csv}"


def _semicolons(frame: Frames, folder: Path) -> str:
    write_csv(frame, folder / "in" / "visits.csv")
    path = folder / "in" / "visits.csv"
    path.write_text(path.read_text().replace(",", ";"))
    return "{kind: file, path: in/visits.csv, separator: ';'}"


def _zipped(frame: Frames, folder: Path) -> str:
    write_csv(frame, folder / "out" / "visits.csv")
    (folder / "in").mkdir()
    with zipfile.ZipFile(folder / "in" / "visits.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "out" / "visits.csv", "visits.csv")
    return "{kind: file, path: in/visits.zip}"


def _parquet(frame: Frames, folder: Path) -> str:
    (folder / "in").mkdir()
    frame.write_parquet(folder / "in" / "visits.parquet")
    return "{kind: file, path: in/visits.parquet}"


def _glob(frame: Frames, folder: Path) -> str:
    half = frame.height // 2
    write_csv(frame[:half], folder / "in" / "1.csv")
    write_csv(frame[half:], folder / "in" / "2.csv")
    return "{kind: file, path: in/*.csv}"


def _absolute(frame: Frames, folder: Path) -> str:
    write_csv(frame, folder / "elsewhere" / "visits.csv")
    return f"{{kind: file, path: '{folder / 'elsewhere' / 'visits.csv'}'}}"


def _package(frame: Frames, folder: Path) -> str:
    """Make a distribution as an installer would leave it."""
    write_csv(frame, folder / "site" / "visits_data" / "visits.csv")
    facts = folder / "site" / "visits_data-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: visits-data\nVersion: 1.0\n")
    (facts / "RECORD").write_text("visits_data/visits.csv,,\n")
    return "{kind: package, package: visits-data, path: visits_data/visits.csv}"


SOURCES: list[Callable[[Frames, Path], str]] = [
    _csv,
    _semicolons,
    _zipped,
    _parquet,
    _glob,
    _absolute,
    _package,
]
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__.strip("_"))


@pytest.fixture
def model_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LoadedContract]:
    """Make the small model with its visits in a source."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "visits" / "site"), *sys.path])

    def make(source: Callable[[Frames, Path], str], frame: Frames) -> LoadedContract:
        (tmp_path / "visits").mkdir()
        said = source(frame, tmp_path / "visits")
        return loaded_model(tmp_path, contract=CONTRACT.replace("{kind: file, path: data/visits.csv}", said))

    return make


@every_source
def test_rows_arrive_as_they_are(
    model_of: Callable[..., LoadedContract], source: Callable[[Frames, Path], str]
) -> None:
    """Every value, with the contract's types, in the order of the source, and no problem."""
    frame = visits(40).with_columns(
        amount=pl.when(pl.int_range(40) % 7 > 0).then("amount"),
        returned=pl.when(pl.int_range(40) > 9).then("returned"),
    )

    found = read_source(model_of(source, frame), "visits")

    assert_frame_equal(found.drop(PROBLEMS), frame)
    assert found[PROBLEMS].list.len().sum() == 0


@every_source
def test_a_value_of_another_type_is_told(
    model_of: Callable[..., LoadedContract], source: Callable[[Frames, Path], str]
) -> None:
    """The row arrives, the value is missing, and the problem has the value."""
    frame = visits(10).with_columns(pl.col("items").cast(pl.Float64) + 0.5)

    found = read_source(model_of(source, frame), "visits")

    assert found["items"].null_count() == 10
    assert found[PROBLEMS].to_list() == [
        [f"items: is not an integer, but {value}"] for value in frame["items"]
    ]


@every_source
def test_a_missing_column_is_refused(
    model_of: Callable[..., LoadedContract], source: Callable[[Frames, Path], str]
) -> None:
    """The message names the table, the column, and what there is instead."""
    with pytest.raises(
        SourceError, match="Table 'visits': The source lacks the column shop. It has: visit, at"
    ):
        read_source(model_of(source, visits(10).drop("shop")), "visits")
