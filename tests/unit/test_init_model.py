"""A new model from a file: what is found in it, what is refused, and that nothing is half-written."""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from seatrial.cli.app import run
from seatrial.cli.main import main
from seatrial.errors import SeatrialError, SourceError, UsageError
from seatrial.init_model import init_model
from seatrial.init_model.reading import find_separator
from seatrial.init_model.texts import quoted
from seatrial.model_check import check_model
from seatrial.model_code import run_model_code
from seatrial.sources import read_source

NOW = datetime(2025, 6, 15, tzinfo=UTC)
ROWS = 300


def customers(rows: int = ROWS, **columns: Any) -> pl.DataFrame:
    """Return customers who cancel, more often in the plan ``basic``; ``columns`` are added or replaced."""
    chance = random.Random(1)
    plans = [chance.choice(["basic", "plus", "pro"]) for _ in range(rows)]
    frame = pl.DataFrame(
        {
            "customer_id": [f"C{place:05d}" for place in range(rows)],
            "plan": plans,
            "months": [chance.randrange(1, 60) for _ in range(rows)],
            "fee": [round(chance.uniform(5, 50), 2) for _ in range(rows)],
            "cancelled": ["yes" if chance.random() < (0.5 if p == "basic" else 0.2) else "no" for p in plans],
        }
    )
    return frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})


