"""Decides what the steps of Kubeflow Pipelines need, for all runs of the namespace of its pod."""

from __future__ import annotations

import argparse
import signal
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from seatrial.cluster_setup.entry import run, say
from seatrial.errors import ClusterError
from seatrial.kubeflow_driver.kubernetes_runs import KubernetesRuns
from seatrial.kubeflow_driver.service import DriverService

NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAUSE_SECONDS = 1.0


class _ToldToEndError(Exception):
    """The pod is to end."""


def main() -> None:
    """Watch runs and answer drivers until the process is told to end; what works then is waited for."""
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
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    service = DriverService(
        KubernetesRuns(NAMESPACE.read_text()),
        arguments.driver,
        at_once=arguments.at_once,
        seconds=arguments.seconds,
        launchers=dict(one.split("=", 1) for one in arguments.launcher_in),
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


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _ToldToEndError


if __name__ == "__main__":
    run(main)
