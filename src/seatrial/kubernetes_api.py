"""The only door to Kubernetes: plain JSON in and out, and errors in words.

Objects stay the dictionaries that ``kubectl get -o json`` prints: what judges them can then be tested
with objects that were recorded from a cluster, and reads like the Kubernetes documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from seatrial.errors import ClusterError

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
_NOT_FOUND, _CONFLICT, _GONE = 404, 409, 410
_REFUSED = {401: "does not know you", 403: "does not let you"}


@dataclass(frozen=True)
class Context:
    """A context of the kubeconfig.

    Attributes:
        name: Its name.
        current: Whether ``kubectl`` uses it when none is named.
    """

    name: str
    current: bool


def contexts() -> list[Context]:
    """Return the contexts of the kubeconfig; empty where there is none."""
    from kubernetes.config import ConfigException, kube_config

    try:
        merged = kube_config.KubeConfigMerger(kube_config.KUBE_CONFIG_DEFAULT_LOCATION).config
    except ConfigException:
        return []
    if merged is None:
        return []
    listed, current = merged.safe_get("contexts"), merged.safe_get("current-context")
    names = [_plain(_plain(entry)["name"]) for entry in _plain(listed) or []]
    return [Context(name, name == _plain(current)) for name in names]


def _plain(node: Any) -> Any:
    """What a node of the library's own kind holds."""
    return getattr(node, "value", node)


