"""``seatrial submit``, ``runs``, ``logs`` and ``schedule``: the pipelines, on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from seatrial.cli.app import Json, app, console, errors, print_json
from seatrial.cli.platform import ContextOption, NamespaceOption, Yes, asker

if TYPE_CHECKING:
    from seatrial.cluster.context import Cluster
    from seatrial.cluster.submit import Ended, Submitted

GATES_FAILED = 9
schedules = typer.Typer(help="Recurring runs on a cluster.", no_args_is_help=True)
app.add_typer(schedules, name="schedule")

Pipeline = Annotated[
    str, typer.Argument(help="Name of a pipeline in pipelines/: training, monitoring.", show_default=False)
]
RunEnvironment = Annotated[str, typer.Option("--env", help="Environment of the cluster.")]
Parameter = Annotated[
    list[str] | None,
    typer.Option(
        "--param", "-p", help="A parameter, as key=value; may be given more than once.", show_default=False
    ),
]
_STATES = {"SUCCEEDED": "green", "FAILED": "bold red", "RUNNING": "yellow", "PENDING": "yellow"}


def _usable(context: str | None, namespace: str, pipeline: str, environment: str, *, yes: bool) -> Cluster:
    """The cluster, if the platform is there and may be used."""
    from seatrial.cluster.context import allow, connect, require_platform

    cluster = connect(context, namespace)
    require_platform(cluster)
    allow(cluster, [f"run the pipeline {pipeline} for the environment {environment} there"], asker(yes))
    return cluster


@app.command()
def submit(
    pipeline: Pipeline,
    env: RunEnvironment = "test",
    param: Parameter = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run and do not follow it.")] = False,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    yes: Yes = False,
    as_json: Json = False,
) -> int:
    """Run a pipeline on the cluster and follow its steps; Ctrl-C ends the following, not the run.

    The pipeline is uploaded if the cluster has not just this version. Exits with 0 if every gate passed, with 9 if
    one did not, else with the code of what ended the run.

    Example: `seatrial submit training -p model=flights -p as_of=2013-06`
    """
    from seatrial.cli.run_view import RunView
    from seatrial.cluster import submit as runs

    cluster = _usable(context, namespace, pipeline, env, yes=yes)
    target = errors if as_json else console
    started = runs.submit(cluster, pipeline, env, param or [])
    news = "uploaded now" if started.version.is_new else "uploaded before"
    target.print(
        f"Run {started.run_id} of {escape(started.version.pipeline)} {started.version.name} ({news})",
        soft_wrap=True,
    )
    if detach:
        if as_json:
            print_json({"run": started.run_id, "name": started.name, "version": started.version.name})
        return 0
    view = RunView(target)
    try:
        ended = runs.follow(cluster, started.run_id, view)
    except KeyboardInterrupt:
        view.stop()
        target.print(
            f"The run goes on. To look at it again: seatrial logs {started.run_id[:8]}", soft_wrap=True
        )
        raise
    finally:
        view.stop()
    _show_end(ended, started, as_json=as_json)
    return GATES_FAILED if ended.failed else 0


def _show_end(ended: Ended, started: Submitted, *, as_json: bool) -> None:
    from seatrial.cluster.submit import as_facts

    if as_json:
        print_json(as_facts(ended, started))
        return
    outcomes = [said.outcome for said in ended.verdicts]
    counted = ", ".join(f"{outcomes.count(o)} {o}" for o in ("pass", "warn", "fail") if o in outcomes)
    if ended.failed:
        console.print(f"[bold red]Gates failed:[/] {escape(', '.join(ended.failed))}.")
    console.print(f"[green]The run has succeeded.[/] Verdicts: {counted or 'none'}.")
    for name, where in ended.look_at.items():
        console.print(f"  {name}: {escape(where)}", soft_wrap=True)


@app.command()
def runs(
    env: Annotated[
        str | None, typer.Option("--env", help="Of this environment only.", show_default=False)
    ] = None,
    count: Annotated[int, typer.Option(help="At most this many.", min=1, max=100)] = 20,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    as_json: Json = False,
) -> None:
    """List the newest runs on the cluster.

    Example: `seatrial runs --env test`
    """
    from seatrial.cluster.context import connect, require_platform
    from seatrial.cluster.kubeflow import Kubeflow

    cluster = connect(context, namespace)
    require_platform(cluster)
    with Kubeflow(cluster) as kubeflow:
        found = kubeflow.runs(env, count)
    if as_json:
        print_json(found)
        return
    shown = Table("run", "name", "environment", "state", "started", "took")
    for run in found:
        took = f"{(run.finished - run.created).total_seconds():.0f} s" if run.finished else ""
        state = f"[{_STATES.get(run.state, 'default')}]{run.state.lower()}[/]"
        shown.add_row(
            run.id[:8], Text(run.name), Text(run.environment), state, f"{run.created:%Y-%m-%d %H:%M}", took
        )
    console.print(
        shown if found else "There are no runs yet. Start one: seatrial submit training -p model=flights"
    )


@app.command()
def logs(
    run: Annotated[str, typer.Argument(help="The run's id, its beginning, or its name.", show_default=False)],
    step: Annotated[str | None, typer.Argument(help="A step. [default: all]", show_default=False)] = None,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    as_json: Json = False,
) -> None:
    """Print the logs of a run's steps, also of one whose pods are gone.

    Example: `seatrial logs 506d7692 train`
    """
    from seatrial.cluster.context import connect, require_platform
    from seatrial.cluster.submit import read_logs

    cluster = connect(context, namespace)
    require_platform(cluster)
    found = read_logs(cluster, run, step)
    if as_json:
        print_json(found)
        return
    for log in found:
        tried = f", try {log.attempt}" if log.attempt > 1 else ""
        console.rule(f"{escape(log.step)}{tried}: {log.state}", align="left")
        console.out(log.text or "(nothing is left of its log)", highlight=False)


@schedules.command("create")
def create_schedule(
    pipeline: Pipeline,
    cron: Annotated[
        str,
        typer.Option(
            help="When, in UTC: minute hour day month weekday, as in a crontab.", show_default=False
        ),
    ],
    env: RunEnvironment = "test",
    param: Parameter = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Its name; one of that name is replaced. [default: PIPELINE-ENV]", show_default=False
        ),
    ] = None,
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Make a recurring run of a pipeline: one run at a time, none for times that have passed.

    Example: `seatrial schedule create monitoring --cron "0 6 * * *" -p model=flights -p start=7d`
    """
    from seatrial.cluster.submit import schedule

    cluster = _usable(context, namespace, pipeline, env, yes=yes)
    called = name or f"{pipeline}-{env}"
    made, when = schedule(cluster, pipeline, env, param or [], cron=cron, name=called)
    if as_json:
        print_json({"id": made, "name": called, "cron": when})
        return
    console.print(
        f"[green]✓[/] {escape(called)} runs at {escape(when)} (seconds first, UTC).", soft_wrap=True
    )


