"""The part of a cluster's API that has to do with SeldonDeployments, with an operator whose pods come at once, or not.

A merge patch changes what is kept, and is refused with 409 where it names another version than there is. So the real
client of ours can be tested without a cluster, by a kubeconfig that names this server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.kubeconfig import write_kubeconfig

Object = dict[str, Any]
Shares = list[tuple[str, int, bool]]
"""Of each predictor its name, its traffic, and whether it is a shadow."""


@dataclass
class SeldonApi:
    """What is there, and what was done to it.

    Attributes:
        objects: The SeldonDeployments, by their paths.
        history: What the predictors were after each change.
        pods_come: Whether the pods of predictors are available as soon as these are there.
        refuse: Status that each change is answered with instead of being made; 0: it is made.
    """

    objects: dict[str, Object] = field(default_factory=dict)
    history: list[Shares] = field(default_factory=list)
    pods_come: bool = True
    refuse: int = 0

    def put(self, namespace: str, found: Object) -> None:
        """Let a SeldonDeployment be there."""
        name = found["metadata"]["name"]
        path = f"/apis/machinelearning.seldon.io/v1/namespaces/{namespace}/seldondeployments/{name}"
        kept = json.loads(json.dumps(found))
        kept["metadata"]["resourceVersion"] = "1"
        self.objects[path] = kept
        self.operate()

    def only(self) -> Object:
        """Return the one SeldonDeployment that there is."""
        (found,) = self.objects.values()
        return found

    def shares(self) -> Shares:
        """Return the predictors of the one that there is."""
        return [
            (one["name"], one["traffic"], one.get("shadow", False))
            for one in self.only()["spec"]["predictors"]
        ]

    def operate(self) -> None:
        """Say of each predictor how many of its pods are there, as Seldon's operator does."""
        for found in self.objects.values():
            name, before = found["metadata"]["name"], found.get("status", {}).get("deploymentStatus", {})
            pods = {f"{name}-{one['name']}-0-server" for one in found["spec"]["predictors"]}
            there = {pod for pod in pods if self.pods_come or pod in before}
            found["status"] = {
                "state": "Available" if there == pods else "Creating",
                "deploymentStatus": {pod: {"availableReplicas": 1} for pod in there},
            }

    def lose(self, predictor: str) -> None:
        """Let none of a predictor's pods be available any more."""
        status = self.only()["status"]
        status["state"] = "Creating"
        del status["deploymentStatus"][f"{self.only()['metadata']['name']}-{predictor}-0-server"]

    def change(self, path: str, patch: Object) -> tuple[int, Object]:
        """Merge a patch into an object; return the status and the content of the answer."""
        if self.refuse:
            return self.refuse, {"message": "refused"}
        found = self.objects[path]
        wanted = patch["metadata"].get("resourceVersion")
        if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
            return HTTPStatus.CONFLICT, {"message": "the object has been modified"}
        assert set(patch) == {"metadata", "spec"}
        assert set(patch["spec"]) == {"predictors"}
        found["spec"] |= patch["spec"]
        found["metadata"]["resourceVersion"] = str(int(found["metadata"]["resourceVersion"]) + 1)
        self.operate()
        self.history.append(self.shares())
        return HTTPStatus.OK, found


@contextmanager
def seldon_api(kubeconfig: Path, context: str) -> Iterator[SeldonApi]:
    """Answer as that part of an API until the block ends.

    Args:
        kubeconfig: The file to write, in which the context names it.
        context: The context's name.
    """
    api, lock = SeldonApi(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                found = api.objects.get(self.path)
            self._answer(*((HTTPStatus.OK, found) if found else (HTTPStatus.NOT_FOUND, {"message": "none"})))

        def do_PATCH(self) -> None:
            assert self.headers["content-type"] == "application/merge-patch+json"
            patch = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                self._answer(*api.change(self.path, patch))

        def _answer(self, status: int, content: Object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    write_kubeconfig(kubeconfig, context, f"http://127.0.0.1:{server.server_port}")
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
