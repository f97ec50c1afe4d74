"""The registry: runs, figures and versions in MLflow, where people look.

MLflow is a notebook of runs here, not an anchor of trust: nothing is ever loaded from it, and what
an environment serves is said by its pointer and by signed bundles alone (threats: Z4). By default
it is a SQLite file and a folder in the workspace; ``MLFLOW_TRACKING_URI`` names any other server.
Registering the same bundle twice adds nothing, so a run that was killed here is simply done again.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.bundle import Bundle
from seatrial.bundle.manifest import MANIFEST
from seatrial.errors import RegistryError
from seatrial.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
"""Environment in which MLflow is imported: it asks a server of its makers about itself otherwise."""
DIGEST_TAG = "seatrial.digest"
DATABASE = "mlflow.db"
"""MLflow's file in a local workspace."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of a model in the registry.

    Attributes:
        model: The model's name.
        version: The registry's own number of the version.
        run_id: MLflow's run.
        digest: Digest of the bundle.
        tags: The version's tags.
        aliases: The environments that serve it.
    """

    model: str
    version: int
    run_id: str
    digest: str
    tags: dict[str, str]
    aliases: list[str]


@contextmanager
def _registry_errors(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RegistryError(
            f"MLflow at {uri} cannot be used: {str(error).splitlines()[0]}.",
            remedy=f"Check that it is there, or name another by {TRACKING_VARIABLE}. Nothing else is lost: the "
            "bundle is in the workspace, and registering it again adds nothing twice.",
        ) from error


def tracking_uri(workspace: Workspace) -> str:
    """Return MLflow's address: ``$MLFLOW_TRACKING_URI``, or a SQLite file in a local workspace.

    Raises:
        RegistryError: if the workspace is not a folder and no address is named.
    """
    if named := os.environ.get(TRACKING_VARIABLE):
        return named
    if not workspace.is_local:
        raise RegistryError(
            "A workspace that is not a folder needs an MLflow server.", remedy=f"Set {TRACKING_VARIABLE}."
        )
    return f"sqlite:///{workspace.folder / DATABASE}"


def _client(workspace: Workspace) -> MlflowClient:
    for variable, value in NO_TELEMETRY.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    uri = tracking_uri(workspace)
    if TRACKING_VARIABLE not in os.environ and not (workspace.folder / DATABASE).exists():
        _make_database(workspace.folder / DATABASE)
    return MlflowClient(uri)


def _make_database(path: Path) -> None:
    """Make MLflow's tables in a file that takes its name once it is whole.

    MLflow makes them by dozens of migrations, each of which waits for the disk several times: 4 s, of which 3 are
    waiting. Nobody else has the file yet, so it needs to be on the disk at the end alone. Of two that make it at
    once the first to end wins.
    """
    from mlflow import MlflowClient
    from sqlalchemy import Engine, event

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    event.listen(Engine, "connect", hurry)
    try:
        MlflowClient(f"sqlite:///{partial}").search_registered_models(max_results=1)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(partial)
    finally:
        event.remove(Engine, "connect", hurry)
        partial.unlink(missing_ok=True)


def register(
    workspace: Workspace,
    bundle: Bundle,
    *,
    parameters: dict[str, Any],
    metrics: dict[str, float],
    tags: dict[str, str],
    figures: dict[str, bytes],
) -> RegisteredVersion:
    """Write a bundle's run and version into the registry.

    Args:
        workspace: Where the bundle lies.
        bundle: The bundle, loaded and checked.
        parameters: The run's parameters.
        metrics: The run's metrics; those that are not finite are left out.
        tags: Tags of run and version.
        figures: Files to keep with the run (report, pictures), by name.

    Returns:
        The version; the one that is there already if this bundle was registered before.

    Raises:
        RegistryError: if MLflow cannot be used.
    """
    uri = tracking_uri(workspace)
    with _registry_errors(uri):
        client = _client(workspace)
        name = bundle.manifest.model
        _ensure_model(client, name)
        if (known := _find(client, name, bundle.digest)) is not None:
            return known
        run = client.create_run(_experiment(client, workspace, name), run_name=bundle.manifest.run, tags=tags)
        run_id = run.info.run_id
        _log_figures(client, run_id, parameters, metrics)
        _log_files(client, run_id, bundle, figures)
        client.set_terminated(run_id)
        version = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/bundle",
            run_id=run_id,
            tags={**tags, DIGEST_TAG: bundle.digest},
        )
        return _version(version)


def _experiment(client: MlflowClient, workspace: Workspace, name: str) -> str:
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    location = str(workspace.folder / "mlartifacts") if workspace.is_local else None
    if TRACKING_VARIABLE in os.environ:
        location = None
    return str(client.create_experiment(name, artifact_location=location))


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_figures(
    client: MlflowClient, run_id: str, parameters: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Write a run's parameters and metrics in one call, which is one transaction."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, value, now, 0) for key, value in metrics.items() if math.isfinite(value)],
        params=[Param(key, str(value)[:500]) for key, value in parameters.items()],
    )


def _log_files(client: MlflowClient, run_id: str, bundle: Bundle, figures: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "bundle").mkdir()
        for path, content in {**bundle.files, MANIFEST: bundle.manifest.to_bytes()}.items():
            (base / "bundle" / path).write_bytes(content)
        for path, content in figures.items():
            (base / path).write_bytes(content)
        client.log_artifacts(run_id, folder)


def _find(client: MlflowClient, name: str, digest: str) -> RegisteredVersion | None:
    found = client.search_model_versions(f"name = '{name}' and tag.`{DIGEST_TAG}` = '{digest}'")
    return _version(found[0]) if found else None


def _version(version: Any) -> RegisteredVersion:
    tags = dict(version.tags)
    return RegisteredVersion(
        model=version.name,
        version=int(version.version),
        run_id=version.run_id,
        digest=tags.get(DIGEST_TAG, ""),
        tags=tags,
        aliases=list(version.aliases),
    )


def list_versions(workspace: Workspace, model: str) -> list[RegisteredVersion]:
    """Return a model's versions, newest first.

    Raises:
        RegistryError: if MLflow cannot be used.
    """
    uri = tracking_uri(workspace)
    with _registry_errors(uri):
        client = _client(workspace)
        # A search leaves the aliases out; the model itself has them.
        aliases: dict[str, list[str]] = {}
        for registered in client.search_registered_models(f"name = '{model}'"):
            for alias, version in registered.aliases.items():
                aliases.setdefault(str(version), []).append(alias)
        found = client.search_model_versions(f"name = '{model}'", order_by=["version_number DESC"])
        versions = [_version(version) for version in found]
        return [
            RegisteredVersion(**{**vars(version), "aliases": sorted(aliases.get(str(version.version), []))})
            for version in versions
        ]


def set_alias(workspace: Workspace, model: str, environment: str, digest: str) -> None:
    """Show in the registry which version an environment serves.

    Raises:
        RegistryError: if MLflow cannot be used or does not know the bundle.
    """
    uri = tracking_uri(workspace)
    with _registry_errors(uri):
        client = _client(workspace)
        known = _find(client, model, digest)
        if known is None:
            raise RegistryError(f"The bundle {digest[:12]} is not registered in MLflow at {uri}.")
        client.set_registered_model_alias(model, environment, str(known.version))
