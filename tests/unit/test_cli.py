"""The command line: exit codes that mean something, errors without tracebacks, JSON for scripts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from seatrial import __version__
from seatrial.cli import main  # noqa: F401 -- it registers the commands
from seatrial.cli.app import BROKEN_PIPE, CTRL_C, OUR_MISTAKE, run
from seatrial.feedback import FeedbackLog
from seatrial.feedback.ids import new_id
from seatrial.feedback.shipping import feedback_tables, ship
from seatrial.workspace import Workspace
from support.feedback_records import outcome, prediction
from support.small_model import CONTRACT, visits, write_csv, write_model

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path, rows=60).parent


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command and return its exit code and what it printed to both streams."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seatrial", *map(str, arguments)])
        code = run()
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_a_right_model_checks(cli: Cli, model: Path) -> None:
    """One line, and nothing on standard error."""
    code, out, err = cli("check", model)

    assert (code, err) == (0, "")
    assert "3 tables, 1 candidates, 3 gates" in out


def test_a_wrong_contract_exits_with_3(cli: Cli, model: Path) -> None:
    """All problems with their lines, what to do, and no traceback."""
    (model / "model.yaml").write_text(CONTRACT.replace("owner:", "ownr:").replace("missed: 5", "missed: -5"))

    code, out, err = cli("check", model)

    assert (code, out) == (3, "")
    assert "model.yaml:4: ownr: this key is unknown. Did you mean 'owner'?" in err
    assert "costs.missed" in err
    assert "What to do: See docs/reference/contract.md." in err
    assert "Traceback" not in err


def test_markup_in_a_message_is_text(cli: Cli, model: Path) -> None:
    """What looks like markup is printed as it is, and never crashes the printing of an error."""
    (model / "model.yaml").write_text(CONTRACT.replace("owner:", '"[/red][bold]":'))

    code, _, err = cli("check", model)

    assert code == 3
    assert "[/red][bold]: this key is unknown" in err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["chek"], "No such command 'chek'", "seatrial --help"),
        (["data", "shw"], "Did you mean 'show'?", "seatrial data --help"),
        (["check"], "Missing argument", "seatrial check --help"),
        (["check", "--nope", "x"], "No such option", "seatrial check --help"),
        (
            ["data", "show", "x", "y", "--layer", "wrong"],
            "'raw', 'valid', 'quarantine'",
            "seatrial data show --help",
        ),
        (["data", "show", "x", "y", "--rows", "-1"], "--rows", "seatrial data show --help"),
        (["check", "nowhere"], "There is no model 'nowhere'", "seatrial init NAME --data FILE"),
    ],
)
def test_misuse_exits_with_2(cli: Cli, arguments: list[str], message: str, hint: str) -> None:
    """What is wrong with the command, and where its help is."""
    code, out, err = cli(*arguments)

    said = " ".join(err.split())  # Lines are broken where the terminal ends.
    assert (code, out) == (2, "")
    assert message in said
    assert hint in said


def test_the_version_is_told(cli: Cli) -> None:
    """The number that the package has, and nothing else."""
    assert cli("--version") == (0, f"seatrial {__version__}\n", "")


def test_no_command_prints_the_help(cli: Cli) -> None:
    """``seatrial`` alone shows what there is, and that nothing was done."""
    code, out, err = cli()

    assert code == 2
    assert "Usage: seatrial" in out + err
    assert "error:" not in err


def test_debug_shows_the_traceback(cli: Cli) -> None:
    """With ``--debug``, anywhere on the line, the error itself comes through."""
    from seatrial.errors import UsageError

    with pytest.raises(UsageError):
        cli("check", "--debug", "nowhere")


def _instead_of_checking(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr("seatrial.model_check.check_model", fail)


def test_a_mistake_of_ours_exits_with_70(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw has no traceback either, unless one is asked for."""
    for error in (ZeroDivisionError("a\nb"), pl.exceptions.PanicException("a")):
        _instead_of_checking(monkeypatch, error)

        code, out, err = cli("check", "x")

        assert (code, out) == (OUR_MISTAKE, "")
        assert f"This should not have happened: {type(error).__name__}: a" in err
        assert "--debug" in err
        with pytest.raises(type(error)):
            cli("check", "x", "--debug")


