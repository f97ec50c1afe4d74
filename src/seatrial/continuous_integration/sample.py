"""A run of the training pipeline on a sample: the model's own contract, as of an early instant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seatrial.cluster.context import Cluster
from seatrial.cluster.local_cluster import provide_images
from seatrial.cluster.submit import follow, submit
from seatrial.contract.load import LoadedContract
from seatrial.errors import GateError
from seatrial.images import PIPELINE_IMAGE
from seatrial.local_runs import StepEvent, run_locally
from seatrial.promotion import read_pointer
from seatrial.report import report_key
from seatrial.steps.files import read_json
from seatrial.workspace import Workspace

ENVIRONMENT = "local"
Follow = Callable[[StepEvent], None]


@dataclass(frozen=True)
class Sample:
    """What came out of a sample run.

    Attributes:
        name: Name or id of the run.
        bundle: Digest of the bundle that serves after it; empty where only the cluster knows.
        verdicts: The gates' verdicts: check, outcome and what was measured.
        report: Path or address of the run's report.
    """

    name: str
    bundle: str
    verdicts: list[dict[str, str]]
    report: str

    def require_passes(self) -> str:
        """Say in a sentence that all gates passed.

        Raises:
            GateError: if one did not.
        """
        if failed := [said["check"] for said in self.verdicts if said["outcome"] == "fail"]:
            raise GateError(f"Gates failed: {', '.join(failed)}.", remedy=f"Look at {self.report}")
        bundle = f", bundle {self.bundle[:12]}" if self.bundle else ""
        return f"{len(self.verdicts)} gates passed in {self.name}{bundle}."


def run_here(
    loaded: LoadedContract, workspace: Workspace, output: Path, instant: str, tell: Follow
) -> Sample:
    """Run the training pipeline on this machine.

    Args:
        loaded: The model's contract.
        workspace: Where the run's tables and bundle go.
        output: Folder for the report.
        instant: Instant of the run; empty for now.
        tell: Is told what the steps do.

    Raises:
        SeatrialError: what ended a step, with its class.
    """
    model = loaded.contract.name
    arguments = {"model": str(loaded.folder.resolve()), "environment": ENVIRONMENT, "as_of": instant}
    run = run_locally("training", arguments, workspace, tell=tell)
    found = read_json(str(run.folder / "gates" / "found"))
    page = output / f"{model}-report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_bytes(workspace.get(report_key(model, run.name)) or b"")
    verdicts = [
        {"check": said["check"], "outcome": said["outcome"], "measured": _measured(said)}
        for said in found["verdicts"]
    ]
    digest = read_pointer(workspace, ENVIRONMENT, model).digest if run.output else None
    return Sample(run.name, digest or "", verdicts, str(page))


def run_on_cluster(cluster: Cluster, environment: str, model: str, instant: str, tell: Follow) -> Sample:
    """Run the training pipeline on a cluster, with the steps' image of this machine where it is a local one.

    Args:
        cluster: Where.
        environment: The environment there.
        model: Name of the model.
        instant: Instant of the run; empty for now.
        tell: Is told what the steps do.

    Raises:
        SeatrialError: what ended a step, with its class.
        ClusterError: if the cluster is away or refuses.
        ToolError: if kubectl, kind or the container engine is missing or failed.
    """
    provide_images(
        cluster.context, [PIPELINE_IMAGE], lambda line: tell(StepEvent("images", "said", line, 0.0))
    )
    given = [f"model={model}", *([f"as_of={instant}"] if instant else [])]
    run = submit(cluster, "training", environment, given)
    ended = follow(cluster, run.run_id, tell)
    verdicts = [
        {"check": said.check, "outcome": said.outcome, "measured": said.measured} for said in ended.verdicts
    ]
    return Sample(run.run_id, "", verdicts, ended.look_at.get("report", ""))


def _measured(said: dict[str, object]) -> str:
    value, bound = said["value"], said["bound"]
    if not isinstance(value, int | float):
        return ""
    unit = f" {said['unit']}" if said["unit"] else ""
    return f"{value:.4g}{unit}" + (f" (bound {bound:g})" if isinstance(bound, int | float) else "")
