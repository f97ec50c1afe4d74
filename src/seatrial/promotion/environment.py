"""An environment as git says it is: ``manifests/environments/ENV/environment.yaml`` and the keys beside it.

One file says from where a bundle comes, in which workspace it is kept, what it must pass first and
how many persons must agree. So a change of the rules is a change in git, reviewed like any other.
Public keys lie beside it: ``trusted/`` those of makers of bundles, ``approvers/NAME.pem`` those of
persons. What lies in the object store can change none of this.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from seatrial.bundle import TrustRoot, open_trust_root
from seatrial.bundle.signing import TRUST_VARIABLE, read_trust_root
from seatrial.contract.schema import Duration, Guards, Name, Section, Share
from seatrial.errors import ContractError, Problem, UsageError
from seatrial.store_access import StoreAccess, access_of, endpoint_of
from seatrial.workspace import Workspace

ENVIRONMENTS_VARIABLE = "SEATRIAL_ENVIRONMENTS"
FOLDER = Path("manifests/environments")
FILE = "environment.yaml"


class BundleAge(Section):
    """How long ago a bundle may have been made."""

    maximum: Duration = Field(description="Longest time that passes (inclusive).")


class DataAge(Section):
    """How long before the promotion the newest row that a bundle learned from may have happened."""

    maximum: Duration = Field(description="Longest time that passes (inclusive).")


class LiveQuality(Section):
    """How good the bundle was on the live traffic of the environment before, by its outcomes."""

    minimum_roc_auc: Share = Field(description="Lowest lower end of the 95% interval of ROC AUC that passes.")
    minimum_outcomes: int = Field(500, ge=1, description="With fewer outcomes it has failed.")
    days: int = Field(28, ge=1, description="How many days before the promotion count.")


class Replay(Section):
    """The newest recorded requests of this environment, answered again by the bundle and by the one that serves."""

    days: int = Field(7, ge=1, description="How many days before the promotion count.")
    maximum_rows: int = Field(10_000, ge=1, description="Of more rows, the newest are replayed.")
    minimum_rows: int = Field(100, ge=1, description="With fewer rows it has failed.")
    maximum_flags_changed: Share = Field(
        description="Largest share of rows that one of both flags and the other does not."
    )


class ShadowAgreement(Section):
    """How often the bundle flagged the same as the one that served, when the environment before rolled it out."""

    minimum: Share = Field(description="Smallest share of the rows that both flagged, or neither.")
    minimum_rows: int = Field(500, ge=1, description="With fewer rows it has failed.")


class LoadTest(Section):
    """A server of the bundle, asked at the rate of its contract (`serving.load`) on the machine that judges it."""

    seconds: int = Field(30, ge=1, le=600, description="How long it is asked.")
    in_image: bool = Field(
        False,
        description="Whether it runs in the image that git names for the model here, with that container's limits "
        "of processors and memory, by docker or podman on Linux; else it is a process of this installation.",
    )


class Demands(Section):
    """What a bundle must pass before this environment serves it, beside its own contract's gates."""

    bundle_age: BundleAge | None = None
    data_age: DataAge | None = None
    live_quality: LiveQuality | None = None
    replay: Replay | None = None
    shadow_agreement: ShadowAgreement | None = None
    load_test: LoadTest | None = None


class RollOut(Section):
    """How a bundle comes into service step by step, beside the one that serves."""

    steps: list[Annotated[int, Field(ge=0, le=99)]] = Field(
        [0, 10, 50],
        min_length=1,
        description="Of each step the share of the requests that the candidate answers, in percent, ascending. With 0 "
        "it is in the shadow: its answers are compared and not returned. After the last step it serves alone.",
    )
    minimum_rows: int = Field(
        1_000, ge=1, description="Fewest rows that the candidate must have been asked in each step."
    )
    minimum_time: Duration = Field(timedelta(minutes=10), description="Shortest time of each step.")
    maximum_time: Duration = Field(
        timedelta(days=1),
        description="Longest time of each step: if its guards are not decided then, the candidate goes back.",
    )
    guards: Guards = Field(
        Guards(maximum_quality_drop=None),
        description="What the candidate must keep to; the model's contract may say otherwise.",
    )

    @field_validator("steps")
    @classmethod
    def _ascend(cls, steps: list[int]) -> list[int]:
        if steps != sorted(set(steps)):
            raise ValueError("steps must ascend")
        return steps


class EnvironmentFile(Section):
    """What ``environment.yaml`` says."""

    version: int = Field(1, ge=1, le=1, description="Version of the file's format.")
    name: Name = Field(description="The environment's name, the same as its folder's.")
    after: Name | None = Field(
        None, description="The environment that a bundle comes from; none where training puts it."
    )
    workspace: str = Field(
        min_length=1,
        description="Folder or s3:// address of its workspace. `$SEATRIAL_WORKSPACE_NAME` counts before it. Where its "
        "store has a server or keys of its own: [variables](../how-to/promotion.md#a-store-of-its-own).",
    )
    namespace: str | None = Field(
        None,
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="Its namespace on Kubernetes; the environment's name without it.",
    )
    approvals: int = Field(
        0, ge=0, le=9, description="How many persons must approve a bundle before it is served."
    )
    approval_valid: Duration = Field(timedelta(days=7), description="How long an approval is good for.")
    demands: Demands = Field(
        Demands(), description="What a bundle must pass first, beside its own contract's gates."
    )
    rollout: RollOut | None = Field(
        None, description="How a bundle is rolled out there; without it, it takes all requests at once."
    )

    @property
    def follows_record(self) -> bool:
        """Whether its servers follow its record, and are not given a bundle by its digest.

        So it is where training puts a bundle there by itself, and where bundles are rolled out step by step.
        """
        return self.after is None or self.rollout is not None

    @property
    def is_rolled_out(self) -> bool:
        """Whether there are roll-outs that a job has to lead on."""
        return self.after is not None and self.rollout is not None


