"""A delivery that is killed at every write to the store and every call of git: ``JOB BASE FOLDER DIGESTS...``.

Each child works in a copy of the harbour BASE of its own and is killed, as by ``kill -9``, before its
k-th call, for every k until the work is done without being killed: so the number of calls is found, not
assumed. Just after a call all is as it is before the next one, so only
the last is killed after, too. Another child then audits what is there, gives the same commands again,
and audits once more. One JSON line a kill is printed.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore

from seatrial.delivery.audit import audit
from seatrial.delivery.reconcile import reconcile
from seatrial.delivery.rollback import roll_back
from seatrial.errors import UsageError
from seatrial.promotion.pointer import is_move, pointer_log
from support.harbour import MODEL, Harbour
from support.killed_work import forked, killing


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
        back = roll_back(MODEL, "production", reason="test")
    except UsageError:
        return
    if back.branch is not None:
        harbour.merge(back.branch.name)


JOBS: dict[str, Callable[[Harbour], None]] = {"deliver": deliver, "return": return_}


def kill_at_call(number: int, when: str) -> None:
    """Let this process be killed before or after its call of that number."""
    counted = killing(number, when)
    obstore.put = counted(obstore.put)
    subprocess.run = counted(subprocess.run)  # type: ignore[assignment]


def look(harbour: Harbour) -> dict[str, Any]:
    """Return what is served, how often it was moved, and what an audit finds."""
    found: dict[str, Any] = {}
    for name in ("staging", "production"):
        records = pointer_log(harbour.workspace(name), name, MODEL).all()
        found[name] = {
            "serves": harbour.served(name),
            "moves": sum(is_move(record.content) for record in records),
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
