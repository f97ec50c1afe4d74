"""What an environment demands of a bundle before it serves it, each a verdict with value, bound and evidence.

These gates look at where the bundle goes and at where it comes from: whether it can be served with
the tables there, how old it and its data are, how good it was on live traffic, and whether it
answers what was asked there as the one does that serves now. What cannot be measured has failed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import polars as pl

from seatrial.bundle import Bundle, TrustRoot
from seatrial.bundle import content as names
from seatrial.delivery.declared import serving_image
from seatrial.delivery.load_test import Loaded, put_under_load
from seatrial.errors import SeatrialError, StoreError
from seatrial.feedback.joining import join_outcomes, read_comparisons, read_predictions
from seatrial.monitoring.quality import live_quality
from seatrial.promotion.environment import Demands, EnvironmentFolder
from seatrial.server.model import ServedModel, table_versions
from seatrial.server.requests import read_time
from seatrial.tables import Tables
from seatrial.verdicts import Outcome, Verdict, judge
from seatrial.workspace import Workspace

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Case:
    """What is judged.

    Attributes:
        bundle: The bundle that shall be served.
        serving: The one that is served now; None where there is none.
        source: Workspace that it comes from, with what was answered there.
        target: Workspace that it goes to.
        as_of: Instant of the promotion.
        trust: The makers of bundles that are trusted where it goes to.
        environment: Where it goes to.
    """

    bundle: Bundle
    serving: Bundle | None
    source: Workspace
    target: Workspace
    as_of: datetime
    trust: TrustRoot
    environment: EnvironmentFolder


def judge_demands(demands: Demands, case: Case) -> list[Verdict]:
    """Return the verdict of each demand; that the bundle can be served there is always demanded.

    Raises:
        StoreError: if the store failed, which says nothing about the bundle.
    """
    verdicts = [_serves(case)]
    for name, judged in _JUDGES.items():
        demand = getattr(demands, name)
        if demand is not None:
            try:
                verdicts.extend(judged(demand, case))
            except StoreError:
                raise
            except SeatrialError as error:  # Whatever it was, the bundle has not passed.
                message = f"It could not be computed: {error.message}"
                verdicts.append(Verdict(check=name, outcome=Outcome.FAIL, message=message))
    return verdicts


def _serves(case: Case) -> Verdict:
    """Load the bundle as a server would, with the tables of the environment, and let it answer once."""
    try:
        versions = _served(case.bundle, case.target).versions
    except StoreError:
        raise
    except SeatrialError as error:
        return Verdict(check="serves", outcome=Outcome.FAIL, message=f"It cannot be served there: {error}")
    return Verdict(
        check="serves",
        outcome=Outcome.PASS,
        message="It was loaded as a server does, with the tables there, and answered.",
        evidence={"tables": versions},
    )


def _served(bundle: Bundle, workspace: Workspace) -> ServedModel:
    name = bundle.manifest.model
    tables = Tables(workspace, name, "valid")
    versions = table_versions(workspace, name, list(bundle.features.tables))
    return ServedModel(bundle, {table: tables.read(table, v) for table, v in versions.items()}, versions)


def _bundle_age(demand: Any, case: Case) -> Iterator[Verdict]:
    created = case.bundle.manifest.created
    age = datetime.now(UTC) - datetime.fromisoformat(created)
    yield judge(
        "bundle_age",
        age / _DAY,
        demand.maximum / _DAY,
        better="lower",
        unit="days",
        message=f"The bundle was made {created}.",
    )


def _data_age(demand: Any, case: Case) -> Iterator[Verdict]:
    end = case.bundle.json(names.METRICS).get("end")
    newest = read_time(end)
    yield judge(
        "data_age",
        None if newest is None else (case.as_of - newest) / _DAY,
        demand.maximum / _DAY,
        better="lower",
        unit="days",
        message=f"The newest row that the model was tested on is of {end}.",
    )


def _live_quality(demand: Any, case: Case) -> Iterator[Verdict]:
    start = case.as_of - demand.days * _DAY
    joined = join_outcomes(case.source, case.bundle.manifest.model, start=start, end=case.as_of)
    known = joined.filter((pl.col("bundle") == case.bundle.digest) & pl.col("outcome").is_not_null())
    enough = known.height >= demand.minimum_outcomes
    figures = (
        live_quality(case.bundle, known["outcome"].to_numpy(), known["probability"].to_numpy())
        if enough
        else {}
    )
    yield judge(
        "live_quality",
        figures["roc_auc"].low if figures else None,
        demand.minimum_roc_auc,
        better="higher",
        message=f"Lower end of the 95% interval of ROC AUC over {known.height:,} live outcomes of {demand.days} days; "
        f"at least {demand.minimum_outcomes:,} are needed.",
        evidence={"outcomes": known.height, **{name: f.model_dump() for name, f in figures.items()}},
    )


def _replay(demand: Any, case: Case) -> Iterator[Verdict]:
    start, name = case.as_of - demand.days * _DAY, case.bundle.manifest.model
    bound = demand.maximum_flags_changed
    if case.serving is None:
        yield Verdict(
            check="replay",
            outcome=Outcome.PASS,
            message="Nothing is served there yet, so there is nothing to compare with.",
        )
        return
    if hidden := _concealed_inputs(case.bundle) | _concealed_inputs(case.serving):
        message = f"The record has no values of the private inputs {', '.join(sorted(hidden))}."
        yield judge("replay", None, bound, better="lower", message=message)
        return
    recorded = read_predictions(case.target, name, start=start, end=case.as_of).tail(demand.maximum_rows)
    if recorded.height < demand.minimum_rows:
        found = f"{recorded.height:,} recorded rows in {demand.days} days"
        message = f"{found}; at least {demand.minimum_rows:,} are needed."
        yield judge("replay", None, bound, better="lower", message=message)
        return
    rows = [orjson.loads(text) for text in recorded["inputs"]]
    new, old = (_answers(bundle, case.target, rows) for bundle in (case.bundle, case.serving))
    changed = np.mean(np.asarray(new[1]) != np.asarray(old[1]))
    moved = np.abs(np.asarray(new[0]) - np.asarray(old[0]))
    yield judge(
        "replay",
        float(changed),
        bound,
        better="lower",
        message=f"Share of {len(rows):,} recorded rows of {demand.days} days that only one of both bundles flags.",
        evidence={
            "compared with": case.serving.digest,
            "mean difference of probability": float(moved.mean()),
            "largest difference of probability": float(moved.max()),
            "flagged now": float(np.mean(old[1])),
            "flagged then": float(np.mean(new[1])),
        },
    )


def _concealed_inputs(bundle: Bundle) -> set[str]:
    """Return the inputs whose values are not recorded as they were: answers to the record would be others."""
    contract = bundle.contract.contract
    columns = contract.tables[contract.prediction.table].columns
    return {name for name in contract.prediction.inputs if columns[name].private is not None}


def _answers(
    bundle: Bundle, workspace: Workspace, rows: list[dict[str, Any]]
) -> tuple[list[float], list[bool]]:
    model = _served(bundle, workspace)
    kinds = [(column.name, column.type == "time") for column in model.schema.inputs]
    asked = [[read_time(r.get(name)) if time else r.get(name) for name, time in kinds] for r in rows]
    predicted = model.predict(asked)
    return predicted.probability, predicted.flagged


def _shadow_agreement(demand: Any, case: Case) -> Iterator[Verdict]:
    said = read_comparisons(case.source, case.bundle.manifest.model).filter(
        (pl.col("candidate") == case.bundle.digest)
        & pl.col("flagged").is_not_null()
        & pl.col("candidate_flagged").is_not_null()
    )
    rows = (
        said.unique("prediction_id")
        .select("bundle", same=pl.col("flagged") == pl.col("candidate_flagged"))
        .collect()
    )
    same = int(rows["same"].sum())
    yield judge(
        "shadow_agreement",
        same / rows.height if rows.height >= demand.minimum_rows else None,
        demand.minimum,
        better="higher",
        message=f"Share of {rows.height:,} rows that it flagged as the bundle that served beside it did; at least "
        f"{demand.minimum_rows:,} are needed.",
        evidence={"compared with": sorted(set(rows["bundle"])), "flagged otherwise": rows.height - same},
    )


def _load_test(demand: Any, case: Case) -> Iterator[Verdict]:
    goal = case.bundle.contract.contract.serving.load
    if goal is None:
        message = "The contract does not say what a server must bear (serving.load)."
        yield Verdict(check="load_test", outcome=Outcome.FAIL, message=message)
        return
    image = serving_image(case.environment, case.bundle.manifest.model) if demand.in_image else None
    loaded: Loaded = put_under_load(
        case.bundle,
        case.source,
        case.trust,
        rate=goal.requests_per_second,
        seconds=demand.seconds,
        image=image,
    )
    asked = f"{loaded.requests:,} requests, {goal.requests_per_second:,} a second"
    if image is not None:
        asked += f", to a container of {image.reference}"
    if loaded.failed > goal.maximum_error_share * loaded.requests:
        yield judge(
            "load_test",
            loaded.failed / loaded.requests,
            goal.maximum_error_share,
            better="lower",
            message=f"Share of {asked}, that was not answered with 200.",
            evidence=loaded.failures,
        )
        return
    yield judge(
        "load_test",
        loaded.percentile(99),
        goal.p99_milliseconds,
        better="lower",
        unit="ms",
        message=f"99th percentile of {asked}, from when each was due to its answer.",
        evidence={
            "median": loaded.percentile(50),
            "longest": loaded.percentile(100),
            "failed": loaded.failed,
        },
    )


_JUDGES = {
    "bundle_age": _bundle_age,
    "data_age": _data_age,
    "live_quality": _live_quality,
    "replay": _replay,
    "shadow_agreement": _shadow_agreement,
    "load_test": _load_test,
}
