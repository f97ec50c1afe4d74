"""Many processes that want a key at once get the same one."""

from __future__ import annotations

import contextlib
from pathlib import Path

from support.processes import say_go, started

PROCESSES = 8


def test_of_racing_processes_one_makes_the_key(tmp_path: Path) -> None:
    """All sign with one key that all trust, and nothing half-written is left."""
    with contextlib.ExitStack() as stack:
        signers = [stack.enter_context(started("sign_something.py", tmp_path)) for _ in range(PROCESSES)]
        say_go(signers)
        outputs = [signer.communicate(timeout=120) for signer in signers]

    assert [error for _, error in outputs] == [""] * PROCESSES
    assert len({out for out, _ in outputs}) == 1
    keys = tmp_path / "keys"
    assert sorted(path.name for path in keys.iterdir()) == ["signing-key.pem", "trusted"]
    assert [path.stem for path in (keys / "trusted").iterdir()] == [outputs[0][0].strip()]
    assert (keys / "signing-key.pem").stat().st_mode & 0o777 == 0o600
