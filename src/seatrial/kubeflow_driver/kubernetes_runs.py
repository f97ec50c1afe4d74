"""The workflows of a namespace, in Kubernetes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import orjson

from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.workflows import Object

_GROUP, _VERSION, _PLURAL = "argoproj.io", "v1alpha1", "workflows"
_NOT_OVER = "workflows.argoproj.io/completed!=true"
_WATCH_SECONDS, _REQUEST_SECONDS = 60, 10.0
_NOT_FOUND, _CONFLICT, _GONE = 404, 409, 410


class KubernetesRuns:
    """The workflows of a namespace that are not over, as the pod's own service account may see them.

    Args:
        namespace: The namespace.
    """

    def __init__(self, namespace: str) -> None:
        from kubernetes.client import CustomObjectsApi
        from kubernetes.config import load_incluster_config

        load_incluster_config()
        self._namespace, self._api = namespace, CustomObjectsApi()

    def changes(self) -> Iterator[tuple[Object, bool]]:
        """Yield each workflow, and again when it changes; True beside one that is over. Ends after a minute.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """
        from kubernetes.watch import Watch

        with _in_words("list workflows"):
            listed = self._api.list_namespaced_custom_object(
                _GROUP,
                _VERSION,
                self._namespace,
                _PLURAL,
                label_selector=_NOT_OVER,
                _request_timeout=_REQUEST_SECONDS,
            )
        for workflow in listed["items"]:
            yield workflow, False
        with _in_words("watch workflows"):
            yield from (
                (event["object"], event["type"] == "DELETED")
                for event in Watch().stream(
                    self._api.list_namespaced_custom_object,
                    _GROUP,
                    _VERSION,
                    self._namespace,
                    _PLURAL,
                    label_selector=_NOT_OVER,
                    resource_version=listed["metadata"]["resourceVersion"],
                    timeout_seconds=_WATCH_SECONDS,
                    _request_timeout=(_REQUEST_SECONDS, _WATCH_SECONDS + _REQUEST_SECONDS),
                )
                if event["type"] in {"ADDED", "MODIFIED", "DELETED"}
            )

    def get(self, name: str) -> Object | None:
        """Return a workflow, or None where there is none.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """
        from kubernetes.client import ApiException

        with _in_words(f"show the workflow {name}"):
            try:
                return dict(
                    self._api.get_namespaced_custom_object(
                        _GROUP, _VERSION, self._namespace, _PLURAL, name, _request_timeout=_REQUEST_SECONDS
                    )
                )
            except ApiException as error:
                if error.status == _NOT_FOUND:
                    return None
                raise

    def patch(self, name: str, change: Object) -> bool:
        """Merge a change into a workflow, as this call of the client always does; False where it is another one by now.

        Raises:
            ClusterError: if Kubernetes does not answer.
        """
        from kubernetes.client import ApiException

        with _in_words(f"change the workflow {name}"):
            try:
                self._api.patch_namespaced_custom_object(
                    _GROUP,
                    _VERSION,
                    self._namespace,
                    _PLURAL,
                    name,
                    change,
                    _request_timeout=_REQUEST_SECONDS,
                )
            except ApiException as error:
                if error.status in {_NOT_FOUND, _CONFLICT}:
                    return False
                raise
        return True


@contextlib.contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Say in words what Kubernetes did not do.

    A version of the list that Kubernetes does not know any more is no fault: what called lists anew.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status != _GONE:
            raise ClusterError(f"Kubernetes does not {what}: {_reason(error)}.") from error
    except (HTTPError, OSError) as error:
        raise ClusterError(f"Kubernetes does not {what}: {type(error).__name__}.") from error


def _reason(error: Exception) -> str:
    """What Kubernetes says of its own answer, or the answer's number."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(orjson.loads(getattr(error, "body", "") or "")["message"])
    return f"{getattr(error, 'status', '')} {getattr(error, 'reason', '')}".strip()