@dataclass(frozen=True)
class EnvironmentFolder:
    """An environment, opened.

    Attributes:
        rules: What its file says.
        folder: Where it lies.
    """

    rules: EnvironmentFile
    folder: Path

    @property
    def name(self) -> str:
        """Its name."""
        return self.rules.name

    @property
    def address(self) -> str:
        """The address of its workspace."""
        return os.environ.get(f"SEATRIAL_WORKSPACE_{self.name.upper()}") or self.rules.workspace

    @property
    def place(self) -> tuple[str, str]:
        """Where its workspace is, whatever way it is written: the address, and the server of one on S3."""
        if "://" in self.address:
            return self.address.rstrip("/"), endpoint_of(self.name).rstrip("/")
        return str(Path(self.address).resolve()), ""

    def open_workspace(self) -> Workspace:
        """Open its workspace, by variables of its own where it has some: ``$SEATRIAL_NAME_AWS_...``.

        Raises:
            UsageError: if its address is none, or its variables do not go together.
            StoreError: if the store does not answer, or does not compare and swap.
        """
        on_s3 = "://" in self.address
        return Workspace.open(self.address, access_of(self.name) if on_s3 else StoreAccess(self.name))

    def open_trust_root(self) -> TrustRoot:
        """Return the makers of bundles that are trusted in it.

        They are those of ``$SEATRIAL_TRUST``, else of its folder ``trusted/``, else of its workspace.

        Raises:
            StoreError: if a file there is not an Ed25519 public key.
        """
        own = self.folder / "trusted"
        if os.environ.get(TRUST_VARIABLE) or not any(own.glob("*.pem")):
            return open_trust_root(self.open_workspace())
        return read_trust_root(own)


def environments_folder() -> Path:
    """Return the folder of environments: ``$SEATRIAL_ENVIRONMENTS``, or ``manifests/environments`` here or above."""
    if named := os.environ.get(ENVIRONMENTS_VARIABLE):
        return Path(named)
    here = Path.cwd()
    return next((p / FOLDER for p in (here, *here.parents) if (p / FOLDER).is_dir()), here / FOLDER)


def environment_names() -> list[str]:
    """Return the names of the environments that git has, sorted."""
    return sorted(path.parent.name for path in environments_folder().glob(f"*/{FILE}"))


def open_environment(name: str) -> EnvironmentFolder:
    """Read what git says of an environment.

    Raises:
        UsageError: if there is none of that name, or two environments would share a workspace.
        ContractError: with every problem, if its file is wrong.
    """
    there = environment_names()
    if name not in there:
        raise UsageError(
            f"There is no environment {name!r} in {environments_folder()}. There are: {', '.join(there) or 'none'}.",
            remedy="See docs/how-to/promotion.md.",
        )
    opened = {other: _read(environments_folder() / other / FILE) for other in there}
    mine = opened[name]
    for other in opened.values():
        if other.name != name and other.place == mine.place:
            raise UsageError(
                f"The environments {name!r} and {other.name!r} share the workspace {mine.address}: a mistake in one "
                "would be one in both.",
                remedy=f"Give each a workspace of its own in its {FILE}.",
            )
    return mine


def environment_before(environment: EnvironmentFolder) -> EnvironmentFolder:
    """Return the environment that bundles come from: the one itself, where training puts them there.

    Only a promotion needs it. Whoever makes a move true, such as a pod, may know of one environment alone.

    Raises:
        UsageError: if there is none of the name that the environment's file says.
    """
    before, there = environment.rules.after, environment_names()
    if before is not None and before not in there:
        raise UsageError(
            f"{environment.folder / FILE}: after must be one of the environments {', '.join(there)}. "
            f"Got {before!r} instead."
        )
    return open_environment(before) if before else environment


def _read(path: Path) -> EnvironmentFolder:
    try:
        rules = _rules(path.read_bytes().decode())
    except (YAMLError, UnicodeDecodeError) as error:
        raise ContractError(str(path), [Problem("", f"is not valid YAML: {error}.")]) from None
    except ValidationError as error:
        problems = [
            Problem(".".join(str(part) for part in found["loc"]), f"{found['msg']}.")
            for found in error.errors(include_url=False)
        ]
        remedy = "See docs/reference/environment.md."
        raise ContractError(str(path), problems, remedy=remedy) from None
    if rules.name != path.parent.name:
        problem = Problem(
            "name", f"must be the folder's name, {path.parent.name!r}. Got {rules.name!r} instead."
        )
        raise ContractError(str(path), [problem])
    return EnvironmentFolder(rules, path.parent)


@lru_cache(maxsize=64)
def _rules(text: str) -> EnvironmentFile:
    """Read a text once: a command opens an environment several times, and all of them each time."""
    return EnvironmentFile.model_validate(YAML(typ="safe", pure=True).load(text))