def dates(rows: int = ROWS, start: datetime = datetime(2025, 1, 1, tzinfo=UTC)) -> list[str]:
    return [f"{start + timedelta(hours=8 * place):%Y-%m-%dT%H:%M:%SZ}" for place in range(rows)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test works."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(frame: pl.DataFrame, name: str = "data.csv", **options: Any) -> Path:
    frame.write_csv(name, **options)
    return Path(name)


def made_of(frame: pl.DataFrame, **options: Any) -> Any:
    """Make the model ``m`` of a frame, and return it with its contract and the rows as ingest reads them."""
    created = init_model("m", written(frame), now=NOW, **options)
    loaded = check_model("m")
    return created, loaded.contract, read_source(loaded, "m")


def test_finds_label_key_and_features(folder: Path) -> None:
    """A plain file needs no options: its one label, its id and its features are found, and the rows are read."""
    created, contract, rows = made_of(customers())
    assert (contract.label.column, contract.tables["m"].key) == ("cancelled", ["customer_id"])
    assert [column.name for column in created.proposal.roles.features] == ["plan", "months", "fee"]
    assert contract.prediction.inputs == ["customer_id", "plan", "months", "fee"]
    types = {name: column.type for name, column in contract.tables["m"].columns.items()}
    assert types == {
        "customer_id": "string",
        "plan": "string",
        "months": "integer",
        "fee": "number",
        "cancelled": "boolean",
    }
    assert rows["cancelled"].to_list() == (customers()["cancelled"] == "yes").to_list()
    assert sorted(path.name for path in created.folder.iterdir()) == [
        "README.md",
        "features.py",
        "model.yaml",
    ]
    assert (contract.tables["m"].source.path, contract.slices) == ("../../data.csv", ["plan"])


def test_time_gives_durations_and_a_hint(folder: Path) -> None:
    """With a column of times the split is in lengths of time, and a comment shows how a History looks."""
    created, contract, _ = made_of(customers(when=dates()))
    assert (contract.tables["m"].time, created.waiting) == ("when", 0)
    assert (contract.split.test, contract.split.validation) == (timedelta(days=20), timedelta(days=20))
    assert sum(created.rows) == ROWS
    text = (created.folder / "features.py").read_text()
    assert 'known_at=pl.col("when")' in text
    assert "History(" in text
    assert "when" in contract.prediction.inputs


def test_the_hint_can_be_used_as_it_stands(folder: Path) -> None:
    """The History that the comment of features.py shows is a right one, once it names a time."""
    created, _, _ = made_of(customers(when=dates()))
    path = created.folder / "features.py"
    text = path.read_text().replace("import Features", "import Features, History")
    history = text[text.index("#         History(") : text.index("#         Latest(")]
    history = history.replace("# ", "").replace("KNOWN", "when")
    path.write_text(text.replace("    expressions=", f"    parts=(\n{history}),\n    expressions=", 1))
    check_model("m")
    assert "before_share_7d" in run_model_code(path.read_bytes(), "features.py").FEATURES.all_names


@pytest.mark.parametrize(
    ("start", "as_of", "waiting"),
    [
        (datetime(2025, 3, 1, tzinfo=UTC), "", 0),
        (datetime(2025, 4, 1, tzinfo=UTC), "", 56),
        (datetime(2025, 6, 1, tzinfo=UTC), "2025-06", 0),
    ],
    ids=["past", "until today", "all in this month"],
)
def test_months_that_have_not_ended(folder: Path, start: datetime, as_of: str, waiting: int) -> None:
    """Rows of this month wait; where that leaves too few, the command that trains names the month's end."""
    hours = {"": 6, "2025-06": 1}[as_of]
    when = [f"{start + timedelta(hours=hours * place):%Y-%m-%d %H:%M}" for place in range(ROWS)]
    created, _, _ = made_of(customers(when=when))
    assert (created.proposal.as_of, created.waiting, sum(created.rows)) == (as_of, waiting, ROWS - waiting)


@pytest.mark.parametrize(
    ("texts", "yes"),
    [
        (("active", "churned"), "churned"),
        (("Y", "N"), "Y"),
        (("Yes", "No"), "Yes"),
        (("true", "false"), "true"),
        (("1", "0"), "1"),
        (("2", "1"), "2"),
        (("1", "-1"), "1"),
        (("1.5", "0.5"), "1.5"),
        (('say "no"\n', "<b>"), "<b>"),
        (("red", "blue"), "blue"),
    ],
)
def test_label_values(folder: Path, texts: tuple[str, str], yes: str) -> None:
    """Two values of any kind become yes and no: known words, the greater number, else the rarer text."""
    blue = [texts[1] if place % 3 == 0 else texts[0] for place in range(ROWS)]
    created, contract, rows = made_of(customers(cancelled=blue), label="cancelled")
    assert created.proposal.roles.positive.strip() == yes.strip()
    assert rows["cancelled"].cast(pl.Boolean).to_list() == [text == yes for text in blue]
    assert rows["_problems"].list.len().sum() == 0
    assert contract.tables["m"].quarantine_share == 0.01


def test_another_label_value_is_a_problem(folder: Path) -> None:
    """A third text that appears in the file later is set aside, not taken as no."""
    frame = customers(cancelled=["churned" if place % 3 else "active" for place in range(ROWS)])
    made_of(frame)
    written(frame.with_columns(pl.Series("cancelled", ["maybe", *frame["cancelled"].to_list()[1:]])))
    rows = read_source(check_model("m"), "m")
    assert rows["_problems"].to_list()[0] == ["cancelled: is not a boolean, but maybe"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators(folder: Path, separator: str) -> None:
    """Comma, semicolon, tab and bar are told apart, with a text that holds the others."""
    note = ['a, b; c | d "e"' for _ in range(ROWS)]
    path = written(customers(note=note), separator=separator)
    init_model("m", path, now=NOW)
    assert read_source(check_model("m"), "m")["note"].to_list() == note


def test_finds_the_separator_of_a_cut_off_beginning() -> None:
    """The last line of what was read may be cut off anywhere."""
    assert find_separator('a;b;c\n1,5;2,5;3\n1;"2') == ";"
    assert find_separator("") == ","


def test_decimal_commas(folder: Path) -> None:
    """Numbers such as 3,14 in a file with semicolons are read as numbers."""
    frame = customers().with_columns(pl.col("fee").cast(pl.String).str.replace(".", ",", literal=True))
    init_model("m", written(frame, separator=";"), now=NOW)
    rows = read_source(check_model("m"), "m")
    assert rows["fee"].to_list() == customers()["fee"].to_list()


def test_texts_for_missing(folder: Path) -> None:
    """A text that stands for a missing number does not make its column a text."""
    fees = ["?" if place % 10 == 0 else str(place / 2) for place in range(ROWS)]
    _, contract, rows = made_of(customers(fee=fees))
    assert contract.tables["m"].columns["fee"].type == "number"
    assert rows["fee"].null_count() == ROWS / 10


def test_parquet(folder: Path) -> None:
    """A Parquet file's own types are taken, and a kind of value that a contract has no type for is left out."""
    when = pl.Series(dates()).str.to_datetime("%Y-%m-%dT%H:%M:%SZ")
    frame = customers().with_columns(
        when.alias("when"),
        (pl.col("cancelled") == "yes").cast(pl.Float64),
        pl.col("plan").cast(pl.Categorical),
        pl.concat_list("months", "months").alias("pairs"),
    )
    frame.write_parquet("data.parquet")
    created = init_model("m", Path("data.parquet"), now=NOW)
    rows = read_source(check_model("m"), "m")
    assert rows["when"].dt.strftime("%Y-%m-%dT%H:%M:%SZ").to_list() == dates()
    assert rows["cancelled"].to_list() == frame["cancelled"].cast(pl.Int64).to_list()
    assert list(created.proposal.roles.left_out) == ["pairs"]


def test_what_is_no_feature(folder: Path) -> None:
    """Ids, texts that are hardly ever the same, constants, other times and what tells the label are no features."""
    frame = customers(
        comment=[f"text {place}" for place in range(ROWS)],
        shop_id=[place % 90 for place in range(ROWS)],
        postcode=[f"0{place % 20:04d}" for place in range(ROWS)],
        country=["FI"] * ROWS,
        ended=["2025-03-01" if place % 2 else None for place in range(ROWS)],
        status=["closed" if text == "yes" else "open" for text in customers()["cancelled"]],
        empty=[None] * ROWS,
        _at=list(range(ROWS)),
    ).rename({"empty": " "})
    created, contract, _ = made_of(frame, label="cancelled", no_time=True)
    roles = created.proposal.roles
    assert [column.name for column in roles.features] == ["plan", "months", "fee", "postcode"]
    assert list(roles.inputs_only) == ["customer_id", "comment", "shop_id"]
    assert list(roles.table_only) == ["country", "ended", "status"]
    assert list(roles.left_out) == [" ", "_at"]
    assert "status" not in contract.prediction.inputs
    assert "gives the label away" in (created.folder / "README.md").read_text()


def test_rows_without_a_key_are_numbered(folder: Path) -> None:
    """Where no column names a row, prepare.py adds a number, which a request brings."""
    _, contract, rows = made_of(customers().drop("customer_id").with_columns(row_number=pl.lit(7)))
    assert contract.tables["m"].key == ["row_number_"]
    assert rows["row_number_"].to_list() == list(range(1, ROWS + 1))
    assert "row_number_" in contract.prediction.inputs


def test_an_id_and_its_time_are_a_key(folder: Path) -> None:
    """Where things come again with time, id and time together name a row."""
    frame = customers(
        customer_id=[place // 3 for place in range(ROWS)], month=[dates()[p % 3 * 40] for p in range(ROWS)]
    )
    _, contract, _ = made_of(frame)
    assert contract.tables["m"].key == ["customer_id", "month"]


def test_rows_sorted_by_label_are_shuffled(folder: Path) -> None:
    """Without a time, a file sorted by its label is brought into a random order, the same each time."""
    created, _, rows = made_of(customers().sort("cancelled"))
    assert created.proposal.shuffled
    assert rows["customer_id"].to_list() == read_source(check_model("m"), "m")["customer_id"].to_list()
    assert sorted(rows["customer_id"]) == sorted(customers()["customer_id"])


def test_undated_rows_are_let_be(folder: Path) -> None:
    """A few rows without a time go to quarantine, and the contract lets them."""
    when: list[str | None] = [None if place % 50 == 0 else text for place, text in enumerate(dates())]
    _, contract, _ = made_of(customers(when=when), time="when")
    assert contract.tables["m"].quarantine_share == 0.04


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name.strip() and name[0] not in "_^*"
)
HARD = (
    "<script>alert(1)</script>",
    'a"b',
    "a'b",
    "a\\",
    "a: b",
    "# a",
    "a\nb",
    "a\x85b\u2028c",
    "ä ü",
    "null",
    "{x}",
    "$x ${y}",
    "self",
    "=1",
    "\U0001f600",
    "<<",
    "?",
    "- a",
    "```",
    "a|b",
    "\u202e",
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, min_size=5, max_size=5, unique=True))
@example(list(HARD[:5]))
@example(list(HARD[5:10]))
@example(list(HARD[10:15]))
@example(list(HARD[15:20]))
@example([*HARD[-1:], "a", "b", "c", "d"])
def test_columns_may_be_called_anything(folder: Path, found: list[str]) -> None:
    """Whatever columns are called, the contract and the Python files name them rightly, and rows are read."""
    frame = customers().rename(dict(zip(customers().columns, found, strict=True)))
    frame.write_parquet("data.parquet")
    created = init_model("m", Path("data.parquet"), label=found[-1], force=True, now=NOW)
    loaded = check_model("m")
    assert [*loaded.contract.tables["m"].columns] == found
    assert read_source(loaded, "m")[found[2]].to_list() == frame[found[2]].to_list()
    assert "<script" not in (created.folder / "README.md").read_text().split("```")[0]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quotes_are_those_of_python(text: str) -> None:
    """What is quoted is one line, and reads as the same text."""
    assert len(quoted(text).splitlines()) == 1
    assert eval(quoted(text), {}) == text  # noqa: S307 -- that it evaluates to the text is what is tested


WRONG: dict[str, tuple[Any, dict[str, Any], type[SeatrialError], str]] = {
    "no file": (None, {}, UsageError, "does not exist"),
    "empty file": (b"", {}, SourceError, "empty"),
    "only names": (b"a,b,c\n", {}, SourceError, "no rows"),
    "no csv": (b"PK\x03\x04\x00\x00", {}, SourceError, "zero bytes"),
    "not utf-8": ("a,b\nä,1\n".encode("latin-1"), {}, SourceError, "UTF-8"),
    "one column": (b"a\n1\n2\n", {}, SourceError, "only one column"),
    "same names": (b"a,a\n1,2\n", {}, SourceError, "'a'"),
    "no label": (customers().drop("cancelled"), {}, SourceError, "nothing to learn"),
    "label not there": (customers(), {"label": "Cancelled"}, UsageError, "no column 'Cancelled'"),
    "two labels": (
        customers(sex=["f" if place % 2 else "m" for place in range(ROWS)]).rename({"cancelled": "gone"}),
        {},
        UsageError,
        "'gone', 'sex'",
    ),
    "one class": (customers(cancelled=["no"] * ROWS), {"label": "cancelled"}, SourceError, "Got 1: no."),
    "three classes": (customers(), {"label": "plan"}, SourceError, "Got 3: "),
    "no values": (
        customers(cancelled=pl.Series([None] * ROWS, dtype=pl.String)),
        {"label": "cancelled"},
        SourceError,
        "has no values",
    ),
    "time not there": (customers(), {"time": "when"}, UsageError, "no column 'when'"),
    "time no time": (customers(), {"time": "plan"}, SourceError, "must hold times. Got string"),
    "two times": (customers(a=dates(), b=dates()), {}, UsageError, "'a', 'b'"),
    "time often missing": (
        customers(a=[dates()[0], None] * (ROWS // 2)),
        {"time": "a"},
        SourceError,
        "lacks 150",
    ),
    "too few rows": (customers(60), {}, SourceError, "at least 30"),
    "label only early": (
        customers(when=dates(), cancelled=["yes", "no"] * 75 + ["no"] * 150),
        {},
        SourceError,
        "No model can be trained",
    ),
    "nothing to learn from": (
        customers().select("customer_id", "cancelled"),
        {},
        SourceError,
        "No column is left",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_write_nothing(folder: Path, case: str) -> None:
    """Each thing that can be wrong has its error, which says what, and leaves no folder behind."""
    data, options, kind, message = WRONG[case]
    if isinstance(data, bytes):
        Path("data.csv").write_bytes(data)
    elif data is not None:
        written(data)
    with pytest.raises(kind, match=message) as found:
        init_model("m", Path("data.csv"), now=NOW, **options)
    assert type(found.value) is kind
    assert found.value.remedy or case in (
        "same names",
        "label not there",
        "time not there",
        "no values",
        "nothing to learn from",
    )
    assert not list(Path().glob("models/*"))


@pytest.mark.parametrize("name", ["", "M", "1m", "a-b", "../m", "a/b", "x" * 49, "ä", "m\n"])
def test_names_that_are_none(folder: Path, name: str) -> None:
    """A name that could not be a folder, a key and a label everywhere is refused."""
    with pytest.raises(UsageError, match="name must begin with a small letter"):
        init_model(name, written(customers()), now=NOW)


def test_an_existing_model_is_not_overwritten(folder: Path) -> None:
    """Without --force what is there stays as it is; with it, only the files that init writes are written over."""
    made_of(customers())
    contract = Path("models/m/model.yaml")
    contract.write_text("mine")
    Path("models/m/notes.txt").write_text("mine too")
    with pytest.raises(UsageError, match="exists already") as found:
        made_of(customers())
    assert "--force" in found.value.remedy
    assert contract.read_text() == "mine"
    with pytest.raises(SourceError):
        made_of(customers(60), force=True)
    assert contract.read_text() == "mine"
    made_of(customers(), force=True)
    assert Path("models/m/notes.txt").read_text() == "mine too"
    assert sorted(path.name for path in Path("models").iterdir()) == ["m"]


def test_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says what was found and what comes next, and an error's class is its exit code."""
    written(customers())
    assert main
    for arguments, code in (
        (["m", "--data", "data.csv"], 0),
        (["m", "--data", "data.csv"], 2),
        (["n", "--data", "data.csv", "--label", "plan"], 4),
        (["n", "--data", "data.csv", "--time", "a", "--no-time"], 2),
    ):
        monkeypatch.setattr(sys, "argv", ["seatrial", "init", *arguments])
        assert run() == code
    shown = capsys.readouterr()
    assert "Next: seatrial check m, then seatrial train m" in shown.out
    assert "Traceback" not in shown.err
