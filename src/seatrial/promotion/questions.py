"""A question that a run asks a person, and the answer: two objects of the workspace, each written once.

The run writes the question and looks for the answer every few seconds; `seatrial approve RUN` writes
the answer. The first answer counts, and a step that was killed and is tried again waits for the rest of
the time, as the question says until when. An answer is as good as the right to write to the
workspace: where persons must sign, a run does not ask (:mod:`seatrial.promotion.approvals`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from seatrial.errors import ApprovalError, StoreError, UsageError
from seatrial.promotion.pointer import user
from seatrial.workspace import Workspace

LOOK_SECONDS = 5.0
SAY_SECONDS = 300.0
_PREFIX = "questions"


class Question(BaseModel):
    """What a run asks.

    Attributes:
        run: Name of the run.
        model: The model's name.
        environment: The environment that may serve the bundle.
        digest: The bundle's digest.
        report: Address of the run's report.
        asked: When, ISO 8601.
        until: Until when an answer counts, ISO 8601.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    model: str
    environment: str
    digest: str
    report: str
    asked: datetime
    until: datetime


class Answer(BaseModel):
    """What a person says.

    Attributes:
        approved: Whether the environment may serve the bundle.
        digest: The bundle's digest, as the question had it.
        by: Who said so: the name of the user of the process that wrote it.
        at: When, ISO 8601.
        comment: What the person wants to be remembered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    approved: bool
    digest: str
    by: str
    at: datetime
    comment: str = ""


def ask(
    workspace: Workspace, run: str, *, model: str, environment: str, digest: str, report: str, wait: timedelta
) -> Question:
    """Ask a person whether an environment may serve a bundle; a question that was asked already stays.

    Raises:
        StoreError: if the store failed.
    """
    moment = datetime.now(UTC)
    question = Question(
        run=run,
        model=model,
        environment=environment,
        digest=digest,
        report=report,
        asked=moment,
        until=moment + wait,
    )
    if workspace.create(f"{_PREFIX}/{run}/question.json", question.model_dump_json(indent=2).encode()):
        return question
    return read_question(workspace, run)


def read_question(workspace: Workspace, run: str) -> Question:
    """Return what a run asks.

    Raises:
        UsageError: if the run asks nothing.
        StoreError: if the store failed or the question is damaged.
    """
    content = workspace.get(f"{_PREFIX}/{run}/question.json")
    if content is None:
        keys = workspace.list(_PREFIX)
        answered = {key.split("/")[1] for key in keys if key.endswith("/answer.json")}
        open_ = sorted({key.split("/")[1] for key in keys} - answered)
        raise UsageError(
            f"The run {run!r} asks nothing in {workspace.root}. Those that do: {', '.join(open_) or 'none'}."
        )
    try:
        return Question.model_validate_json(content)
    except ValidationError as error:
        raise StoreError(f"The question of run {run} is damaged: {error.errors()[0]['msg']}.") from None


def answer(workspace: Workspace, run: str, *, approved: bool, comment: str = "") -> Question:
    """Answer a run, once and for all.

    Returns:
        The question.

    Raises:
        UsageError: if the run asks nothing.
        ApprovalError: if it was answered already, or waits no more.
        StoreError: if the store failed.
    """
    question, moment = read_question(workspace, run), datetime.now(UTC)
    if moment > question.until:
        raise ApprovalError(
            f"The run {run} waited for an answer until {question.until.isoformat()}, and waits no more."
        )
    said = Answer(approved=approved, digest=question.digest, by=user(), at=moment, comment=comment)
    if not workspace.create(f"{_PREFIX}/{run}/answer.json", said.model_dump_json(indent=2).encode()):
        before = _read_answer(workspace, run)
        by = f" by {before.by}: {'yes' if before.approved else 'no'}" if before else ""
        raise ApprovalError(f"The run {run} was answered already{by}.")
    return question


def _read_answer(workspace: Workspace, run: str) -> Answer | None:
    content = workspace.get(f"{_PREFIX}/{run}/answer.json")
    try:
        return None if content is None else Answer.model_validate(orjson.loads(content))
    except (ValidationError, ValueError) as error:
        raise StoreError(f"The answer to run {run} is damaged: {type(error).__name__}.") from None


def wait_for_answer(
    workspace: Workspace, question: Question, *, report: Callable[[str], None]
) -> Answer | None:
    """Wait for the answer, also while the store does not answer.

    Args:
        workspace: Where the question is.
        question: The question.
        report: Told what is waited for, at once and every few minutes.

    Returns:
        The answer; None where there was none in time, or it is for another bundle.
    """
    told = 0.0
    while True:
        late = datetime.now(UTC) > question.until
        try:
            found = _read_answer(workspace, question.run)
        except StoreError as error:
            report(f"the answer cannot be looked for: {error.message}")
            found = None
        if found is not None:
            return found if found.digest == question.digest and found.at <= question.until else None
        if late:
            return None
        if time.monotonic() - told > SAY_SECONDS or not told:
            report(
                f"waiting until {question.until.isoformat(timespec='seconds')} for a person: "
                f"may {question.environment} serve {question.model} {question.digest[:12]}? "
                f"Look at {question.report}, then say: seatrial approve {question.run} (or with --no)"
            )
            told = time.monotonic()
        time.sleep(LOOK_SECONDS)
