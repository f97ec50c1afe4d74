"""Step 8, its end: a run that waits for a person."""

from __future__ import annotations

from seatrial.bundle import load_bundle, open_trust_root
from seatrial.contract import load_contract
from seatrial.gates import passes
from seatrial.promotion.questions import ask, wait_for_answer
from seatrial.steps.files import read_json, reported, say
from seatrial.steps.release import promote_found
from seatrial.workspace import Workspace


@reported
def wait_for_approval(
    model: str, workspace: str, environment: str, digest: str, report: str, found_in: str
) -> bool:
    """Let an environment serve a bundle if a person says so, where its contract wants a run to ask.

    Args:
        model: The model's name or folder.
        workspace: Address of the workspace.
        environment: Name of the environment.
        digest: The bundle's digest.
        report: Address of the run's report.
        found_in: Path of what the run found.

    Returns:
        Whether the environment serves it now. A run does not ask about a bundle that failed a gate.

    Raises:
        PointerMovedError: if the environment serves another model by now than the one it was compared with.
        StoreError: if the store failed before the question was asked.
    """
    loaded, place, found = load_contract(model), Workspace.open(workspace), read_json(found_in)
    rule = loaded.contract.environments.get(environment)
    if rule is None or rule.ask_for is None:
        say(f"not asked: the contract has no ask_for for {environment}")
        return False
    bundle = load_bundle(place, digest, open_trust_root(place))
    if not passes(bundle.verdicts):
        say("not asked: a gate failed")
        return False
    question = ask(
        place,
        found["run"],
        model=loaded.contract.name,
        environment=environment,
        digest=digest,
        report=report,
        wait=rule.ask_for,
    )
    answer = wait_for_answer(place, question, report=say)
    if answer is None or not answer.approved:
        said = f"{answer.by} said no. {answer.comment}".rstrip() if answer else "nobody answered in time"
        say(f"not promoted: {said}")
        return False
    return promote_found(
        loaded,
        place,
        environment,
        bundle,
        found,
        reason=f"approved by {answer.by}. {answer.comment}".rstrip(),
    )
