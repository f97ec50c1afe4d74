"""Test, staging and production as three namespaces of a cluster, a repository that names them, and who may what.

It is what ``docs/how-to/promotion.md`` asks a user to make: an object store with a workspace for each environment, the
manifests rendered from ``charts/model`` with the values beside them, and persons whom RBAC knows. Commands are run as
such a person, in the repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from ruamel.yaml import YAML

from seatrial.images import own_image
from support.cluster_world import IMAGES, ROOT, SERVER, Command, World, made_world, wait_until
from support.harbour import AS_OF, MODEL, Harbour, open_harbour

if TYPE_CHECKING:
    from tests.local.serving.conftest import Ferry

ENVIRONMENTS = ("test", "staging", "production")
DELIVERER, VISITOR = "deliverer", "visitor"
"""A user with the ClusterRole ``edit`` in the three namespaces, and one with ``view``; each is a context, too."""
ROLES = {DELIVERER: "edit", VISITOR: "view"}
DEPLOYMENT = f"deployment/{MODEL}"
SELECTOR = f"app.kubernetes.io/name=model,app.kubernetes.io/instance={MODEL}"
SECONDS = 600
SEATRIAL = str(Path(sys.executable).with_name("seatrial"))
LOCAL = {"test": ".seatrial", "staging": ".seatrial-staging", "production": ".seatrial-production"}
"""The workspaces that the shipped files name."""
VALUES = """\
replicas: {replicas}
trustRoot: {trust_root}
network: {{objectStore: {{namespace: {store}}}, clientNamespaces: [{clients}]}}
resources: {{requests: {{cpu: 10m}}}}
feedbackLog: {{shipEverySeconds: 5}}
rollOut: {{schedule: "0 0 1 1 *"}}
drainSeconds: 20
"""
"""Pods drain for longer than by default: with twelve clients on two cores, the node is late to send them elsewhere."""


@dataclass(frozen=True)
class Namespaces:
    """The three of them.

    Attributes:
        harbour: The repository.
        worlds: Each environment's namespace.
        variables: What commands find beside the variables of this process: keys, and the persons' kubeconfig.
    """

    harbour: Harbour
    worlds: dict[str, World]
    variables: dict[str, str]

    def seatrial(self, *arguments: str, code: int = 0) -> str:
        """Run a command that must exit with ``code``; return its standard output, or its error if it is to fail."""
        done = self._done((SEATRIAL, *arguments), code)
        return done.stderr if code else done.stdout

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command that must exit with ``code``, and return what it prints as JSON."""
        return orjson.loads(self._done((SEATRIAL, *arguments, "--json"), code).stdout)

    def job(self, name: str) -> str:
        """Run what a job that we ship for GitLab runs, but for setting up, and return what it prints."""
        shipped = YAML(typ="safe").load(self.harbour.root / "manifests/ci/gitlab-ci.yml")[name]["script"]
        assert shipped[0] == "make setup"
        return self._done(("bash", "-e", "-c", "\n".join(shipped[1:]))).stdout

    def apply(self, environment: str) -> None:
        """Hand an environment's manifests to the cluster as they are in git."""
        folder = f"manifests/environments/{environment}"
        self._done(("kubectl", "--context", DELIVERER, "apply", "-k", folder))

    def _done(
        self, command: tuple[str, ...], code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.harbour.root,
            env={**os.environ, **self.variables, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        said = (
            f"{' '.join(command)} ended with {done.returncode}, expected {code}: {done.stdout}\n{done.stderr}"
        )
        assert done.returncode == code, said
        return done

    def train(self) -> str:
        """Run the training pipeline for ``test`` as a job of CI does, and return the bundle that test then serves."""
        where = ("--env", "test", "--workspace", self.worlds["test"].address)
        trusted = {"SEATRIAL_TRUST": str(self.harbour.root / ".seatrial/keys/trusted")}
        command = (SEATRIAL, "train", MODEL, *where, "--as-of", AS_OF.isoformat(), "--json")
        said: dict[str, Any] = orjson.loads(self._done(command, **trusted).stdout)
        served = self.harbour.served("test")
        assert said["failed_gates"] == []
        assert served is not None
        return served

    def propose(self, to: str, bundle: str = "") -> str:
        """Prepare a move and merge it, as a review does; return the text of the pull request."""
        text = self.harbour.root.parent / f"{to}.md"
        named = ("--bundle", bundle) if bundle else ()
        said = self.json("promote", MODEL, "--to", to, "--text", str(text), *named)
        self.harbour.merge(said["branch"]["name"])
        return text.read_text()

    def settled(self, environment: str) -> None:
        """Wait until all pods are what the Deployment asks for, and those before them are gone."""
        world = self.worlds[environment]
        world.run("rollout", "status", DEPLOYMENT, f"--timeout={SECONDS}s", timeout=SECONDS + 10)
        wanted: int = world.get("deployment", MODEL)["spec"]["replicas"]
        wait_until(lambda: len(self.pods(environment)) == wanted, "the pods before to be gone", 180)

    def pods(self, environment: str) -> list[dict[str, Any]]:
        """Return the model's pods in an environment, those that are being stopped among them."""
        found: list[dict[str, Any]] = self.worlds[environment].get("pods", "", "--selector", SELECTOR)[
            "items"
        ]
        return found


@contextmanager
def three_namespaces(
    kubectl: Command,
    context: str,
    ferry: Ferry,
    root: Path,
    rules: dict[str, str] | None = None,
    *,
    seldon: str = "",
    clients: str = "",
) -> Iterator[Namespaces]:
    """Make the namespaces and the repository, and go there; nothing is served yet.

    Args:
        kubectl: Runs kubectl on the cluster.
        context: The cluster's context in the kubeconfig, of a user who may do everything.
        ferry: The model, whose data are those of each environment.
        root: An empty folder.
        rules: What an environment's file says in the place of its demands, as YAML, by the environment's name.
        seldon: The environment that is served by Seldon's operator, if any; it is not there yet.
        clients: Another namespace from which models may be asked, if any.
    """
    trusted = {path.name: path.read_text() for path in (ferry.root / "keys" / "trusted").glob("*.pem")}
    with ExitStack() as stack:
        store = stack.enter_context(made_world(kubectl, trusted))
        worlds = {
            name: stack.enter_context(made_world(kubectl, trusted, environment=name, store=store))
            for name in ENVIRONMENTS
        }
        led_by_a_job = [own_image("pipeline")] if rules else []
        for image in (SERVER, IMAGES["minio"], *led_by_a_job):
            if why := store.missing_image(image):
                pytest.skip(why)
        store.store_comes()
        (root / "repository").mkdir()
        harbour = open_harbour(ferry, root / "repository")
        for name, world in worlds.items():
            world.upload(harbour.workspace(name).folder)
            for person, role in ROLES.items():
                world.run("create", "rolebinding", person, f"--clusterrole={role}", f"--user={person}")
        for name, text in (rules or {}).items():
            harbour.rules(name, text)
        _name_in_git(harbour, worlds, store.namespace, seldon, clients)
        stack.enter_context(store.workspace())
        persons = _kubeconfig(kubectl, context, root / "kubeconfig")
        yield Namespaces(harbour, worlds, {**_variables(harbour), "KUBECONFIG": str(persons)})


def _variables(harbour: Harbour) -> dict[str, str]:
    """What a runner of CI is given: the key that signs bundles, where runs are registered, and the context."""
    return {
        "COLUMNS": "300",
        "KUBE_CONTEXT": DELIVERER,
        "MLFLOW_TRACKING_URI": f"sqlite:///{harbour.root.parent / 'mlflow.db'}",
        "SEATRIAL_SIGNING_KEY": str(harbour.root / ".seatrial/keys/signing-key.pem"),
    }


def _kubeconfig(kubectl: Command, context: str, path: Path) -> Path:
    """Write a kubeconfig with a context for each person, as which the cluster's own user acts."""
    there = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))
    (cluster,), (user,) = there["clusters"], there["users"]
    users = [{"name": name, "user": {**user["user"], "as": name}} for name in ROLES]
    contexts = [{"name": name, "context": {"cluster": cluster["name"], "user": name}} for name in ROLES]
    written = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": users,
        "contexts": contexts,
    }
    path.write_text(json.dumps(written))
    path.chmod(0o600)
    return path


