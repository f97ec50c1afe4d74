"""Steps 11 and 12: monitor live traffic against the bundle's baseline, and decide to train again."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path

import polars as pl

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.contract.load import LoadedContract
from seatrial.contract.schema import parse_duration
from seatrial.data_tests import as_of_or_now
from seatrial.errors import UsageError
from seatrial.feedback import join_outcomes
from seatrial.model_check import check_model
from seatrial.monitoring import MonitorResult, monitor
from seatrial.promotion import read_pointer
from seatrial.report import ReportFacts, drift_key, monitor_key, render_report
from seatrial.sources import Period
from seatrial.steps.files import read_json, reported, say, write_json
from seatrial.tables import Tables
from seatrial.triggers import (
    Champion,
    Decision,
    decide,
    fire,
    may_be_taken_up,
    run_name,
    take_up,
    trigger_log,
    unfinished,
)
from seatrial.workspace import Workspace


@reported
def monitor_model(
    model: str,
    workspace: str,
    environment: str,
    run: str,
    start: str,
    end: str,
    result_out: str,
    report_out: str,
) -> MonitorResult:
    """Judge a window of live traffic.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        environment: The environment that serves.
        run: Name of the run.
        start: First instant of the window (included), or its length: see :func:`window_of`.
        end: The first instant after it (not included); empty: now.
        result_out: Path for the result, as JSON.
        report_out: Path for the report, as HTML.

    Returns:
        The verdicts and what they rest on.

    Raises:
        UsageError: if nothing serves in the environment, or the window is empty.
        SeatrialError: if the bundle or the feedback tables cannot be read.
    """
    loaded, place = check_model(model), Workspace.open(workspace)
    window = window_of(start, end)
    name = loaded.contract.name
    pointer = read_pointer(place, environment, name)
    if pointer.digest is None:
        raise UsageError(
            f"Nothing serves {name} in {environment}.", remedy=f"Train a model first: seatrial train {name}"
        )
    bundle = load_bundle(place, pointer.digest, open_trust_root(place))
    joined = join_outcomes(place, name, start=window[0], end=window[1])
    result = monitor(bundle, joined, start=window[0], end=window[1])
    write_json(result_out, result.model_dump(mode="json"))
    _say(result)
    _write_page(loaded, place, environment, run, result, report_out)
    return result


def window_of(start: str, end: str) -> tuple[datetime, datetime]:
    """Return the window of live traffic to judge.

    A recurring run has the same parameters each time, so its window is one of a length: it moves along.

    Args:
        start: Its first instant (included), as an ISO 8601 time or a period, whose beginning is meant; or its
            length, such as ``7d``.
        end: The first instant after it (not included), as an ISO 8601 time or a period, whose end is meant;
            empty: now.

    Returns:
        Its first instant and the first one after it, UTC.

    Raises:
        UsageError: if it is empty, or a text is neither.
    """
    until = as_of_or_now(end)
    since = _since(start, until)
    if since >= until:
        raise UsageError(f"The window must start before it ends. Got {since} to {until} instead.")
    return since, until


def _since(start: str, until: datetime) -> datetime:
    with suppress(ValueError):
        return until - parse_duration(start)
    with suppress(UsageError):
        return Period.parse(start).start
    return as_of_or_now(start)


@reported
def draw_drift(model: str, workspace: str, run: str, result_in: str, drift_report_out: str) -> None:
    """Draw the drift of a window that was judged, with evidently.

    It is a step of its own because it takes ten times as long as the verdict, which a retraining waits for.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        run: Name of the run.
        result_in: Path of the monitor's result, which names window and bundle.
        drift_report_out: Path for evidently's report, as HTML.

    Raises:
        SeatrialError: if the bundle or the feedback tables cannot be read.
    """
    from seatrial.monitoring.evidently_report import write_drift_report

    loaded, place = check_model(model), Workspace.open(workspace)
    name = loaded.contract.name
    result = MonitorResult.model_validate(read_json(result_in))
    bundle = load_bundle(place, result.bundle, open_trust_root(place))
    joined = join_outcomes(place, name, start=result.start, end=result.end)
    write_drift_report(bundle, joined, Path(drift_report_out), seed=loaded.contract.tuning.seed)
    place.put(drift_key(name, run), Path(drift_report_out).read_bytes())


def _say(result: MonitorResult) -> None:
    say(
        f"{result.start:%Y-%m-%d} to {result.end:%Y-%m-%d}: {result.rows:,} predictions of {result.bundle[:12]}, "
        f"{result.outcomes:,} with outcome ({result.other_rows:,} of other bundles)"
    )
    for verdict in result.verdicts:
        value = "" if verdict.value is None else f": {verdict.value:.3f}"
        bound = "" if verdict.bound is None else f" (bound {verdict.bound:g})"
        say(f"{verdict.outcome.upper():4} {verdict.check}{value}{bound}")
    if result.drift and (drifted := [c.name for c in result.drift.columns if c.drifted]):
        say(f"drifted: {', '.join(drifted)}")


def _write_page(
    loaded: LoadedContract, place: Workspace, environment: str, run: str, result: MonitorResult, path: str
) -> None:
    facts = ReportFacts(
        model=loaded.contract.name,
        run=run,
        as_of=result.end,
        environment=environment,
        description=loaded.contract.description,
        owner=loaded.contract.owner,
        verdicts=list(result.verdicts),
        bundle=result.bundle,
        windows=[result],
    )
    page = render_report(facts)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(page, encoding="utf-8")
    place.put(monitor_key(loaded.contract.name, run), page.encode())


@reported
def decide_retraining(
    model: str, workspace: str, environment: str, run: str, as_of: str, result_in: str, decision_out: str
) -> bool:
    """Decide by the contract's rules whether to train again, and fire at most once for one cause.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        environment: The environment that serves.
        run: Name of the run that asks; if it asks again (a step that is tried again), it gets the
            same answer. It takes the place of a run that has died.
        as_of: Instant of the decision; empty: now.
        result_in: Path of the monitor's result; empty: no window was monitored.
        decision_out: Path for the decision, as JSON.

    Returns:
        Whether to train again now.

    Raises:
        UsageError: if nothing serves in the environment.
        StoreError: if the log of what was fired cannot be read or written.
    """
    loaded, place, instant = check_model(model), Workspace.open(workspace), as_of_or_now(as_of)
    name = loaded.contract.name
    log = trigger_log(place, name)
    if goes_on(loaded, place, environment, run=run, as_of=instant, decision_out=decision_out):
        return True
    result = MonitorResult.model_validate(read_json(result_in)) if result_in else None
    champion, new_rows = champion_of(loaded, place, environment)
    decision = decide(
        name, loaded.contract.triggers, result, champion=champion, new_rows=new_rows, as_of=instant, log=log
    )
    decision = fire(decision, log, by=run)
    write_json(decision_out, decision.model_dump(mode="json"))
    _say_decision(decision)
    return decision.fires


def goes_on(
    loaded: LoadedContract,
    place: Workspace,
    environment: str,
    *,
    run: str,
    as_of: datetime,
    decision_out: str,
) -> bool:
    """Whether this run trains for a cause that was fired before: by itself, or by a run that has died.

    Args:
        loaded: The model's contract.
        place: The workspace.
        environment: The environment that serves.
        run: Name of the run that asks.
        as_of: Instant of the decision.
        decision_out: Path for what was fired, as JSON; written only if it goes on.

    Raises:
        StoreError: if the log of what was fired cannot be read or written.
    """
    name, rules = loaded.contract.name, loaded.contract.triggers
    log = trigger_log(place, name)
    pending = unfinished(log)
    if pending is None:
        return False
    if pending.owner == run:
        say("this run has fired already: it goes on")
    else:
        champion = read_pointer(place, environment, name).digest
        if not may_be_taken_up(pending, rules, champion=champion, as_of=as_of):
            return False
        if not take_up(log, pending, by=run):
            return False
        say(f"run {pending.owner} has not ended: {run_name(log, pending.record)} is taken up")
    write_json(decision_out, pending.record.content)
    return True


def _say_decision(decision: Decision) -> None:
    for rule in decision.rules:
        if rule.fires:
            say(f"{rule.name} asks for a retraining: {rule.message}")
        elif rule.held_back:
            say(f"{rule.name} asks for nothing: {rule.message}")
    if decision.suppressed:
        say(f"not now: {decision.suppressed}")
    say(f"training again as {decision.run}" if decision.fires else "no retraining")


def champion_of(loaded: LoadedContract, place: Workspace, environment: str) -> tuple[Champion, int]:
    """Return the model that serves, and how many labelled rows became known since it was trained.

    Raises:
        UsageError: if nothing serves in the environment.
    """
    contract = loaded.contract
    pointer = read_pointer(place, environment, contract.name)
    if pointer.digest is None or pointer.as_of is None:
        raise UsageError(
            f"Nothing serves {contract.name} in {environment}.",
            remedy=f"Train a model first: seatrial train {contract.name}",
        )
    bundle = load_bundle(place, pointer.digest, open_trust_root(place))
    trained = datetime.fromisoformat(pointer.as_of)
    rows = Tables(place, contract.name, "raw").read(contract.prediction.table)
    rows = rows.filter(pl.col(contract.label.column).is_not_null())
    since = contract.label.time or contract.tables[contract.prediction.table].time
    if since is None:
        learned = int(bundle.manifest.data.get(contract.prediction.table, {}).get("rows", 0))
        new = rows.select(pl.len()).collect().item() - learned
    else:
        new = rows.filter(pl.col(since) > trained).select(pl.len()).collect().item()
    learned = int(bundle.json("training.json")["rows"])
    return Champion(pointer.digest, trained, learned), max(int(new), 0)
