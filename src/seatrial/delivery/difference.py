"""What a move changes, in words, as Markdown: for the terminal, the commit and the pull request alike.

A person who decides wants to know which model it is, what it learned from, which numbers get better
or worse, what the gates warn of, and what will happen in the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seatrial.bundle import Bundle
from seatrial.bundle import content as names
from seatrial.delivery.declared import (
    DEPLOYMENT,
    SELDON_DEPLOYMENT,
    VALUES_FILE,
    object_name,
    runs_on_seldon,
)
from seatrial.promotion.environment import EnvironmentFolder
from seatrial.promotion.pointer import Pointer
from seatrial.verdicts import Outcome, Verdict, verdicts_table

LOWER_IS_BETTER = frozenset(
    {"brier_score", "cost_per_row", "cost_ratio", "expected_calibration_error", "log_loss"}
)
_SHOWN = 12


def describe(
    environment: EnvironmentFolder,
    bundle: Bundle,
    serving: Bundle | None,
    pointer: Pointer,
    verdicts: list[Verdict],
    *,
    approvals: int,
) -> str:
    """Return what changes if an environment serves a bundle.

    Args:
        environment: The environment.
        bundle: The bundle that shall be served.
        serving: The one that is served now; None where there is none.
        pointer: The pointer now.
        verdicts: What the environment's demands found.
        approvals: How many persons must approve.
    """
    model = bundle.manifest.model
    seldon = runs_on_seldon(environment.folder / model / VALUES_FILE)
    kind = SELDON_DEPLOYMENT if seldon else DEPLOYMENT
    lines = [
        f"# {model} in {environment.name}: {_name(serving)} → {_name(bundle)}",
        "",
        f"{environment.name} serves {_name(serving)} now (generation {pointer.generation}).",
        f"It shall serve {_name(bundle)}, made {bundle.manifest.created} by `{bundle.manifest.run}` and",
        f"signed by `{bundle.signed_by[:_SHOWN]}`.",
        "",
        *_data(bundle, serving),
        *_figures(bundle, serving),
        *_verdicts("What the model's own gates found", bundle.verdicts),
        *_verdicts(f"What {environment.name} demands", verdicts),
        "## What changes there",
        "",
        f"- `{environment.folder.name}/{model}/bundle.yaml` names bundle `{bundle.digest}`.",
        f"- The {kind} `{object_name(model)}` replaces its pods one by one; one goes only when another is ready.",
        *_coming(environment, serving),
        f"- Back again: `seatrial rollback {model} --env {environment.name}`.",
        "",
    ]
    if approvals:
        persons = "one person approves" if approvals == 1 else f"{approvals} persons approve"
        said = f"seatrial approve {model} --env {environment.name}"
        lines += [f"It is not served before {persons}: `{said}`.", ""]
    return "\n".join(lines)


def _coming(environment: EnvironmentFolder, serving: Bundle | None) -> Iterator[str]:
    rules = environment.rules.rollout
    if rules is None or serving is None:
        yield "- A server that follows the environment's pointer takes the bundle without a restart."
        return
    steps = ", ".join(f"{weight}%" if weight else "shadow" for weight in rules.steps)
    yield (
        f"- Servers try it step by step ({steps}, then all requests), each step for {rules.minimum_time} and "
        f"{rules.minimum_rows:,} rows at least; a guard that trips takes it back."
    )


def _name(bundle: Bundle | None) -> str:
    return f"`{bundle.digest[:_SHOWN]}`" if bundle else "nothing"


def _data(bundle: Bundle, serving: Bundle | None) -> Iterator[str]:
    yield from (
        "## What it learned from",
        "",
        "| table | rows | version | before |",
        "| --- | ---: | --- | --- |",
    )
    for table, facts in bundle.manifest.data.items():
        before = serving.manifest.data.get(table) if serving else None
        same = before is not None and before.get("digest") == facts.get("digest")
        was = "the same" if same else f"{before['rows']:,} rows" if before else "-"
        yield f"| {table} | {facts['rows']:,} | {facts['version']} (`{str(facts['digest'])[:_SHOWN]}`) | {was} |"
    yield ""


def _figures(bundle: Bundle, serving: Bundle | None) -> Iterator[str]:
    now, before = _test_figures(bundle), _test_figures(serving) if serving else {}
    if not now:
        return
    yield from ("## Figures", "", "Each on the test rows of its own training, which may be other rows.", "")
    yield from ("| figure | now served | this | |", "| --- | ---: | ---: | --- |")
    for name, value in now.items():
        old = before.get(name)
        yield f"| {name} | {_number(old)} | {_number(value)} | {_direction(name, old, value)} |"
    yield ""


def _test_figures(bundle: Bundle) -> dict[str, float | None]:
    if names.METRICS not in bundle.files:
        return {}
    figures: dict[str, dict[str, Any]] = bundle.json(names.METRICS).get("test", {})
    return {name: figure.get("value") for name, figure in figures.items()}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _direction(name: str, old: float | None, new: float | None) -> str:
    if old is None or new is None or _number(old) == _number(new):
        return ""
    return "better" if (new > old) != (name in LOWER_IS_BETTER) else "**worse**"


def _verdicts(title: str, verdicts: list[Verdict]) -> Iterator[str]:
    counts = {outcome: sum(v.outcome is outcome for v in verdicts) for outcome in Outcome}
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    yield from (f"## {title}", "", f"{said}.", "")
    yield from verdicts_table(verdicts)
    yield ""
