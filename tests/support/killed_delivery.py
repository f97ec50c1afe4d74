"""A delivery that is killed at every write to the store and every call of git: ``JOB BASE FOLDER DIGESTS...``.

Each child works in a copy of the harbour BASE of its own and is killed, as by ``kill -9``, before its
k-th call, for every k until the work is done without being killed: so the number of calls is found, not
assumed. Just after a call all is as it is before the next one, so only
the last is killed after, too. Another child then audits what is there, gives the same commands again,
and audits once more. One JSON line a kill is printed.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import seatrial.workspace
from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import roll_back
from seatrial.delivery.rollout import advance, tell_git_of_roll_backs
from seatrial.errors import PointerMovedError, UsageError
from seatrial.feedback.ids import new_ids
from seatrial.feedback.rows import COMPARISONS_TABLE, ComparisonRecord, read_rows
from seatrial.feedback.shipping import feedback_tables
from seatrial.promotion.pointer import STAGE, Stage, is_move, pointer_log, read_pointer
from seatrial.workspace import Workspace
from support.harbour import MODEL, Harbour
from support.killed_work import forked, killing

ROWS = 20
"""Rows that a guard is judged by."""


def deliver(harbour: Harbour) -> None:
    """Bring what ``test`` serves into production."""
    for to, person in (("staging", None), ("production", "alice")):
        proposal = harbour.propose(to)
        if proposal.branch is not None:
            harbour.merge(proposal.branch.name)
            if person:
                harbour.approve(to, person, proposal.digest)
        reconcile(to)


def return_(harbour: Harbour) -> None:
    """Roll production back and tell git; a roll-back that was done has none before it to return to."""
    try:
        back = roll_back(MODEL, "production", reason="test", signer=harbour.key("bob"))
    except UsageError:
        return
    if back.branch is not None:
        harbour.merge(back.branch.name)


def roll_out(harbour: Harbour) -> None:
    """Roll what ``test`` serves out in staging, with a candidate that says what the other does."""
    proposal = harbour.propose("staging")
    if proposal.branch is not None:
        harbour.merge(proposal.branch.name)
    reconcile("staging")
    while (stage := read_pointer(harbour.workspace("staging"), "staging", MODEL).stage) is not None:
        record_comparisons(harbour.workspace("staging"), stage, failed=False)
        time.sleep(1)  # The shortest step that a rule may ask for.
        advance("staging")


def take_back(harbour: Harbour) -> None:
    """Begin the same with a candidate that fails, which its guard takes back; git is told and merged."""
    tell_git_of_roll_backs("staging")
    with contextlib.suppress(PointerMovedError):  # It was taken back already, and git does not say so yet.
        reconcile("staging")
    stage = read_pointer(harbour.workspace("staging"), "staging", MODEL).stage
    if stage is not None:
        record_comparisons(harbour.workspace("staging"), stage, failed=True)
        advance("staging")
    for branch in harbour.git("branch", "--list", "--format=%(refname:short)", "rollback/*").splitlines():
        harbour.merge(branch)
    reconcile("staging")


def record_comparisons(workspace: Workspace, stage: Stage, *, failed: bool) -> None:
    """Record what a server would of so many rows of a step."""
    ids, count = new_ids(ROWS), ROWS
    said: tuple[list[float] | None, list[bool] | None] = (
        (None, None) if failed else ([0.3] * count, [False] * count)
    )
    record = ComparisonRecord(
        prediction_id=ids,
        compared_at=time.time_ns() // 1_000,
        stage=stage.number,
        bundle="served",
        candidate=stage.digest,
        probability=[0.3] * count,
        candidate_probability=said[0],
        flagged=[False] * count,
        candidate_flagged=said[1],
        microseconds=200,
        candidate_microseconds=200,
        error="ValueError" if failed else None,
    )
    frame = read_rows([record.to_bytes()]).comparisons
    tables = feedback_tables(workspace, MODEL)
    tables.append(COMPARISONS_TABLE, frame, positions={f"test-{ids[0]}": 1}, facts={"source": "test"})


JOBS: dict[str, Callable[[Harbour], None]] = {
    "deliver": deliver,
    "return": return_,
    "roll out": roll_out,
    "take back": take_back,
}


def kill_at_call(number: int, when: str) -> None:
    """Let this process be killed before or after its call of that number."""
    counted = killing(number, when)
    seatrial.workspace.write_file = counted(seatrial.workspace.write_file)
    subprocess.run = counted(subprocess.run)  # type: ignore[assignment]


def look(harbour: Harbour) -> dict[str, Any]:
    """Return what is served, how often it was moved, and what an audit finds."""
    found: dict[str, Any] = {}
    for name in ("staging", "production"):
        records = pointer_log(harbour.workspace(name), name, MODEL).all()
        found[name] = {
            "serves": harbour.served(name),
            "moves": sum(is_move(record.content) for record in records),
            "weights": [r.content["weight"] for r in records if r.content["kind"] == STAGE],
            "findings": sorted({finding.what for finding in audit(name).findings}),
        }
    return found


def kill_one(job: str, base: Harbour, mine: Path, number: int, when: str) -> bool:
    """Kill at one call and print what was found; return False if the work was done without it."""
    shutil.copytree(base.root, mine)
    harbour = Harbour(mine, base.digests)

    def work() -> None:
        os.chdir(mine)
        kill_at_call(number, when)
        JOBS[job](harbour)

    def recover() -> dict[str, Any]:
        os.chdir(mine)
        between = look(harbour)
        JOBS[job](harbour)
        return {"between": between, "done": look(harbour)}

    status, said = forked(work)
    if status == 0:
        shutil.rmtree(mine)
        return False
    _, found = forked(recover)
    print(json.dumps({"at": mine.name, "killed": os.WIFSIGNALED(status), "said": said, **found}), flush=True)
    shutil.rmtree(mine)
    return True


def main() -> None:
    """Kill before each call, and after the last one."""
    job, root, folder, *digests = sys.argv[1:]
    base, number = Harbour(Path(root), digests), 1
    while kill_one(job, base, Path(folder) / f"{number}-before", number, "before"):
        number += 1
    kill_one(job, base, Path(folder) / f"{number - 1}-after", number - 1, "after")


if __name__ == "__main__":
    main()
