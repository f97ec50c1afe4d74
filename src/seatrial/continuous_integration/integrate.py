"""Check a change of models as a colleague would: lint, contract, pipelines, images, and a run on a sample."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from seatrial.cluster import kind
from seatrial.cluster.context import Cluster
from seatrial.cluster_runs import PIPELINES, compile_for_cluster, pipeline_name
from seatrial.continuous_integration.changes import MODELS
from seatrial.continuous_integration.inputs import INPUTS_LABEL, image_inputs, recipe_digest
from seatrial.continuous_integration.sample import Sample, run_here, run_on_cluster
from seatrial.contract.load import LoadedContract
from seatrial.data_tests import as_of_or_now
from seatrial.errors import SeatrialError, ToolError
from seatrial.images import OWN_IMAGES, own_image
from seatrial.local_runs import StepEvent
from seatrial.model_check import check_model
from seatrial.workspace import Workspace

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Stage:
    """One thing that was looked at.

    Attributes:
        name: What.
        status: How it ended.
        message: One sentence: what was found, or why it was skipped.
        seconds: How long it took.
        exit_code: Of the error that ended it; 0 without one.
    """

    name: str
    status: Status
    message: str
    seconds: float = 0.0
    exit_code: int = 0


@dataclass
class ModelChecks:
    """What was found of one model.

    Attributes:
        model: Its name.
        stages: What was looked at.
        recipe: Digest of all that decides what comes out of it; empty if the contract is wrong.
        sample: What came out of the sample run, this one or an earlier one with this recipe; None if there is none.
        reused: Whether it is an earlier one: nothing that makes the model has changed.
    """

    model: str
    stages: list[Stage] = field(default_factory=list)
    recipe: str = ""
    sample: Sample | None = None
    reused: bool = False


@dataclass
class Integration:
    """What continuous integration found.

    Attributes:
        since: The commit that was compared with.
        stages: What was looked at once for all models.
        models: What was found of each model that the change touches.
    """

    since: str
    stages: list[Stage] = field(default_factory=list)
    models: list[ModelChecks] = field(default_factory=list)

    @property
    def failed(self) -> list[Stage]:
        """Every stage that failed."""
        every = [*self.stages, *(stage for model in self.models for stage in model.stages)]
        return [stage for stage in every if stage.status == "failed"]


@dataclass(frozen=True)
class Place:
    """Where continuous integration works.

    Attributes:
        project: The project's folder.
        workspace: Keeps what came out of sample runs, so that the same recipe is not run again.
        output: Folder for the compiled pipelines and what is reported.
        environment: The environment that pipelines are compiled for, and that a cluster's run is of.
        cluster: Where the sample runs; on this machine if None.
        images: Whether to build the images whose inputs have changed.
    """

    project: Path
    workspace: Workspace
    output: Path
    environment: str = "test"
    cluster: Cluster | None = None
    images: bool = False


Tell = Callable[[Stage], None]


def integrate(
    models: list[str], since: str, place: Place, *, tell: Tell, follow_run: Callable[[StepEvent], None]
) -> Integration:
    """Check these models as a change has left them.

    A stage that fails does not keep the others from being looked at, unless they rest on it.

    Args:
        models: Names of the models.
        since: The commit that the change is compared with, for the report.
        place: Where to work.
        tell: Is told each stage as it ends.
        follow_run: Is told what the steps of a sample run do.

    Returns:
        What was found; whether something failed is in it.
    """
    done = Integration(since)
    if not models:
        return done
    shared = _Stages(done.stages, tell)
    shared.look("lint", lambda: _lint(place.project, models))
    compiled = shared.look("compile", lambda: _compile(place))
    built = shared.look("images", lambda: _build(place.project)) if place.images else True
    if not place.images:
        shared.skip("images", "Not asked for: --images builds those whose inputs have changed.")
    for model in models:
        checks = ModelChecks(model)
        done.models.append(checks)
        _check(checks, place, _Stages(checks.stages, tell), follow_run, runnable=compiled and built)
    return done


class _Stages:
    """Looks at one thing after the other, and keeps how each ended."""

    def __init__(self, stages: list[Stage], tell: Tell) -> None:
        self._stages = stages
        self._tell = tell

    def look(self, name: str, what: Callable[[], str]) -> bool:
        """Do something, and keep what it says or how it failed; return whether it passed."""
        started = time.perf_counter()
        status: Status = "passed"
        code = 0
        try:
            message = what()
        except SeatrialError as error:
            status, message, code = "failed", str(error), error.exit_code
        self._keep(Stage(name, status, message, time.perf_counter() - started, code))
        return status == "passed"

    def skip(self, name: str, why: str) -> None:
        self._keep(Stage(name, "skipped", why))

    def _keep(self, stage: Stage) -> None:
        self._stages.append(stage)
        self._tell(stage)


def _check(
    checks: ModelChecks,
    place: Place,
    stages: _Stages,
    follow_run: Callable[[StepEvent], None],
    *,
    runnable: bool,
) -> None:
    model = checks.model
    found: list[tuple[LoadedContract, str]] = []

    def contract() -> str:
        loaded = check_model(str(place.project / MODELS / model))
        found.append((loaded, _instant(loaded)))
        return f"{len(loaded.contract.tables)} tables, {len(loaded.contract.candidates)} candidates."

    if not stages.look(f"{model}: contract", contract):
        return
    loaded, instant = found[0]
    checks.recipe = recipe_digest(place.project, model, as_of=instant)
    earlier = place.workspace.get(_key(checks, place))
    if earlier is not None:
        checks.sample, checks.reused = Sample(**orjson.loads(earlier)), True
        message = f"Nothing that makes the model has changed since {checks.sample.name}, which passed."
        stages.skip(f"{model}: sample run", message)
        return
    if not runnable:
        stages.skip(f"{model}: sample run", "What it rests on has failed.")
        return

    def sample() -> str:
        if place.cluster is not None:
            made = run_on_cluster(place.cluster, place.environment, model, instant, follow_run)
        else:
            made = run_here(loaded, place.workspace, place.output, instant, follow_run)
        checks.sample = made
        said = made.require_passes()
        place.workspace.create(_key(checks, place), orjson.dumps(asdict(made)))
        return said

    stages.look(f"{model}: sample run", sample)


def _instant(loaded: LoadedContract) -> str:
    """The instant of the sample run; empty for now."""
    said = loaded.contract.continuous_integration.as_of
    return as_of_or_now(said).isoformat() if said else ""


def _key(checks: ModelChecks, place: Place) -> str:
    where = f"cluster-{place.environment}" if place.cluster else "here"
    return f"continuous-integration/{checks.model}/{where}/{checks.recipe}.json"


def _lint(project: Path, models: list[str]) -> str:
    paths = [f"{MODELS}/{model}" for model in models] + ["components", "pipelines"]
    for arguments in (["check", "--output-format", "concise"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", *paths]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603
        if "No module named ruff" in done.stderr:
            raise ToolError("ruff is not installed here.", remedy="Install it: pip install ruff")
        if done.returncode:
            found = (done.stdout + done.stderr).strip()
            raise SeatrialError(
                f"ruff {arguments[0]} has found:\n{found}",
                remedy=f"Much of it is mended by: ruff check --fix {' '.join(paths)}; ruff format {' '.join(paths)}",
            )
    return f"{', '.join(paths)} are clean."


def _compile(place: Place) -> str:
    folder = place.output / "pipelines"
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name in PIPELINES:
        path = folder / f"{pipeline_name(name, place.environment)}.yaml"
        compile_for_cluster(name, path, place.environment)
        names.append(path.name)
    return f"{', '.join(names)} in {folder}."


def _build(project: Path) -> str:
    """Build those of our images that are not of just these inputs."""
    engine, built, kept = kind.engine(), [], []
    for part in OWN_IMAGES:
        if _built_from(engine, own_image(part)) == image_inputs(project, part):
            kept.append(part)
        else:
            kind.build(part)
            built.append(part)
    return f"built: {', '.join(built) or 'none'}; as they were: {', '.join(kept) or 'none'}."


def _built_from(engine: str, image: str) -> str:
    """The inputs' digest that an image of this machine's engine says it was built from; empty if it says none."""
    template = f'{{{{index .Config.Labels "{INPUTS_LABEL}"}}}}'
    command = [shutil.which(engine) or engine, "image", "inspect", "--format", template, image]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
