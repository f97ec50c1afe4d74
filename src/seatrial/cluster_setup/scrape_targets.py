"""Writes down which pods there are, for Prometheus to read: one file with metrics, one with readiness.

Prometheus can ask Kubernetes itself, but not every build of it can, and it then asks for more than a
list of pods. So this stands beside it, with a right to list pods in the namespaces that are named and
no other, and writes the files of Prometheus's file-based discovery. While Kubernetes does not
answer, the files stay as they were.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.cluster_setup.entry import run, say

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

PAUSE_SECONDS = 15.0
SCRAPE, PORT, PATH = (f"prometheus.io/{name}" for name in ("scrape", "port", "path"))
PART_OF, COMPONENT, MODEL = "app.kubernetes.io/part-of", "app.kubernetes.io/name", "seatrial.io/model"
ENDED = frozenset({"Succeeded", "Failed"})
REQUEST_SECONDS = 10.0

Group = dict[str, Any]
"""An entry of a file: its ``targets``, and their ``labels``."""


@dataclass(frozen=True)
class Targets:
    """What Prometheus shall look at.

    Attributes:
        metrics: Running pods whose annotations say where their metrics are.
        readiness: Every pod of the platform and its models that has not ended, with the label ``ready``.
    """

    metrics: list[Group]
    readiness: list[Group]


def targets(pods: list[dict[str, Any]]) -> Targets:
    """Return what Prometheus shall look at.

    Args:
        pods: The pods, as Kubernetes's API says them in JSON.
    """
    found = Targets([], [])
    for pod in pods:
        metadata, status = pod["metadata"], pod.get("status", {})
        if status.get("phase") in ENDED:
            continue
        own, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
        names = {"namespace": metadata["namespace"], "pod": metadata["name"]}
        names |= {
            label: own[key] for label, key in (("component", COMPONENT), ("model", MODEL)) if own.get(key)
        }
        if own.get(PART_OF) == "seatrial":
            ready = {"ready": "true" if _is_ready(status) else "false"}
            found.readiness.append({"targets": [metadata["name"]], "labels": names | ready})
        address, port = status.get("podIP"), notes.get(PORT)
        if notes.get(SCRAPE) == "true" and address and port:
            place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            path = {"__metrics_path__": notes.get(PATH, "/metrics")}
            found.metrics.append({"targets": [place], "labels": names | path})
    return found


def _is_ready(status: dict[str, Any]) -> bool:
    conditions = status.get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def write_down(found: Targets, folder: Path) -> None:
    """Write both files, each whole or not at all.

    Args:
        found: What they shall say.
        folder: Where ``metrics.json`` and ``readiness.json`` shall be.
    """
    for name, groups in (("metrics", found.metrics), ("readiness", found.readiness)):
        partial = folder / f".{name}.partial"
        partial.write_text(json.dumps(groups))
        partial.replace(folder / f"{name}.json")


def list_pods(api: CoreV1Api, namespaces: list[str]) -> list[dict[str, Any]]:
    """Return the pods of the namespaces, as Kubernetes says them in JSON."""
    pods: list[dict[str, Any]] = []
    for namespace in namespaces:
        answer = api.list_namespaced_pod(namespace, _preload_content=False, _request_timeout=REQUEST_SECONDS)
        pods += json.loads(answer.data)["items"]
    return pods


def main() -> None:
    """Write the files down again and again, until the process is told to end."""
    from kubernetes.client import ApiException, CoreV1Api
    from kubernetes.config import load_incluster_config
    from urllib3.exceptions import HTTPError

    parser = argparse.ArgumentParser(
        prog="python -m seatrial.cluster_setup.scrape_targets", description=__doc__
    )
    parser.add_argument("namespaces", nargs="+", metavar="NAMESPACE", help="whose pods are listed")
    parser.add_argument("--folder", type=Path, required=True, help="where the files shall be")
    arguments = parser.parse_args()
    load_incluster_config()
    api = CoreV1Api()
    while True:
        try:
            write_down(targets(list_pods(api, arguments.namespaces)), arguments.folder)
        except (ApiException, HTTPError) as error:
            say(f"Kubernetes does not list the pods: {type(error).__name__} {getattr(error, 'status', '')}")
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    run(main)
