"""Stands where kubectl would: what is applied is kept in a folder, and is what the cluster then has.

What is asked first, as by ``--dry-run=server``, is refused with the words of the file ``refusals`` where it has some.
While the file ``stuck`` is there, no pod comes up; while ``away`` is, nothing can be applied.
Kustomizations are made by kubectl itself, which is no matter of a cluster. The API's own defaults are not added. Of a
SeldonDeployment there are the Deployments that its operator makes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(os.environ["KUBECTL_FOLDER"])
KUBECTL = os.environ["KUBECTL"]


def objects(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a folder."""
    made = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True, check=True)
    return [found for found in yaml.safe_load_all(made.stdout) if found]


def by_the_operator(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the Deployments that Seldon's operator makes of a SeldonDeployment; none of another object."""
    if found["kind"] != "SeldonDeployment":
        return []
    name = found["metadata"]["name"]
    return [
        {
            "kind": "Deployment",
            "metadata": {"name": f"{name}-{predictor['name']}-0-server"},
            "spec": {"template": predictor["componentSpecs"][0]},
        }
        for predictor in found["spec"]["predictors"]
    ]


def answer(words: list[str]) -> str:
    """Do what is asked and return what is said about it."""
    if words[0] == "kustomize":
        return subprocess.run([KUBECTL, *words], capture_output=True, text=True, check=True).stdout
    applied = FOLDER / "applied"
    if "apply" in words:
        asked = "--dry-run=server" in words
        refusals = FOLDER / "refusals"
        if not asked and (FOLDER / "away").exists():
            sys.exit("error: the server doesn't answer")
        kept = FOLDER / "asked" if asked else applied
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(words[-1], kept)
        if asked and refusals.is_file() and refusals.read_text():
            sys.exit(refusals.read_text())
        return "applied\n"
    there = objects(applied) if applied.is_dir() else []
    if "-k" in words:
        return json.dumps({"kind": "List", "items": there}, default=str)
    stuck = (FOLDER / "stuck").exists()
    if "rollout" in words or "wait" in words:
        name = next(word for word in words if word.startswith("deployment/")).removeprefix("deployment/")
        if stuck:
            sys.exit(f'error: deployment "{name}" exceeded its progress deadline')
        return f'deployment "{name}" successfully rolled out'
    kind, name = words[words.index("get") + 1 :][:2]
    made = [one for found in there for one in (found, *by_the_operator(found))]
    found = [one for one in made if (one["kind"].lower(), one["metadata"]["name"]) == (kind, name)]
    status = {"observedGeneration": 1, "replicas": 2 + stuck, "updatedReplicas": 1 if stuck else 2}
    return json.dumps({**found[0], "status": status}, default=str) if found else ""


if __name__ == "__main__":
    sys.stdout.write(answer([word for word in sys.argv[1:] if word not in ("--context", "some-cluster")]))
