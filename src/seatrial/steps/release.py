"""Step 8 and after: bundle, register, promote, report."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from seatrial.bundle import Bundle, load_bundle, open_signer, open_trust_root, write_bundle
from seatrial.bundle import content as names
from seatrial.card import render_card
from seatrial.contract.load import LoadedContract
from seatrial.data_tests import as_of_or_now
from seatrial.errors import GateError, PointerMovedError
from seatrial.evaluation import Evaluation
from seatrial.model_check import check_model
from seatrial.promotion import promote, read_pointer
from seatrial.registry import register, set_alias
from seatrial.report import ReportFacts, render_report, report_key
from seatrial.report.stored import REPORT
from seatrial.steps.files import read_checks, read_json, reported, say
from seatrial.triggers import finish, owner, trigger_log, unfinished
from seatrial.verdicts import Outcome
from seatrial.workspace import Workspace

_LIBRARIES = ("numpy", "onnx", "onnxruntime", "polars", "scikit-learn", "seatrial", "skl2onnx", "skops")
_CODE = ("features.py", "prepare.py", "estimators.py")


def read_found(loaded: LoadedContract, path: str, *, bundle: str | None = None) -> ReportFacts:
    """Read what a run found, as its report and its model's card want it.

    Args:
        loaded: The model's contract.
        path: What the gates' step gathered.
        bundle: Digest of the run's bundle, once there is one.
    """
    found = read_json(path)
    training = found["training"]
    return ReportFacts(
        model=found["model"],
        run=found["run"],
        as_of=as_of_or_now(found["as_of"]),
        environment=found["environment"],
        description=loaded.contract.description,
        owner=loaded.contract.owner,
        verdicts=found["verdicts"],
        candidates=training["candidates"],
        selection=loaded.contract.selection,
        evaluation=found["evaluation"],
        tables=found["versions"],
        checks=read_checks(found["checks"]),
        profiles=found["profiles"],
        training=training["cost"],
        bundle=bundle,
    )


@reported
def bundle_model(model: str, workspace: str, model_in: str, found_in: str) -> str:
    """Make the signed bundle of a run, whatever its verdicts: they are part of it.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        model_in: Folder of the model's files.
        found_in: Path of what the run found.

    Returns:
        The bundle's digest.

    Raises:
        SeatrialError: if the bundle cannot be written or signed.
    """
    loaded, place, found = check_model(model), Workspace.open(workspace), read_json(found_in)
    evaluation = Evaluation.model_validate(found["evaluation"])
    files = {path.name: path.read_bytes() for path in sorted(Path(model_in).iterdir())}
    files |= {name: (loaded.folder / name).read_bytes() for name in _CODE if (loaded.folder / name).is_file()}
    files[names.CONTRACT] = loaded.text.encode()
    files[names.CARD] = render_card(read_found(loaded, found_in)).encode()
    files[names.METRICS] = _json(evaluation.metrics_json())
    files[names.VERDICTS] = _json(found["verdicts"])
    files[names.ENVIRONMENT] = _json(_environment())
    data = {
        table: {k: v for k, v in facts.items() if k != "table"} for table, facts in found["versions"].items()
    }
    signer = open_signer(place)
    digest = write_bundle(
        place, files, model=loaded.contract.name, run=found["run"], data=data, signer=signer
    )
    size = sum(len(content) for content in files.values())
    say(f"bundle {digest[:12]}: {len(files)} files, {size / 1e6:.1f} MB, signed")
    return digest


def _json(value: Any) -> bytes:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def _environment() -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "machine": platform.machine(), "libraries": versions}


@reported
def register_model(
    model: str, workspace: str, environment: str, digest: str, report: str, found_in: str
) -> bool:
    """Register a bundle, and let the environment serve it if its gates passed and the contract says so.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        environment: Name of the environment.
        digest: The bundle's digest.
        report: Address of the run's report.
        found_in: Path of what the run found.

    Returns:
        Whether the environment serves it now.

    Raises:
        RegistryError: if MLflow cannot be used.
        PointerMovedError: if the environment serves another model than the one it was compared with.
    """
    loaded, place, found = check_model(model), Workspace.open(workspace), read_json(found_in)
    bundle = load_bundle(place, digest, open_trust_root(place))
    figures = bundle.json(names.METRICS)["test"]
    failed = [verdict.check for verdict in bundle.verdicts if verdict.outcome is Outcome.FAIL]
    chosen = next(c for c in found["training"]["candidates"] if c["chosen"])
    data = {f"seatrial.data.{t}": f"{v['version']}@{v['digest'][:12]}" for t, v in found["versions"].items()}
    version = register(
        place,
        bundle,
        parameters={
            "as_of": found["as_of"],
            "environment": environment,
            "candidate": chosen["name"],
            **chosen["parameters"],
        },
        metrics={name: figure["value"] for name, figure in figures.items() if figure["value"] is not None}
        | {f"training_{name}": value for name, value in found["training"]["cost"].items()},
        tags={"seatrial.verdict": "fail" if failed else "pass", "seatrial.run": found["run"], **data},
        figures={REPORT: place.get(report_key(loaded.contract.name, found["run"])) or report.encode()},
    )
    say(f"registered in MLflow as {version.model} version {version.version}")
    served = _promote_if_allowed(loaded, place, environment, bundle, found)
    _finish_trigger(place, loaded.contract.name, found["run"], digest, served=served)
    return served


def _promote_if_allowed(
    loaded: LoadedContract, workspace: Workspace, environment: str, bundle: Bundle, found: dict[str, Any]
) -> bool:
    rule = loaded.contract.environments.get(environment)
    if rule is None or rule.promotion == "manual":
        say(f"not promoted: {environment} wants a person's word")
        return False
    reason = f"run {found['run']} passed its gates"
    return promote_found(loaded, workspace, environment, bundle, found, reason=reason)


def promote_found(
    loaded: LoadedContract,
    workspace: Workspace,
    environment: str,
    bundle: Bundle,
    found: dict[str, Any],
    *,
    reason: str,
) -> bool:
    """Let an environment serve the bundle of a run, unless a gate failed or somebody else moved meanwhile.

    Args:
        loaded: The model's contract.
        workspace: The workspace.
        environment: Name of the environment.
        bundle: The bundle.
        found: What the run found.
        reason: Why, for the record.

    Returns:
        Whether it is served now.

    Raises:
        PointerMovedError: if the environment serves another model than the one it was compared with.
        RegistryError: if MLflow cannot be used.
    """
    name = loaded.contract.name
    trains = owner(trigger_log(workspace, name), found["run"])
    if trains not in (None, found["run"]):
        say(f"not promoted: run {trains} has taken this one's place")
        return False
    champion = (found["evaluation"]["champion"] or {}).get("digest")
    pointer = read_pointer(workspace, environment, name)
    if pointer.digest not in (champion, bundle.digest):
        raise PointerMovedError(
            f"{environment} serves {str(pointer.digest)[:12]} now, but the model was compared with "
            f"{champion[:12] if champion else 'none'}.",
            remedy="Run the training again, so that it is compared with what serves now.",
        )
    try:
        as_of = as_of_or_now(found["as_of"])
        moved = promote(
            workspace, bundle, environment=environment, expected=pointer, reason=reason, as_of=as_of
        )
    except GateError as error:
        say(f"not promoted: {error.message}")
        return False
    set_alias(workspace, name, environment, bundle.digest)
    say(f"{environment} serves {bundle.digest[:12]} now (generation {moved.generation})")
    return True


def _finish_trigger(workspace: Workspace, model: str, run: str, digest: str, *, served: bool) -> None:
    """Close the trigger that started this run, if one did."""
    log = trigger_log(workspace, model)
    pending = unfinished(log)
    if pending is not None and pending.owner == run:
        finish(log, pending, outcome={"bundle": digest, "served": served})


@reported
def write_report(workspace: str, digest: str, found_in: str, report_out: str) -> str:
    """Write a run's report, to a path for the pipeline's page and into the workspace.

    Args:
        workspace: Address of the workspace.
        digest: The bundle's digest.
        found_in: Path of what the run found.
        report_out: Path for the report, as HTML.

    Returns:
        The report's address in the workspace.

    Raises:
        StoreError: if the store fails.
    """
    place = Workspace.open(workspace)
    bundle = load_bundle(place, digest, open_trust_root(place))
    facts = read_found(bundle.contract, found_in, bundle=digest)
    page = render_report(facts)
    Path(report_out).parent.mkdir(parents=True, exist_ok=True)
    Path(report_out).write_text(page, encoding="utf-8")
    key = report_key(facts.model, facts.run)
    place.put(key, page.encode())
    say(f"report: {place.uri(key)}")
    return place.uri(key)
