"""Asks the lineage of Kubeflow Pipelines, which is ML Metadata, what a step left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.messages import MESSAGES

_SERVICE = "/ml_metadata.MetadataStoreService"
_COMPLETE, _OUTPUT = 3, 4
"""Numbers of ``Execution.State.COMPLETE`` and ``Event.Type.OUTPUT``."""
_SECONDS = 10.0


@dataclass(frozen=True)
class Artifact:
    """What a step left under one name.

    Attributes:
        uri: Where it is, such as ``minio://mlpipeline/v2/artifacts/flights/RUN/train/UUID/model``.
        kind: Its type, such as ``system.Model``.
        recorded: When the lineage was told of it, by the lineage's own clock: after it was stored.
    """

    uri: str
    kind: str
    recorded: datetime


class Lineage:
    """The lineage.

    Args:
        address: ``HOST:PORT`` of its gRPC.
    """

    def __init__(self, address: str) -> None:
        import grpc

        self._channel = grpc.insecure_channel(address)

    def left_by(self, execution: int) -> list[Artifact]:
        """Return what a step left.

        Args:
            execution: The step's id in the lineage.

        Raises:
            ClusterError: if the lineage does not answer, does not know all of it, or if the step did not end well.
        """
        (found,) = self._ask("GetExecutionsByID", "Executions", [execution]).executions or [None]
        if found is None or found.last_known_state != _COMPLETE:
            raise ClusterError(f"The lineage has no step {execution} that ended well.")
        events = self._ask("GetEventsByExecutionIDs", "Events", [execution]).events
        ids = {event.artifact_id for event in events if event.type == _OUTPUT}
        artifacts = self._ask("GetArtifactsByID", "Artifacts", ids).artifacts if ids else []
        if {each.id for each in artifacts} != ids:
            raise ClusterError(f"The lineage does not know all that the step {execution} left.")
        return [
            Artifact(each.uri, each.type, datetime.fromtimestamp(each.create_time_since_epoch / 1000, tz=UTC))
            for each in artifacts
        ]

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _ask(self, call: str, answer: str, ids: Iterable[int]) -> Any:
        import grpc

        try:
            return self._channel.unary_unary(
                f"{_SERVICE}/{call}",
                request_serializer=MESSAGES["Ids"].SerializeToString,
                response_deserializer=MESSAGES[answer].FromString,
            )(MESSAGES["Ids"](ids=sorted(ids)), timeout=_SECONDS)
        except grpc.RpcError as error:
            raise ClusterError(f"The lineage does not answer {call}: {error.code().name}.") from error
