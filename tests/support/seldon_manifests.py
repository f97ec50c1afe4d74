"""A model's folder of an environment as it is with ``engine: seldon``, made of the shipped one without helm.

What the chart itself renders is looked at in ``tests/charts``; here it is enough that the pods and their names are its.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
BY_THE_OPERATOR = {"Service", "PodDisruptionBudget"}
"""Kinds of objects that Seldon's operator makes, and the chart does not."""


def seldon_deployment(deployment: Object, *, serves: str) -> Object:
    """Return the SeldonDeployment of the pods of a Deployment.

    Args:
        deployment: The Deployment, as the chart renders it.
        serves: Whether its servers are given a ``digest``, or follow the ``record``.
    """
    name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
    (server,) = template["spec"]["containers"]
    if serves == "record":
        server["args"] = ["--env=staging", "--predictor=main", *server["args"][3:]]
        server["env"] = [one for one in server["env"] if one["name"] != "BUNDLE"]
    labels = {**deployment["metadata"]["labels"], "seatrial.io/serves": serves}
    predictor = {
        "name": "main",
        "traffic": 100,
        "annotations": {"seldon.io/no-engine": "true", "seldon.io/svc-name": name},
        "graph": {"name": "server", "type": "MODEL", "children": []},
        "componentSpecs": [template],
    }
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "protocol": "v2",
            "replicas": deployment["spec"]["replicas"],
            "predictors": [predictor],
        },
    }


def serve_with_seldon(folder: Path, *, serves: str = "digest") -> None:
    """Let a model's folder ask for Seldon's operator."""
    values = folder / "values.yaml"
    values.write_text(f"engine: seldon\n{values.read_text()}")
    path = folder / "objects.yaml"
    kept = [
        seldon_deployment(found, serves=serves) if found["kind"] == "Deployment" else found
        for found in yaml.safe_load_all(path.read_text())
        if found["kind"] not in BY_THE_OPERATOR
    ]
    path.write_text(yaml.safe_dump_all(kept, sort_keys=False))
