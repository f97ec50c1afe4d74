"""What continuous integration found, as a page for a change's discussion and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import orjson

from seatrial.continuous_integration.integrate import Integration, ModelChecks, Stage

MARKDOWN = "summary.md"
JSON = "summary.json"
_MARKS = {"passed": "✅", "failed": "❌", "skipped": "⏭️", "pass": "✅", "warn": "⚠️", "fail": "❌"}


def write_summary(found: Integration, folder: Path) -> Path:
    """Write what was found, for people and for scripts.

    Args:
        found: What was found.
        folder: Folder for ``summary.md`` and ``summary.json``.

    Returns:
        Path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_bytes(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2))
    page = folder / MARKDOWN
    page.write_text(_page(found), encoding="utf-8")
    return page


def _page(found: Integration) -> str:
    if not found.models:
        return f"No model is touched by what has changed since `{found.since[:12]}`.\n"
    verdict = "❌ Something failed" if found.failed else "✅ Everything passed"
    lines = [f"## {verdict}", "", f"Compared with `{found.since[:12]}`.", ""]
    lines += _stages([*found.stages, *(stage for model in found.models for stage in model.stages)])
    for model in found.models:
        lines += _model(model)
    return "\n".join(lines) + "\n"


def _stages(stages: list[Stage]) -> list[str]:
    rows = [f"| {_MARKS[s.status]} | {s.name} | {_cell(s.message)} | {s.seconds:.0f} s |" for s in stages]
    return ["| | what | found | took |", "| --- | --- | --- | --- |", *rows, ""]


def _model(checks: ModelChecks) -> list[str]:
    if checks.sample is None:
        return []
    lines = [f"### {checks.model}", ""]
    if checks.reused:
        lines += ["Nothing that makes this model has changed; these are the verdicts on the earlier run.", ""]
    lines += ["| | gate | measured |", "| --- | --- | --- |"]
    lines += [
        f"| {_MARKS[said['outcome']]} | {said['check']} | {_cell(said['measured'])} |"
        for said in checks.sample.verdicts
    ]
    return [*lines, "", f"Bundle `{checks.sample.bundle or '-'}`, report `{checks.sample.report}`.", ""]


def _cell(text: str) -> str:
    return "<br>".join(text.replace("|", "\\|").splitlines())