class Kubernetes:
    """The API server of one context, or of the cluster that this runs in.

    Args:
        context: Name of the context in the kubeconfig; empty: that of the pod this runs in, as its service account.

    Raises:
        ClusterError: if the kubeconfig's entry cannot be used, or this is no pod with an account.
    """

    def __init__(self, context: str) -> None:
        import urllib3
        from kubernetes.client import ApiClient, Configuration
        from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

        self.context = context
        self._called = f"of context {context!r}" if context else "of this cluster"
        settings = Configuration()
        settings.retries = 1  # An API server that is away should be said to be away within seconds.
        try:
            if context:
                load_kube_config(context=context, client_configuration=settings)
            else:
                load_incluster_config(client_configuration=settings)
        except ConfigException as error:
            if not context:
                raise ClusterError(
                    f"This does not run in a pod of a cluster that has a service account: {error}",
                    remedy="Name a context of the kubeconfig: --context NAME",
                ) from error
            raise ClusterError(
                f"The context {context!r} of the kubeconfig cannot be used: {error}",
                remedy="Look at it: kubectl config get-contexts",
            ) from error
        if not settings.verify_ssl:
            # The kubeconfig says not to look at the certificate; saying so with every request helps nobody.
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._client = ApiClient(settings)

    @property
    def server(self) -> str:
        """Address of the API server."""
        return str(self._client.configuration.host)

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """Return an object or a list of objects; None if there is none.

        Args:
            path: Its path on the API server, such as ``/api/v1/nodes``.
            query: Parameters of the request.

        Raises:
            ClusterError: if the API server is away or refuses.
        """
        return self._ask("GET", path, query)

    def list(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the objects of a list; empty if their kind is unknown to the cluster.

        Raises:
            ClusterError: if the API server is away or refuses.
        """
        found = self.get(path, **query)
        return list(found["items"]) if found else []

    def watch(self, path: str, *, seconds: int, **query: str) -> Iterator[dict[str, Any]]:
        """Yield what happens to the objects of a list, as ``type`` and ``object``, until the time is over.

        Args:
            path: The path of the list.
            seconds: For how long; the API server may end it earlier, as when it does not know the version any more.
            query: Parameters of the request; with ``resourceVersion``, what happened after that version.

        Raises:
            ClusterError: if the API server is away, refuses, or stops in the middle.
        """
        import orjson
        from kubernetes.watch.watch import iter_resp_lines
        from urllib3.exceptions import HTTPError

        query = {**query, "watch": "true", "timeoutSeconds": str(seconds)}
        response = self._call("GET", path, query, quiet=(_GONE,), read_seconds=seconds + READ_SECONDS)
        if response is None:
            return
        try:
            for event in map(orjson.loads, iter_resp_lines(response)):
                if event["type"] == "ERROR":
                    return
                yield event
        except (HTTPError, OSError) as error:
            raise self._away(error) from error
        finally:
            response.close()

    def create(self, path: str, item: dict[str, Any]) -> bool:
        """Create an object and return whether it was not there before.

        Raises:
            ClusterError: if the API server is away or refuses.
        """
        return self._ask("POST", path, {}, item) is not None

    def patch(self, path: str, change: dict[str, Any]) -> dict[str, Any] | None:
        """Merge a change into an object and return it; None if it is not there, or not as it was read.

        Args:
            path: The object's path.
            change: What changes. With a ``resourceVersion`` it is made only while the object has that version.

        Raises:
            ClusterError: if the API server is away or refuses.
        """
        return self._ask("PATCH", path, {}, change)

    def delete(self, path: str, *, keep_owned: bool = False) -> bool:
        """Delete an object and return whether it was there.

        Args:
            path: Its path.
            keep_owned: Whether what it owns stays; else that is deleted, too.

        Raises:
            ClusterError: if the API server is away or refuses.
        """
        policy = "Orphan" if keep_owned else "Background"
        return self._ask("DELETE", path, {"propagationPolicy": policy}) is not None

    def log(
        self, namespace: str, pod: str, container: str, *, lines: int | None = None, previous: bool = False
    ) -> str:
        """Return what a container printed; empty if it has not begun or is gone.

        Args:
            namespace: Namespace of the pod.
            pod: Name of the pod.
            container: Name of the container.
            lines: Only this many lines, the last ones.
            previous: Of the container's run before this one, after a crash.

        Raises:
            ClusterError: if the API server is away or refuses.
        """
        query = {"container": container, "previous": str(previous).lower()}
        if lines is not None:
            query["tailLines"] = str(lines)
        response = self._call(
            "GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log", query, quiet=(400, 404)
        )
        return response.data.decode(errors="replace") if response is not None else ""

    def _ask(self, method: str, path: str, query: dict[str, str], item: Any = None) -> dict[str, Any] | None:
        import orjson

        quiet = {"POST": (_CONFLICT,), "PATCH": (_NOT_FOUND, _CONFLICT)}.get(method, (_NOT_FOUND,))
        response = self._call(method, path, query, item, quiet=quiet)
        return None if response is None else dict(orjson.loads(response.data))

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        item: Any = None,
        *,
        quiet: tuple[int, ...],
        read_seconds: float = READ_SECONDS,
    ) -> Any:
        """The response, or None for a status that the caller takes as a plain no."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            return self._client.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "application/json, */*", "Content-Type": kind},
                body=item,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(CONNECT_SECONDS, read_seconds),
            )
        except ApiException as error:
            if error.status in quiet:
                return None
            raise self._refused(method, path, error) from error
        except (HTTPError, OSError) as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> ClusterError:
        reason = str(getattr(error, "reason", "") or error).rsplit(": ", 1)[-1]
        return ClusterError(
            f"The API server {self._called} does not answer at {self.server}: {reason}",
            remedy="Start the cluster or choose another with --context; `kubectl config get-contexts` lists them. "
            "A local one comes with: seatrial up --kind"
            if self.context
            else "Does a NetworkPolicy deny it? See global.networkPolicies.kubernetesApiPorts.",
        )

    def _refused(self, method: str, path: str, error: Any) -> ClusterError:
        import orjson

        try:
            said = str(orjson.loads(error.body or b"{}").get("message", error.reason))
        except orjson.JSONDecodeError:
            said = str(error.reason)
        what, remedy = _REFUSED.get(error.status, "refuses"), ""
        if error.status in _REFUSED:
            remedy = (
                "Ask whoever runs the cluster for the right, or choose another context with --context."
                if self.context
                else "The pod's service account lacks a right."
            )
        return ClusterError(
            f"The API server {self._called} {what} ({error.status}, {method} {path}): {said}", remedy=remedy
        )