def test_ctrl_c_exits_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like any other command of a shell."""
    _instead_of_checking(monkeypatch, KeyboardInterrupt())

    assert cli("check", "x") == (CTRL_C, "", "Stopped.\n")


def test_a_reader_who_wants_no_more_ends_it_quietly() -> None:
    """``seatrial ... | head`` has no complaint at its end."""
    program = f"{sys.executable} -m seatrial --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")


def test_data_go_in_and_can_be_looked_at(cli: Cli, model: Path) -> None:
    """Ingest, log and show agree, as tables and as JSON."""
    code, out, _ = cli("data", "ingest", model, "--as-of", "2024-03-31", "--json")
    results = orjson.loads(out)
    assert code == 0
    assert {result["status"] for result in results} == {"added"}

    code, out, _ = cli("data", "ingest", model, "--as-of", "2024-03-31")
    assert (code, out.count("unchanged"), out.count("added")) == (0, len(results), 0)

    commits = orjson.loads(cli("data", "log", model, "visits", "--json")[1])
    assert [(commit["batch"], commit["source"]) for commit in commits] == [
        ("2024-03", "data/visits.csv"),
        ("2024-02", "data/visits.csv"),
        ("2024-01", "data/visits.csv"),
    ]
    assert "2024-02" in cli("data", "log", model, "visits")[1]

    rows = orjson.loads(cli("data", "show", model, "visits", "--version", "1", "--rows", "99", "--json")[1])
    assert {row["visit"] for row in rows} == set(visits(60).filter(pl.col("at").dt.month() == 1)["visit"])
    code, out, _ = cli("data", "show", model, "visits", "--rows", "2")
    assert (code, out.count("v0000")) == (0, 2)


def test_values_that_look_like_markup_are_shown_as_they_are(cli: Cli, model: Path) -> None:
    """A shop called ``[/red]`` neither crashes the table nor vanishes from it."""
    write_csv(
        pl.DataFrame({"shop": ["[/red]", "[bold]"], "region": ["north", "south"]}),
        model / "data" / "shops.csv",
    )
    cli("data", "ingest", model, "--table", "shops")

    code, out, err = cli("data", "show", model, "shops")

    assert (code, err) == (0, "")
    assert "[/red]" in out
    assert "[bold]" in out


@pytest.mark.parametrize("command", [["data", "log"], ["data", "show"]])
def test_a_table_that_the_contract_does_not_have(cli: Cli, model: Path, command: list[str]) -> None:
    """The message has those that it has."""
    code, _, err = cli(*command, model, "visit")

    assert code == 2
    assert "no table 'visit' in the contract. It has: visits, prices, shops." in err


def test_a_table_that_is_still_empty(cli: Cli, model: Path) -> None:
    """The log of nothing is empty; showing nothing is an error that says what to do."""
    assert "nothing was ingested yet" in cli("data", "log", model, "visits")[1]

    code, _, err = cli("data", "show", model, "visits")
    assert code == 6
    assert "seatrial data ingest" in err


def test_a_changed_month_is_refused_with_6(cli: Cli, model: Path) -> None:
    """And goes in with ``--replace``."""
    ingest = ["data", "ingest", model, "--table", "visits", "--period", "2024-01"]
    assert cli(*ingest)[0] == 0
    write_csv(visits(60, seed=1), model / "data" / "visits.csv")

    code, _, err = cli(*ingest)
    assert (code, "--replace" in err) == (6, True)
    assert cli(*ingest, "--replace")[0] == 0


def test_a_source_that_is_wrong_exits_with_4(cli: Cli, model: Path) -> None:
    """An empty file is told with its table and name."""
    (model / "data" / "visits.csv").write_text("")

    code, _, err = cli("data", "ingest", model)

    assert code == 4
    assert "Table 'visits': visits.csv: The source is empty." in err


def _imported_by(*arguments: str) -> set[str]:
    program = (
        "import sys; sys.argv = ['seatrial', *sys.argv[1:]]\n"
        "from seatrial.cli.main import main\n"
        "try: main()\n"
        "finally: print('|'.join(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    return set(done.stderr.splitlines()[-1].split("|"))


def test_help_imports_nothing_heavy() -> None:
    """``seatrial --help`` answers at once, because a command imports what it needs when it runs."""
    heavy = {"polars", "numpy", "sklearn", "mlflow", "kfp", "pandera", "pydantic", "deltalake", "onnxruntime"}

    imported = _imported_by("--help")

    assert "typer" in imported
    assert imported & heavy == set()


def test_json_goes_to_standard_output_alone(cli: Cli, model: Path) -> None:
    """A script can read it without cutting anything off."""
    for arguments in (["check", model], ["data", "ingest", model], ["data", "log", model, "shops"]):
        code, out, err = cli(*arguments, "--json")
        parsed: Any = orjson.loads(out)
        assert (code, err) == (0, "")
        assert parsed


def test_feedback_is_counted_and_exported(cli: Cli, model: Path, tmp_path: Path) -> None:
    """``feedback stats`` says how predictions and outcomes fit together, ``export`` writes them joined, once."""
    workspace = Workspace.open(tmp_path / "workspace")
    known, open_ = new_id(), new_id()
    log = FeedbackLog(tmp_path / "log")
    for record in (prediction(known, open_), outcome(known, 1.0), outcome(new_id(), 0.0)):
        log.append(record).result()
    ship(log, feedback_tables(workspace, "visits"))
    log.close()
    file = tmp_path / "feedback.parquet"

    code, out, _ = cli("feedback", "stats", model, "-w", workspace.folder, "--json")
    assert code == 0
    assert orjson.loads(out) == {"predictions": 2, "outcomes": 2, "joined": 1, "conflicts": 0, "unknown": 1}
    assert "2 predictions, 1 of them" in cli("feedback", "stats", model, "-w", workspace.folder)[1]
    assert "2 predictions written" in cli("feedback", "export", model, file, "-w", workspace.folder)[1]
    rows = pl.read_parquet(file).select("prediction_id", "outcome").rows()
    assert dict(rows) == {known: 1.0, open_: None}
    code, _, err = cli("feedback", "export", model, file, "-w", workspace.folder)
    assert code == 2
    assert "cannot be written: File exists" in err


def test_feedback_is_kept_and_erased(cli: Cli, model: Path, tmp_path: Path) -> None:
    """``feedback join``, ``compact``, ``retain`` and ``erase`` say what they did, in words and as JSON."""
    workspace = Workspace.open(tmp_path / "workspace")
    names = [new_id(), new_id()]
    log = FeedbackLog(workspace.folder / "serving" / "visits" / "feedback-log")
    for record in (prediction(*names), outcome(names[0], 1.0)):
        log.append(record).result()
    ship(log, feedback_tables(workspace, "visits"))
    log.append(prediction(later := new_id())).result()
    log.close()
    place = ("-w", workspace.folder)

    file = tmp_path / "joined.csv"
    assert "1 outcomes written" in cli("feedback", "join", model, file, *place)[1]
    assert pl.read_csv(file)["prediction_id"].to_list() == names[:1]
    again = ("feedback", "join", model, tmp_path / "joined.parquet", "--history", *place, "--json")
    assert orjson.loads(cli(*again)[1])["rows"] == 1
    assert cli("feedback", "join", model, tmp_path / "joined.txt", *place)[0] == 2
    assert cli("feedback", "export", model, tmp_path / "all.csv", *place)[0] == 2

    first, *others = orjson.loads(cli("feedback", "compact", model, *place, "--json")[1])
    assert [table["table"] for table in others] == ["outcomes", "comparisons"]
    assert first == {"table": "predictions", "files_before": 1, "files_after": 1, "deleted_files": 0}
    assert "predictions: 1 files became 1" in cli("feedback", "compact", model, *place)[1]
    code, out, _ = cli("feedback", "retain", model, *place)
    assert (code, "retention: 180d" in out) == (0, True)
    model_file = model / "model.yaml" if model.is_dir() else model
    model_file.write_text(f"{model_file.read_text()}\nfeedback: {{retention: 180d}}\n")
    assert "0 predictions and 0 outcomes deleted" in cli("feedback", "retain", model, *place)[1]

    ids = ("--prediction", names[0], "--prediction", later)
    assert (
        "1 predictions and 1 outcomes would be erased"
        in cli("feedback", "erase", model, *ids, "--dry-run", *place)[1]
    )
    code, out, _ = cli("feedback", "erase", model, *ids, *place, "--json")
    deleted = orjson.loads(out)
    assert (code, deleted["predictions"], deleted["outcomes"]) == (0, 2, 1)
    assert "0 predictions and 0 outcomes erased" in cli("feedback", "erase", model, *ids, *place)[1]
    assert "0 predictions" in cli("feedback", "erase", model, "--subject", "shop=QQ", *place)[1]
    for wrong in ((), ("--subject", "shop"), ("--subject", "colour=red"), ("--prediction", "x")):
        assert cli("feedback", "erase", model, *wrong, *place)[0] == 2
