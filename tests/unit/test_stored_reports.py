"""Reports are found again by run, by the beginning of a run, or as the newest."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from seatrial.errors import UsageError
from seatrial.report import find_report, report_key
from seatrial.workspace import Workspace

CONTRACT = Path(__file__).parents[2] / "models" / "flights"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with three reports of flights, one of monitoring, and one of another model."""
    place = Workspace.open(tmp_path / "workspace")
    keys = [report_key("flights", run) for run in ("20130801-b", "20130701-a", "20130701-c")]
    keys += ["runs/flights/20130901-m/monitoring.html", "runs/flights_two/20140101-z/report.html"]
    for age, key in enumerate(keys):
        place.put(key, key.encode())
        os.utime(place.folder / key, (1_000 + age, 1_000 + age))
    place.put("runs/flights/20130801-b/notes.txt", b"no report")
    return place


def test_the_newest_report_is_the_one_written_last(workspace: Workspace) -> None:
    """Without a run the training report that was written last is found, whatever its id."""
    assert find_report(workspace, "flights") == report_key("flights", "20130701-c")


def test_a_run_is_found_by_its_beginning(workspace: Workspace) -> None:
    """A run may be named by how its id begins, a monitoring run too."""
    assert find_report(workspace, "flights", "201308") == report_key("flights", "20130801-b")
    assert find_report(workspace, "flights", "20130701-a") == report_key("flights", "20130701-a")
    assert find_report(workspace, "flights", "20130901-m").endswith("/monitoring.html")


def test_a_beginning_of_several_runs_is_refused(workspace: Workspace) -> None:
    """Where several runs begin so, the error names them."""
    with pytest.raises(UsageError, match="20130701-a, 20130701-c"):
        find_report(workspace, "flights", "201307")


@pytest.mark.parametrize(("model", "run"), [("flights", "1999"), ("unknown", None)])
def test_no_report_is_an_error_that_says_what_there_is(
    workspace: Workspace, model: str, run: str | None
) -> None:
    """The error lists the runs that there are and how to make one."""
    with pytest.raises(UsageError, match="There is no report") as raised:
        find_report(workspace, model, run)
    assert f"seatrial train {model}" in raised.value.remedy


def test_the_command_prints_the_path(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seatrial report` prints the path of the page, and JSON for scripts."""
    from seatrial.cli.main import run

    monkeypatch.setenv("COLUMNS", "20")
    for options, expected in (([], "20130701-c"), (["20130801-b"], "20130801-b")):
        monkeypatch.setattr("sys.argv", ["seatrial", "report", str(CONTRACT), *options, "-w", workspace.root])
        assert run() == 0
        path = Path(capsys.readouterr().out.removesuffix("\n"))
        assert path.parent.name == expected
        assert path.read_text() == report_key("flights", expected)
    monkeypatch.setattr("sys.argv", ["seatrial", "report", str(CONTRACT), "--json", "-w", workspace.root])
    assert run() == 0
    assert orjson.loads(capsys.readouterr().out)["run"] == "20130701-c"


def test_the_command_opens_the_page(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --open the page's file address goes to the browser."""
    from seatrial.cli.main import run

    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sys.argv", ["seatrial", "report", str(CONTRACT), "--open", "-w", workspace.root])
    assert run() == 0
    assert opened == [(workspace.folder / report_key("flights", "20130701-c")).as_uri()]


def test_the_command_fails_with_a_usage_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown run ends with exit code 2."""
    from seatrial.cli.main import run

    monkeypatch.setattr("sys.argv", ["seatrial", "report", str(CONTRACT), "1999", "-w", workspace.root])
    assert run() == 2
