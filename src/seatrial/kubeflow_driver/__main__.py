"""Decides what the steps of Kubeflow Pipelines need, for all runs of the namespace of its pod."""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from seatrial.cluster_setup.entry import run, say
from seatrial.cluster_setup.object_store import Store, StoredVersion, versions_below
from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.checked_cache import CheckedCache
from seatrial.kubeflow_driver.kept import why_not_again
from seatrial.kubeflow_driver.kubernetes_runs import KubernetesRuns
from seatrial.kubeflow_driver.lineage import Lineage
from seatrial.kubeflow_driver.service import DriverService
from seatrial.kubernetes_api import Kubernetes

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAUSE_SECONDS = 1.0
MOST_VERSIONS = 20_000
"""Of objects that are looked at for one artifact, some seconds' worth; a step that left more runs anew."""


class _ToldToEndError(Exception):
    """The pod is to end."""


def main() -> None:
    """Watch runs and answer drivers until the process is told to end; what works then is waited for."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _end)
    cache = (
        _checked_cache(*arguments.check_cache, at_once=arguments.at_once) if arguments.check_cache else None
    )
    service = DriverService(
        KubernetesRuns(Kubernetes(""), NAMESPACE.read_text()),
        arguments.driver,
        at_once=arguments.at_once,
        seconds=arguments.seconds,
        launchers=dict(one.split("=", 1) for one in arguments.launcher_in),
        door=cache.door if cache else None,
    )
    say("looks at runs")
    try:
        while True:
            try:
                arguments.alive.touch()
                service.look()
            except ClusterError as error:
                say(f"{error} It is asked again.")
                time.sleep(PAUSE_SECONDS)
    except _ToldToEndError:
        say("ends when the drivers at work have ended")
        service.close()
        if cache:
            cache.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m seatrial.kubeflow_driver",
        description=__doc__,
        epilog="example: python -m seatrial.kubeflow_driver --driver /kubeflow/driver --alive /tmp/alive",
    )
    parser.add_argument("--driver", type=Path, required=True, help="the program of Kubeflow Pipelines")
    parser.add_argument("--alive", type=Path, required=True, help="a file that is touched while it watches")
    parser.add_argument("--at-once", type=int, default=8, help="how many drivers may work at the same time")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long one may work")
    parser.add_argument(
        "--launcher-in",
        action="append",
        default=[],
        metavar="IMAGE=PATH",
        help="an image of steps that has Kubeflow's launcher of the driver's version, and where; may be repeated",
    )
    parser.add_argument(
        "--check-cache",
        nargs=2,
        metavar=("API", "LINEAGE"),
        help="look in the store of the AWS_* variables whether what an earlier step left is as it was, before its work "
        "is taken again; HOST:PORT of the gRPC of Kubeflow Pipelines' API, which names such steps, and of the lineage",
    )
    return parser


def _checked_cache(api: str, lineage: str, *, at_once: int) -> CheckedCache:
    """Return what answers drivers who ask for earlier steps."""
    store, told = Store.of_environment(), Lineage(lineage)

    def below(bucket: str, prefix: str) -> list[StoredVersion]:
        return versions_below(store, bucket, prefix, most=MOST_VERSIONS)

    return CheckedCache(api, lambda execution: why_not_again(told.left_by(execution), below), at_once=at_once)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _ToldToEndError


if __name__ == "__main__":
    run(main)
