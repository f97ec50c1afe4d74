"""Set the weights of a SeldonDeployment's predictors as the record of a roll-out says.

With Seldon's operator a mesh splits the requests between two predictors, ``main`` and ``candidate``, or copies them to
the second. Nothing is decided here: which predictors there are, and who gets how much, follows from the record and from
what is there, so whoever looks next goes on where one that was killed stopped. To answer requests the candidate comes
and goes without any: one look puts it there, or takes its requests away; the next one gives it some once its pods are
there, or takes it out. So the mesh knows of it before it is asked, and nobody asks it any more when its pods go. Copies
may come too early or too late: nobody gets what is answered to them.

A candidate that the mesh gives requests and none of whose pods answers any more is not tried on. What the mesh does
with its share then is an error, and the operator sets no weights while a predictor is not available: so the candidate
is taken out, and not asked for less.

Both predictors are the same pods but for one argument of their servers, and all of them follow the record. So at the
last step those of ``main`` take the new bundle as they take any, without being replaced.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from seatrial.delivery.declared import MAIN, SERVER, deployment_name, names_seldon, object_name
from seatrial.kubernetes_api import Kubernetes
from seatrial.promotion.environment import EnvironmentFolder
from seatrial.promotion.pointer import Stage, read_pointer

CANDIDATE = "candidate"
OF_MAIN, OF_CANDIDATE = (f"--predictor={name}" for name in (MAIN, CANDIDATE))
"""Arguments of the server; without the first one, it splits the requests itself."""
SERVICE_ANNOTATION = "seldon.io/svc-name"
ALL = 100
_PATH = "/apis/machinelearning.seldon.io/v1/namespaces/{}/seldondeployments/{}"
_AVAILABLE = "Available"

Object = dict[str, Any]


def predictors_by_record(now: list[Object], stage: Stage | None) -> list[Object]:
    """Return the predictors that there must be in a step of a roll-out.

    Args:
        now: Those that there are; where the servers split the requests themselves, they stay as they are.
        stage: The step; None: nothing is rolled out.
    """
    main = _main(now)
    if main is None:
        return now
    if stage is None:
        return [_with(main, ALL)]
    if not stage.weight:
        return [_with(main, ALL), _candidate(main, ALL, shadow=True)]
    return [_with(main, ALL - stage.weight), _candidate(main, stage.weight)]


def next_predictors(now: list[Object], stage: Stage | None, *, keep: bool = False) -> list[Object]:
    """Return the predictors that follow those that there are, on the way to what the record says.

    Args:
        now: Those that there are.
        stage: The step; None: nothing is rolled out.
        keep: Whether a candidate that nothing asks any more stays for this time.
    """
    main, wanted = _main(now), predictors_by_record(now, stage)
    if main is None:
        return now
    candidate = next((one for one in now if one["name"] == CANDIDATE), None)
    unasked = [_with(main, ALL), _candidate(main, 0)]
    if stage is not None:
        return unasked if candidate is None and stage.weight else wanted
    if candidate is None or candidate.get("shadow"):
        return now if candidate is not None and keep else wanted
    return unasked if candidate["traffic"] or keep else wanted


def _main(predictors: list[Object]) -> Object | None:
    """Return the predictor that serves; None where its servers split the requests themselves."""
    found = (one for one in predictors if one["name"] == MAIN)
    return next((one for one in found if any(OF_MAIN in s.get("args", []) for s in _servers(one))), None)


def _has_pods(found: Object, model: str) -> bool:
    """Whether a pod of the candidate answers, as the operator says it."""
    pods = deployment_name(model, seldon=True, predictor=CANDIDATE)
    said = (found.get("status") or {}).get("deploymentStatus") or {}
    return bool(said.get(pods, {}).get("availableReplicas"))


def is_split_by_mesh(environment: EnvironmentFolder, model: str) -> bool:
    """Return whether roll-outs of a model are steps of the predictors of a SeldonDeployment."""
    return environment.rules.rollout is not None and names_seldon(environment, model)


def _servers(predictor: Object) -> list[Object]:
    return [
        container
        for pod in predictor["componentSpecs"]
        for container in pod["spec"]["containers"]
        if container["name"] == SERVER
    ]


def _with(predictor: Object, traffic: int) -> Object:
    return {**predictor, "traffic": traffic}


def _candidate(main: Object, traffic: int, *, shadow: bool = False) -> Object:
    made = deepcopy(main)
    made |= {"name": CANDIDATE, "traffic": traffic}
    notes = made.setdefault("annotations", {})
    if SERVICE_ANNOTATION in notes:
        notes[SERVICE_ANNOTATION] += f"-{CANDIDATE}"
    if shadow:
        made["shadow"] = True
    for server in _servers(made):
        server["args"] = [OF_CANDIDATE if one == OF_MAIN else one for one in server["args"]]
    return made


@dataclass(frozen=True)
class Seen:
    """What of a candidate's pods bears on its roll-out, in words.

    Attributes:
        awaited: What the next step waits for; empty where it may be made.
        lost: Why the candidate must be taken back; empty where it need not.
    """

    awaited: str = ""
    lost: str = ""


@dataclass(frozen=True)
class Predictors:
    """The predictors of an environment's models in a cluster.

    Attributes:
        environment: The environment.
        cluster: The cluster; None where none is at hand.
    """

    environment: EnvironmentFolder
    cluster: Kubernetes | None = None
    _asked: dict[str, int] = field(default_factory=dict)
    """Of each model the step in which the mesh was seen to give requests to pods of the candidate's."""

    def follow(self, models: list[str]) -> list[str]:
        """Bring the predictors of models nearer to what the record says.

        Returns:
            What was set, in words; empty where nothing was left to do.

        Raises:
            ContractError: if a ``bundle.yaml`` cannot be read.
            StoreError: if the store failed.
            ClusterError: if the API server is away or refuses.
        """
        said = [self._follow(model) for model in models if is_split_by_mesh(self.environment, model)]
        return [one for one in said if one]

    def see(self, model: str) -> Seen:
        """Look at a candidate's pods, and whether the mesh gives them what the step says.

        A new predictor's pods have yet to come, and the operator may replace them between two steps; so only those
        that were seen in a step can be lost in it.

        Raises:
            StoreError: if the store failed.
            ClusterError: if the API server is away or refuses.
        """
        if not is_split_by_mesh(self.environment, model):
            return Seen()
        if self.cluster is None:
            return Seen("somebody who sees the cluster: the job there, or --context")
        found = self._read(model)
        if found is None:
            return Seen("its SeldonDeployment")
        return Seen() if _main(found["spec"]["predictors"]) is None else self._see_pods(model, found)

    def _see_pods(self, model: str, found: Object) -> Seen:
        now, stage = found["spec"]["predictors"], self._stage(model)
        awaited = Seen("the predictors to be available, with the weights of the step")
        if stage is None or now != predictors_by_record(now, stage):
            return awaited
        if not _has_pods(found, model):
            was_asked = stage.weight and self._asked.get(model) == stage.number
            lost = f"none of its pods answers, and {stage.weight}% of the requests are theirs"
            return Seen(lost=lost) if was_asked else awaited
        if (found.get("status") or {}).get("state") != _AVAILABLE:
            return awaited
        self._asked[model] = stage.number
        return Seen()

    def _stage(self, model: str) -> Stage | None:
        return read_pointer(self.environment.open_workspace(), self.environment.name, model).stage

    def _path(self, model: str) -> str:
        return _PATH.format(self.environment.rules.namespace or self.environment.name, object_name(model))

    def _read(self, model: str) -> Object | None:
        assert self.cluster is not None
        return self.cluster.get(self._path(model))

    def _follow(self, model: str) -> str:
        if self.cluster is None or (found := self._read(model)) is None:
            return ""
        now, stage = found["spec"]["predictors"], self._stage(model)
        is_gone = stage is None and not _has_pods(found, model)
        wanted = (predictors_by_record if is_gone else next_predictors)(now, stage)
        if wanted == now or (
            stage is not None and len(now) == len(wanted) > 1 and not _has_pods(found, model)
        ):
            return ""  # The mesh gives nothing to a candidate before its pods are there.
        # Whoever changed it meanwhile is not overwritten: the next look goes on from what is there then.
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        change = {"metadata": version, "spec": {"predictors": wanted}}
        if not self.cluster.patch(self._path(model), change):
            return f"{model}: its SeldonDeployment has changed meanwhile"
        shares = ", ".join(
            f"{one['name']} {'copies' if one.get('shadow') else str(one['traffic']) + '%'}" for one in wanted
        )
        return f"{model}: {shares}"