def _name_in_git(harbour: Harbour, worlds: dict[str, World], store: str, seldon: str, clients: str) -> None:
    """Let git say which namespaces and workspaces there are and what serves the model, as the guide says."""
    environments = harbour.root / "manifests/environments"
    shipped = ROOT / "manifests/environments"
    _replace(shipped / "test/kustomization.yaml", environments / "test/kustomization.yaml", "flights", MODEL)
    shutil.copytree(shipped / "test/flights", environments / "test" / MODEL)
    for name, world in worlds.items():
        folder = environments / name
        trust_root = "trust-root" if name == "test" else "trusted-makers"
        values = VALUES.format(
            replicas=2 if name == "production" else 1, trust_root=trust_root, store=store, clients=clients
        )
        values += "engine: seldon\n" if name == seldon else ""
        (folder / MODEL / "values.yaml").write_text(values)
        of_all, rules = folder / "kustomization.yaml", folder / "environment.yaml"
        _replace(of_all, of_all, f"namespace: {name}", f"namespace: {world.namespace}")
        said = f"workspace: {world.address}\nnamespace: {world.namespace}"
        _replace(rules, rules, f"workspace: {LOCAL[name]}", said)
    subprocess.run([sys.executable, ROOT / "tools/write_manifests.py", environments], check=True)
    contract = harbour.root / "models" / MODEL / "model.yaml"
    _replace(contract, contract, "encoding: ordinal", "encoding: one_hot")
    (harbour.root / ".venv").mkdir()
    (harbour.root / ".venv/bin").symlink_to(Path(sys.executable).parent)
    ignored = harbour.root / ".gitignore"
    ignored.write_text(f"{ignored.read_text()}.venv/\n")
    harbour.git("add", ".")
    harbour.git("commit", "--quiet", "--message", "The namespaces")


def _replace(source: Path, target: Path, old: str, new: str) -> None:
    """Write a text with other words than it has; it must have those."""
    text = source.read_text()
    assert old in text, f"{old!r} is not in {source} any more"
    target.write_text(text.replace(old, new))
