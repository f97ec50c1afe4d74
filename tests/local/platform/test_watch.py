"""What is watched in Kubernetes: each change once, and an end in words, however the answer ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.kubernetes_runs import KubernetesRuns
from seatrial.kubernetes_api import Kubernetes
from support.kubeconfig import write_kubeconfig

CONTEXT, PATH = "harbour", "/apis/argoproj.io/v1alpha1/namespaces/seatrial/workflows"
EVENTS = [
    {"type": kind, "object": {"metadata": {"name": "run"}}} for kind in ("ADDED", "MODIFIED", "DELETED")
]
EXPIRED = {"type": "ERROR", "object": {"code": 410, "reason": "Expired"}}


@contextmanager
def answering(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Any], *, status: int = 200, whole: bool = True
) -> Iterator[list[dict[str, list[str]]]]:
    """An API server that answers each watch with these lines; yields the queries of what was asked."""
    asked: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(parse_qs(urlsplit(self.path).query))
            self.send_response(status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in lines:
                text = json.dumps(line).encode() + b"\n"
                # In two pieces, as a network may cut them.
                for piece in (text[:5], text[5:]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n" if whole else b"")
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        write_kubeconfig(folder / "config", CONTEXT, f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(
            "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(folder / "config")
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield asked
        server.shutdown()


def watched() -> list[dict[str, Any]]:
    return list(Kubernetes(CONTEXT).watch(PATH, seconds=7, resourceVersion="12"))


def test_each_change_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server is asked for so many seconds from a version on, and each of its lines is one change."""
    with answering(tmp_path, monkeypatch, EVENTS) as asked:
        assert watched() == EVENTS
    assert asked == [{"watch": ["true"], "timeoutSeconds": ["7"], "resourceVersion": ["12"]}]


@pytest.mark.parametrize(
    ("lines", "status"), [([*EVENTS, EXPIRED], 200), ([EXPIRED["object"]], 410)], ids=["later", "at_once"]
)
def test_a_version_that_is_forgotten_ends_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[Any], status: int
) -> None:
    """It is no fault: who watches lists anew."""
    with answering(tmp_path, monkeypatch, lines, status=status):
        assert watched() == (EVENTS if status == 200 else [])


def test_a_cluster_without_workflows_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at runs there must not take it for a cluster without any, and ask again at once."""
    with (
        answering(tmp_path, monkeypatch, [], status=404),
        pytest.raises(ClusterError, match="does not know Argo's workflows"),
    ):
        next(KubernetesRuns(Kubernetes(CONTEXT), "seatrial").changes())


def test_an_answer_that_breaks_off_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before is told, and then that the API server does not answer."""
    told: list[dict[str, Any]] = []
    with answering(tmp_path, monkeypatch, EVENTS, whole=False):
        watch = Kubernetes(CONTEXT).watch(PATH, seconds=7)
        with pytest.raises(ClusterError, match="'harbour' does not answer"):
            told.extend(watch)
    assert told == EVENTS
