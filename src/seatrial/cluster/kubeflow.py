"""The only door to Kubeflow Pipelines' API: pipelines, runs, recurring runs.

A pipeline's version is named by the digest of what was compiled, so the same pipeline is uploaded once and a run says
exactly what it ran. Runs of an environment are an experiment of its name.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from seatrial.cluster.context import Cluster
from seatrial.cluster.forward import SERVICES, Forward
from seatrial.cluster.observe import unhealthy
from seatrial.cluster.workflow import Workflow, read_workflow
from seatrial.errors import ClusterError, UsageError

DIGITS = 12
"""How many digits of the digest a version is named by."""
_SECONDS = 30.0
_PAGE = 100


@dataclass(frozen=True)
class Version:
    """A version of an uploaded pipeline.

    Attributes:
        pipeline: Name of the pipeline.
        pipeline_id: Its id.
        name: Name of the version.
        version_id: Its id.
        is_new: Whether it was uploaded just now.
    """

    pipeline: str
    pipeline_id: str
    name: str
    version_id: str
    is_new: bool


@dataclass(frozen=True)
class Run:
    """A run, as Kubeflow Pipelines lists it.

    Attributes:
        id: Its id.
        name: Its name.
        state: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or another of KFP's words.
        created: When it was started.
        finished: When it ended; None while it runs.
        environment: Name of its experiment.
        error: What KFP says of its end.
        schedule_id: Id of the recurring run that started it; empty if none did.
    """

    id: str
    name: str
    state: str
    created: datetime
    finished: datetime | None
    environment: str
    error: str = ""
    schedule_id: str = ""


@dataclass(frozen=True)
class Schedule:
    """A recurring run.

    Attributes:
        id: Its id.
        name: Its name.
        cron: When it starts: seconds, minutes, hours, days, months, days of the week; UTC.
        enabled: Whether it starts runs.
        environment: Name of its experiment.
        parameters: The parameters of its runs.
        problem: Why it can't start runs, as KFP says; empty if it can.
    """

    id: str
    name: str
    cron: str
    enabled: bool
    environment: str
    parameters: dict[str, Any]
    problem: str = ""


def content_digest(package: Path) -> str:
    """Return the SHA-256 of what a compiled pipeline says, whatever the order of its keys and its comments.

    Args:
        package: The compiled pipeline, as YAML.
    """
    documents = json.dumps(_documents(package), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(documents.encode()).hexdigest()


def _documents(package: Path) -> list[dict[str, Any]]:
    from ruamel.yaml import YAML

    return [document for document in YAML(typ="safe").load_all(package) if document]


def pipeline_name(package: Path) -> str:
    """Return the name of a compiled pipeline."""
    return str(_documents(package)[0]["pipelineInfo"]["name"])


def description(package: Path) -> str:
    """Return what a compiled pipeline does and what its parameters mean, in Markdown, for the Kubeflow page.

    The page's form for a new run shows names and types of parameters alone; this is shown beside the graph.

    Args:
        package: The compiled pipeline.
    """
    pipeline = _documents(package)[0]
    declared = pipeline["root"].get("inputDefinitions", {}).get("parameters", {})
    lines = [
        f"- **{key}**: {facts.get('description', facts['parameterType'])}"
        + (f" Usually `{facts['defaultValue']}`." if facts.get("defaultValue") else "")
        for key, facts in declared.items()
    ]
    return "\n".join([str(pipeline["pipelineInfo"].get("description", "")), "", *lines]).strip()


def parameters(package: Path, given: list[str]) -> dict[str, Any]:
    """Return the parameters of a run, of the types that the pipeline declares.

    Args:
        package: The compiled pipeline.
        given: What the person said, each as ``key=value``.

    Raises:
        UsageError: if one is unknown, missing or not of its type; all of them at once.
    """
    declared = _documents(package)[0]["root"].get("inputDefinitions", {}).get("parameters", {})
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or key not in declared:
            wrong.append(f"{pair!r} is no key=value of this pipeline")
            continue
        try:
            found[key] = _typed(text, declared[key]["parameterType"])
        except ValueError:
            wrong.append(f"{key} must be of type {declared[key]['parameterType']}, got {text!r}")
    wrong += [
        f"{key} is missing"
        for key, facts in declared.items()
        if key not in found and not facts.get("isOptional") and "defaultValue" not in facts
    ]
    if wrong:
        names = "; ".join(
            f"{key}: {facts.get('description', '')}".strip(": ") for key, facts in declared.items()
        )
        raise UsageError(
            f"{'; '.join(wrong)}.", remedy=f"Give parameters as -p key=value. There are: {names}"
        )
    return found


def _typed(text: str, kind: str) -> Any:
    if kind == "BOOLEAN":
        if text.lower() not in {"true", "false"}:
            raise ValueError(text)
        return text.lower() == "true"
    if kind == "NUMBER_INTEGER":
        return int(text)
    if kind == "NUMBER_DOUBLE":
        return float(text)
    return json.loads(text) if kind in {"LIST", "STRUCT"} else text


def cron_of(text: str) -> str:
    """Return a cron expression as Kubeflow Pipelines wants it: six fields, seconds first.

    Raises:
        UsageError: if it has neither five nor six fields.
    """
    fields = text.split()
    if len(fields) == 5:  # noqa: PLR2004 -- as in a crontab
        fields = ["0", *fields]
    if len(fields) != 6:  # noqa: PLR2004 -- as in a crontab, with seconds
        raise UsageError(
            "The cron expression must have 5 fields (minute hour day month weekday), or 6 with seconds first. "
            f"Got {text!r} instead.",
            remedy='Every day at six, UTC: --cron "0 6 * * *"',
        )
    return " ".join(fields)


class Kubeflow:
    """Kubeflow Pipelines of one cluster, by a forwarded port, as a context manager.

    Args:
        cluster: The cluster.

    Raises:
        ClusterError: on entering, if it does not answer; with what is not healthy.
        ToolError: on entering, if kubectl is missing.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._forward = Forward(cluster, *SERVICES["pipelines-api"])
        self._client: Any = None

    def __enter__(self) -> Self:
        """Connect."""
        self._forward.__enter__()
        try:
            self._http("/apis/v2beta1/healthz")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The client warns that it speaks to version 2 alone.
                from kfp.client import Client

                self._client = Client(host=self._forward.address)
        except BaseException:
            self._forward.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._forward.close()

    def _http(self, path: str) -> bytes:
        try:
            with urllib.request.urlopen(self._forward.address + path, timeout=_SECONDS) as answer:  # noqa: S310 -- ours
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise self._failed(
                f"{path}: {error.code} {error.read().decode(errors='replace')[:300]}"
            ) from error
        except OSError as error:
            raise self._failed(f"{path}: {error}") from error

    def _failed(self, said: str) -> ClusterError:
        parts = unhealthy(self._cluster)
        cause = f"\nNot healthy there:\n{parts}" if parts else ""
        return ClusterError(
            f"Kubeflow Pipelines of {self._cluster} can't do that: {said}{cause}",
            remedy="Wait until everything is healthy, and run the same command again: seatrial status",
        )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        """The client; it prints addresses that lead nowhere from here, and its errors become ours."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        self._forward.ensure()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield self._client
        except ApiException as error:
            try:
                said = json.loads(error.body or "{}").get("message", "")
            except json.JSONDecodeError:
                said = str(error.body)
            raise self._failed(f"{error.status} {said or error.reason}"[:500]) from error
        except (HTTPError, OSError) as error:
            raise self._failed(str(error)) from error

    def version(self, package: Path) -> Version:
        """Return the version of a compiled pipeline; it is uploaded if it is not there.

        Args:
            package: The compiled pipeline.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        pipeline, name = pipeline_name(package), content_digest(package)[:DIGITS]
        said = description(package)
        with self._asking() as client:
            pipeline_id = client.get_pipeline_id(pipeline)
            if pipeline_id is None:
                does = said.partition("\n")[0]
                body = client.api_models.V2beta1Pipeline(display_name=pipeline, description=does)
                pipeline_id = client.pipelines.pipeline_service_create_pipeline(body).pipeline_id
            there = client.list_pipeline_versions(pipeline_id, filter=_named(name)).pipeline_versions or []
            if there:
                return Version(pipeline, pipeline_id, name, there[0].pipeline_version_id, False)
            made = client.upload_pipeline_version(
                str(package), name, pipeline_id=pipeline_id, description=said
            )
            return Version(pipeline, pipeline_id, name, made.pipeline_version_id, True)

    def start(self, version: Version, environment: str, name: str, values: dict[str, Any]) -> str:
        """Start a run and return its id.

        Args:
            version: What to run.
            environment: Name of the environment.
            name: Name of the run.
            values: Its parameters.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        with self._asking() as client:
            experiment = client.create_experiment(environment).experiment_id
            run = client.run_pipeline(
                experiment,
                name,
                params=values,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
            )
            return str(run.run_id)

    def runs(self, environment: str | None = None, count: int = 20) -> list[Run]:
        """Return the newest runs.

        Args:
            environment: Of this environment only.
            count: At most this many.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        with self._asking() as client:
            names = self._experiments(client)
            wanted = [key for key, name in names.items() if name == environment]
            if environment is not None and not wanted:
                return []
            experiment = wanted[0] if wanted else None
            listed = client.list_runs(
                page_size=min(count, _PAGE), sort_by="created_at desc", experiment_id=experiment
            )
            return [_run(item, names) for item in listed.runs or []]

    def _experiments(self, client: Any) -> dict[str, str]:
        listed = client.list_experiments(page_size=_PAGE).experiments or []
        return {item.experiment_id: item.display_name for item in listed}

    def find_run(self, run: str) -> Run:
        """Return the run that an id, its beginning, or a name means; the newest one if several do.

        Raises:
            UsageError: if none does.
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        there = self.runs(count=_PAGE)
        for found in there:
            if found.id.startswith(run) or found.name == run:
                return found
        newest = ", ".join(found.id[:8] for found in there[:3])
        raise UsageError(
            f"There is no run {run!r} among the newest {_PAGE}.",
            remedy=f"List them: seatrial runs. The newest are: {newest or 'none'}.",
        )

    def workflow(self, run_id: str) -> Workflow | None:
        """Return what Kubeflow Pipelines keeps of a run's steps, also when Argo has forgotten it; None if nothing yet.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        self._forward.ensure()
        found = json.loads(self._http(f"/apis/v1beta1/runs/{run_id}"))
        manifest = (found.get("pipeline_runtime") or {}).get("workflow_manifest")
        return read_workflow(json.loads(manifest)) if manifest else None

    def archived_log(self, run_id: str, node: str) -> str:
        """Return the log of a pod that is gone, from the archive; empty if there is none.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        self._forward.ensure()
        text = self._http(f"/apis/v1alpha1/runs/{run_id}/nodes/{node}/log").decode(errors="replace")
        return "" if text.startswith('{"error_message"') else text

    def stop(self, run_id: str) -> None:
        """Stop a run.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        with self._asking() as client:
            client.terminate_run(run_id)

    def schedules(self) -> list[Schedule]:
        """Return the recurring runs.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        with self._asking() as client:
            names = self._experiments(client)
            listed = (
                client.list_recurring_runs(page_size=_PAGE, sort_by="created_at desc").recurring_runs or []
            )
            return [_schedule(item, names) for item in listed]

    def schedule(
        self, version: Version, environment: str, name: str, cron: str, values: dict[str, Any]
    ) -> str:
        """Make a recurring run, one run at a time, and return its id.

        Args:
            version: What to run.
            environment: Name of the environment.
            name: Its name; one of that name is replaced.
            cron: When to start: six fields, UTC.
            values: The parameters of its runs.

        Raises:
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        earlier = [found.id for found in self.schedules() if found.name == name]
        with self._asking() as client:
            experiment = client.create_experiment(environment).experiment_id
            made = client.create_recurring_run(
                experiment,
                name,
                cron_expression=cron,
                max_concurrency=1,
                no_catchup=True,
                params=values,
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
            )
        for schedule_id in earlier:
            self._delete_schedule(schedule_id)
        return str(made.recurring_run_id)

    def unschedule(self, name: str) -> str:
        """Delete the recurring run of a name or id, and return its id. Runs that it started stay.

        Raises:
            UsageError: if there is none.
            ClusterError: if Kubeflow Pipelines is away or refuses.
        """
        there = self.schedules()
        for found in there:
            if name in {found.name, found.id}:
                self._delete_schedule(found.id)
                return found.id
        raise UsageError(
            f"There is no recurring run {name!r}. There are: {', '.join(s.name for s in there) or 'none'}."
        )

    def _delete_schedule(self, schedule_id: str) -> None:
        """Delete a recurring run, and leave its runs.

        Its object on the cluster owns their workflows. Kubeflow's API would delete it with all of them, those that
        still work included; so it is deleted without them before.
        """
        path = self._cluster.path("scheduledworkflows", "kubeflow.org/v1beta1")
        for item in self._cluster.api.list(path):
            if item["metadata"]["uid"] == schedule_id:
                self._cluster.api.delete(f"{path}/{item['metadata']['name']}", keep_owned=True)
        with self._asking() as client:
            client.delete_recurring_run(schedule_id)


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _run(item: Any, experiments: dict[str, str]) -> Run:
    finished = item.finished_at if item.finished_at and item.finished_at.year > 1970 else None  # noqa: PLR2004 -- 0
    error = getattr(item.error, "message", "") if item.error else ""
    environment = experiments.get(item.experiment_id, "")
    return Run(
        item.run_id,
        item.display_name,
        item.state or "PENDING",
        item.created_at,
        finished,
        environment,
        error or "",
        item.recurring_run_id or "",
    )


def _schedule(item: Any, experiments: dict[str, str]) -> Schedule:
    trigger = item.trigger.cron_schedule if item.trigger else None
    return Schedule(
        item.recurring_run_id,
        item.display_name,
        trigger.cron if trigger else "",
        item.status == "ENABLED",
        experiments.get(item.experiment_id, ""),
        dict((item.runtime_config.parameters if item.runtime_config else None) or {}),
        (getattr(item.error, "message", "") or "") if item.error else "",
    )
