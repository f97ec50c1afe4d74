"""The workflows of a namespace, in Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator

from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.workflows import Object
from seatrial.kubernetes_api import Kubernetes

_NOT_OVER = "workflows.argoproj.io/completed!=true"
_WATCH_SECONDS = 60


class KubernetesRuns:
    """The workflows of a namespace that are not over.

    Args:
        kubernetes: The API server.
        namespace: The namespace.
    """

    def __init__(self, kubernetes: Kubernetes, namespace: str) -> None:
        self._kubernetes = kubernetes
        self._path = f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/workflows"

    def changes(self) -> Iterator[tuple[Object, bool]]:
        """Yield each workflow, and again when it changes; True beside one that is over. Ends after a minute.

        Raises:
            ClusterError: if Kubernetes does not answer, or does not know what a workflow is.
        """
        listed = self._kubernetes.get(self._path, labelSelector=_NOT_OVER)
        if listed is None:
            raise ClusterError("The cluster does not know Argo's workflows: their definitions are missing.")
        for workflow in listed["items"]:
            yield workflow, False
        since = listed["metadata"]["resourceVersion"]
        for event in self._kubernetes.watch(
            self._path, seconds=_WATCH_SECONDS, labelSelector=_NOT_OVER, resourceVersion=since
        ):
            yield event["object"], event["type"] == "DELETED"

    def get(self, name: str) -> Object | None:
        """Return a workflow, or None where there is none.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """
        return self._kubernetes.get(f"{self._path}/{name}")

    def patch(self, name: str, change: Object) -> Object | None:
        """Merge a change into a workflow and return it; None where it is another one by now.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """
        return self._kubernetes.patch(f"{self._path}/{name}", change)
