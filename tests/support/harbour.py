"""A harbour: the ferry model with three environments, in a git repository, as a user of promotion has them.

Each environment is a workspace of its own with the data that its servers need. The files in git are
those that the repository itself ships.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.bundle import load_bundle, open_signer, open_trust_root
from seatrial.bundle.signing import Signer, read_signer
from seatrial.contract import load_contract
from seatrial.data_tests import validate
from seatrial.delivery.keys import add_approver, trust_maker
from seatrial.delivery.proposal import Proposal, propose
from seatrial.delivery.reconcile import Reconciled, reconcile
from seatrial.promotion import promote, read_pointer
from seatrial.promotion.approvals import Approval, approve, gates_record
from seatrial.promotion.environment import FILE, open_environment
from seatrial.promotion.pointer import pointer_log
from seatrial.sources import ingest
from seatrial.workspace import Workspace
from support.repository import git

if TYPE_CHECKING:
    from tests.local.serving.conftest import Ferry

ROOT = Path(__file__).parents[2]
MODEL = "ferry"
AS_OF = datetime(2024, 3, 1, tzinfo=UTC)
"""Where the data of the model end."""


@dataclass(frozen=True)
class Harbour:
    """The repository's folder, which is the current one, and what is done in it.

    Attributes:
        root: The folder.
        digests: The bundles that there are, in the store of ``test``.
    """

    root: Path
    digests: list[str]

    def workspace(self, environment: str) -> Workspace:
        """Open an environment's workspace."""
        return open_environment(environment).open_workspace()

    def served(self, environment: str) -> str | None:
        """Return the digest that an environment's pointer names."""
        return read_pointer(self.workspace(environment), environment, MODEL).digest

    def train(self, digest: str) -> None:
        """Let ``test`` serve a bundle, as the end of a training run does."""
        workspace = self.workspace("test")
        bundle = load_bundle(workspace, digest, open_trust_root(workspace))
        expected = read_pointer(workspace, "test", MODEL)
        promote(workspace, bundle, environment="test", expected=expected, reason="trained", as_of=AS_OF)

    def propose(self, to: str, **options: object) -> Proposal:
        """Prepare a move."""
        return propose(MODEL, to, as_of=AS_OF + timedelta(days=1), **options)  # type: ignore[arg-type]

    def merge(self, branch: str) -> None:
        """Merge a branch, as a review does."""
        self.git("merge", "--quiet", "--no-edit", branch)

    def approve(self, environment: str, person: str, digest: str) -> Approval:
        """Let a person approve what was judged last."""
        workspace = self.workspace(environment)
        evidence = gates_record(pointer_log(workspace, environment, MODEL).all(), digest)
        assert evidence is not None
        expected = read_pointer(workspace, environment, MODEL)
        signer = self.key(person)
        opened = open_environment(environment)
        return approve(opened, workspace, MODEL, digest, signer=signer, expected=expected, evidence=evidence)

    def key(self, person: str) -> Signer:
        """Return a person's key."""
        return read_signer(self.root / f"{person}.key")

    def deliver(self, to: str, *persons: str) -> list[Reconciled]:
        """Prepare, merge, approve and make a move."""
        proposal = self.propose(to)
        assert proposal.branch is not None
        self.merge(proposal.branch.name)
        for person in persons:
            self.approve(to, person, proposal.digest)
        return reconcile(to)

    def rules(self, environment: str, text: str) -> None:
        """Let an environment's file say something more, as YAML, or something else than before."""
        path = self.root / "manifests/environments" / environment / FILE
        path.write_text(re.split("(?m)^(?:demands|rollout):", path.read_text())[0] + text)

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        return git(self.root, *arguments)


def open_harbour(ferry: Ferry, root: Path) -> Harbour:
    """Make the harbour below ``root`` and go there.

    Args:
        ferry: The trained model, whose workspace becomes that of ``test``.
        root: An empty folder.
    """
    shutil.copytree(ROOT / "manifests", root / "manifests")
    shutil.rmtree(root / "manifests/environments/test/flights")
    (root / "manifests/environments/test/kustomization.yaml").write_text("resources: []\n")
    for name in ("staging", "production"):
        folder = root / "manifests/environments" / name
        shutil.move(folder / "flights", folder / MODEL)
        for path in (folder / MODEL).glob("*.yaml"):
            path.write_text(path.read_text().replace("flights", MODEL))
    shutil.copytree(ferry.folder, root / "models" / MODEL)
    shutil.copytree(ferry.root, root / ".seatrial")
    os.chdir(root)
    made = Harbour(root, list(ferry.digests))
    (root / ".gitignore").write_text(".seatrial*/\n*.key\n")
    made.git("init", "--quiet", "--initial-branch=main")
    for name, value in (("user.name", "test"), ("user.email", "test@example.com")):
        made.git("config", name, value)
    loaded = load_contract(MODEL)
    maker = next((root / ".seatrial/keys/trusted").glob("*.pem"))
    for name in ("staging", "production"):
        workspace = Workspace.open(root / f".seatrial-{name}")
        ingest(loaded, workspace, until=AS_OF)
        validate(loaded, workspace, as_of=AS_OF)
        trust_maker(name, maker)
    for person in ("alice", "bob"):
        add_approver("production", person, root / f"{person}.key")
    open_signer(Workspace.open(root / "mallory"))
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "The harbour opens")
    return made
