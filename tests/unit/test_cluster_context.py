"""Which cluster is meant, and whose it is."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from seatrial import kubernetes_api
from seatrial.cluster.context import Cluster, choose, connect, is_ours
from seatrial.errors import ClusterError
from seatrial.kubernetes_api import Context, Kubernetes, contexts

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: {current}
clusters: [{{name: one, cluster: {{server: "https://127.0.0.1:{port}"}}}}]
users: [{{name: me, user: {{token: nothing}}}}]
contexts:
  - {{name: kind-seatrial, context: {{cluster: one, user: me}}}}
  - {{name: production, context: {{cluster: one, user: me}}}}
"""


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with two contexts, of a server at a port that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "config"
    path.write_text(KUBECONFIG.format(current="kind-seatrial", port=port))
    # The library reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


def test_contexts_are_read(kubeconfig: Path) -> None:
    """All are there, and the current one is known, if one is."""
    first, second = contexts()
    kubeconfig.write_text(kubeconfig.read_text().replace("current-context: kind-seatrial", ""))

    assert (first, second) == (Context("kind-seatrial", current=True), Context("production", current=False))
    assert contexts() == [Context("kind-seatrial", current=False), Context("production", current=False)]


def test_no_kubeconfig_is_no_context(kubeconfig: Path) -> None:
    """Without a file there is nothing to choose from, and that is no crash."""
    kubeconfig.unlink()

    assert contexts() == []


def test_the_current_context_is_meant_where_none_is_named() -> None:
    """None means the current one; a name means that one."""
    there = [Context("a", current=False), Context("b", current=True)]

    assert choose(None, there).name == "b"
    assert choose("a", there).name == "a"


@pytest.mark.parametrize(
    ("wanted", "there", "message", "remedy"),
    [
        ("c", [Context("a", current=True)], "no context 'c'. It has: a.", "--context"),
        (None, [Context("a", current=False)], "no current context. It has: a.", "--context"),
        (None, [], "It has: none.", "seatrial up --kind"),
    ],
)
def test_a_context_that_is_not_there_is_refused(
    wanted: str | None, there: list[Context], message: str, remedy: str
) -> None:
    """The error names what is there and what to do."""
    with pytest.raises(ClusterError) as error:
        choose(wanted, there)

    assert message in error.value.message
    assert remedy in error.value.remedy


def test_an_api_server_that_is_away_is_said_within_seconds(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names context and address, and how to get a cluster."""
    monkeypatch.setattr(kubernetes_api, "CONNECT_SECONDS", 1.0)

    with pytest.raises(
        ClusterError, match="context 'kind-seatrial' does not answer at https://127.0.0.1"
    ) as error:
        connect(None, "seatrial")

    assert "seatrial up --kind" in error.value.remedy


def test_only_the_context_that_installed_is_ours(kubeconfig: Path) -> None:
    """The mark counts for the context it names: the same namespace by another context is asked about."""
    labels = {"seatrial.io/platform": "true"}
    marked = {
        "metadata": {"labels": labels, "annotations": {"seatrial.io/installed-from-context": "kind-seatrial"}}
    }

    assert is_ours(Cluster(Kubernetes("kind-seatrial"), "seatrial"), marked)
    assert not is_ours(Cluster(Kubernetes("production"), "seatrial"), marked)
    assert not is_ours(Cluster(Kubernetes("kind-seatrial"), "seatrial"), {"metadata": {"labels": labels}})
    assert not is_ours(Cluster(Kubernetes("kind-seatrial"), "seatrial"), None)
