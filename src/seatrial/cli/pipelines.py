"""``seatrial train``, ``monitor``, ``trigger`` and ``compile``: the pipelines, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.cli.app import AsOf, Environment, Json, Model, WorkspaceOption, app, console, errors, print_json

if TYPE_CHECKING:
    from seatrial.local_runs import LocalRun
    from seatrial.workspace import Workspace

GATES_FAILED = 9


def _run(name: str, workspace: Workspace, arguments: dict[str, Any], *, quiet: bool) -> LocalRun:
    from seatrial.cli.run_view import RunView
    from seatrial.local_runs import run_locally

    view = RunView(errors if quiet else console)
    try:
        return run_locally(name, arguments, workspace, tell=view)
    finally:
        view.stop()


def _instant(as_of: str) -> str:
    from seatrial.data_tests import as_of_or_now

    return as_of_or_now(as_of).isoformat() if as_of else ""


@app.command()
def train(
    model: Model,
    environment: Environment = "local",
    as_of: AsOf = "",
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> int:
    """Run the training pipeline: ingest, validate, features, train, evaluate, gates, bundle, register.

    Exits with 0 if the model passed its gates, with 9 if it did not.

    Example: `seatrial train flights --as-of 2013-06`
    """
    from seatrial.model_check import check_model
    from seatrial.report import report_key
    from seatrial.steps.files import read_json
    from seatrial.workspace import Workspace

    check_model(model)
    place = Workspace.open(workspace)
    arguments = {"model": _portable(model), "environment": environment, "as_of": _instant(as_of)}
    run = _run("training", place, arguments, quiet=as_json)
    found = read_json(str(run.folder / "gates" / "found"))
    failed = [verdict["check"] for verdict in found["verdicts"] if verdict["outcome"] == "fail"]
    report = place.uri(report_key(found["model"], run.name))
    if as_json:
        facts = {"run": run.name, "served": run.output, "failed_gates": failed, "report": report}
        print_json({**facts, "verdicts": found["verdicts"], "seconds": run.seconds})
    elif failed:
        console.print(f"[bold red]Gates failed:[/] {', '.join(failed)}. Look at {report}")
    else:
        console.print(f"[green]Every gate passed.[/] Next: seatrial serve {found['model']}")
    return GATES_FAILED if failed else 0


def _portable(model: str) -> str:
    """A folder's path as every step's process can find it."""
    return str(Path(model).resolve()) if Path(model).exists() else model


@app.command()
def monitor(
    model: Model,
    since: Annotated[
        str,
        typer.Option(help="First instant of the window, an ISO 8601 time or a period; or its length: 7d."),
    ],
    environment: Environment = "local",
    as_of: AsOf = "",
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> int:
    """Run the monitoring pipeline: take in new data, judge live traffic, train again if a rule asks for it.

    Exits with 0 if no verdict failed, with 9 if one did.

    Example: `seatrial monitor flights --since 2013-07-01 --as-of 2013-07`
    """
    from seatrial.model_check import check_model
    from seatrial.report import drift_key, monitor_key
    from seatrial.steps.files import read_json
    from seatrial.steps.watching import window_of
    from seatrial.workspace import Workspace

    check_model(model)
    window_of(since, as_of)  # What is wrong with it is said before anything runs.
    place = Workspace.open(workspace)
    arguments = {
        "model": _portable(model),
        "start": since,
        "environment": environment,
        "as_of": _instant(as_of),
    }
    run = _run("monitoring", place, arguments, quiet=as_json)
    result = read_json(str(run.folder / "monitor" / "result"))
    if as_json:
        decision = read_json(str(run.folder / "trigger" / "decision"))
        print_json({"run": run.name, "result": result, "decision": decision, "seconds": run.seconds})
    else:
        page, drift = (place.uri(key(result["model"], run.name)) for key in (monitor_key, drift_key))
        console.print(f"Report: {page}\nDrift, drawn by evidently: {drift}")
    failed = any(verdict["outcome"] == "fail" for verdict in result["verdicts"])
    return GATES_FAILED if failed else 0


@app.command()
def trigger(
    model: Model,
    environment: Environment = "local",
    as_of: AsOf = "",
    workspace: WorkspaceOption = None,
    as_json: Json = False,
) -> None:
    """Show what the contract's rules for retraining say now, and what was fired before. Nothing is started.

    Rules about live traffic are looked at by `seatrial monitor`, which also starts the training.

    Example: `seatrial trigger flights --as-of 2013-09`
    """
    from seatrial.data_tests import as_of_or_now
    from seatrial.model_check import check_model
    from seatrial.steps.watching import champion_of
    from seatrial.triggers import decide, trigger_log
    from seatrial.workspace import Workspace

    loaded, place = check_model(model), Workspace.open(workspace)
    name = loaded.contract.name
    log = trigger_log(place, name)
    champion, new_rows = champion_of(loaded, place, environment)
    instant = as_of_or_now(as_of)
    decision = decide(
        name, loaded.contract.triggers, None, champion=champion, new_rows=new_rows, as_of=instant, log=log
    )
    fired = log.all()
    if as_json:
        print_json({"decision": decision.model_dump(mode="json"), "fired": [r.content for r in fired]})
        return
    for rule in decision.rules:
        mark = "[yellow]due[/]" if rule.fires else "[green]not due[/]"
        bound = "" if rule.bound is None else f" ({rule.value:,.0f} of {rule.bound:,.0f} {rule.unit})"
        console.print(f"{mark} {rule.name}{bound}: {rule.message}")
    for record in fired:
        causes = ", ".join(record.content["causes"])
        console.print(f"fired {record.number}: {record.content['as_of'][:10]} because of {causes}")
    console.print(
        decision.suppressed or ("A retraining is due." if decision.fires else "No retraining is due.")
    )


@app.command(name="compile")
def compile_pipelines(
    environment: Annotated[str, typer.Option("--env", help="Name of the cluster's environment.")] = "test",
    folder: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("build/pipelines"),
) -> None:
    """Write the pipelines as YAML that a Kubeflow Pipelines backend runs for an environment.

    Each has credentials, keys and memory of its steps in it; upload it on the Kubeflow page, or
    with the `kfp` command.

    Example: `seatrial compile --env test --folder build/pipelines`
    """
    from seatrial.cluster_runs import PIPELINES, compile_for_cluster, pipeline_name

    folder.mkdir(parents=True, exist_ok=True)
    for name in PIPELINES:
        path = folder / f"{pipeline_name(name, environment)}.yaml"
        compile_for_cluster(name, path, environment)
        console.print(f"[green]✓[/] {path}")