@schedules.command("list")
def list_schedules(
    context: ContextOption = None, namespace: NamespaceOption = "seatrial", as_json: Json = False
) -> None:
    """List the recurring runs.

    Example: `seatrial schedule list`
    """
    from seatrial.cluster.context import connect, require_platform
    from seatrial.cluster.kubeflow import Kubeflow

    cluster = connect(context, namespace)
    require_platform(cluster)
    with Kubeflow(cluster) as kubeflow:
        found = kubeflow.schedules()
    if as_json:
        print_json(found)
        return
    shown = Table("name", "environment", "when (UTC)", "parameters", "state")
    for item in found:
        values = ", ".join(f"{key}={value}" for key, value in item.parameters.items())
        state = item.problem or ("on" if item.enabled else "off")
        shown.add_row(*(Text(cell) for cell in (item.name, item.environment, item.cron, values, state)))
    console.print(shown if found else "There are no recurring runs.")


@schedules.command("remove")
def remove_schedule(
    name: Annotated[str, typer.Argument(help="Its name or its id.", show_default=False)],
    context: ContextOption = None,
    namespace: NamespaceOption = "seatrial",
    yes: Yes = False,
) -> None:
    """Remove a recurring run; the runs that it started stay.

    Example: `seatrial schedule remove monitoring-test`
    """
    from seatrial.cluster.context import allow, connect, require_platform
    from seatrial.cluster.kubeflow import Kubeflow

    cluster = connect(context, namespace)
    require_platform(cluster)
    allow(cluster, [f"remove the recurring run {name}"], asker(yes))
    with Kubeflow(cluster) as kubeflow:
        kubeflow.unschedule(name)
    console.print(f"[green]✓[/] {escape(name)} starts no more runs.")
