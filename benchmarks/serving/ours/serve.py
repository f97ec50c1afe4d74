"""Our server as ``seatrial serve`` runs it, but for its log: at intervals, or none at all.

The command line knows no way to switch the log off, and shall not: this is for the comparison alone.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import tempfile
from pathlib import Path

import uvloop
from echo import listen
from inputs import served_model

from seatrial.bundle import open_trust_root
from seatrial.feedback import FeedbackLog
from seatrial.feedback.log import Terms
from seatrial.feedback.recent import RecentPredictions
from seatrial.server.batching import Predictor
from seatrial.server.holder import ModelHolder
from seatrial.server.http import Application
from seatrial.server.http1 import Listener
from seatrial.server.metrics import Metrics
from seatrial.server.run import SWITCH_SECONDS
from seatrial.server.service import Service
from seatrial.workspace import Workspace

SYNC_SECONDS = 0.05


def main() -> None:
    """Serve: ``serve.py PORT_FILE WORKSPACE interval|off``."""
    port_file, home, log_kind = sys.argv[1:]
    sys.setswitchinterval(SWITCH_SECONDS)
    workspace = Workspace.open(home)
    model = served_model(workspace)
    with tempfile.TemporaryDirectory(dir=workspace.folder.parent) as folder:
        log = None
        if log_kind == "interval":
            model.terms = Terms(SYNC_SECONDS, model.feedback.maximum_log_bytes)
            log = FeedbackLog(Path(folder))
        holder = ModelHolder(workspace, open_trust_root(workspace), model, None)
        recent, metrics = RecentPredictions(), Metrics()
        service = Service(holder, log, recent, Predictor(log, recent, metrics), metrics)
        gc.freeze()
        uvloop.run(_run(service, listen(Path(port_file))))


async def _run(service: Service, listening: socket.socket) -> None:
    application = Application(service)
    listener = Listener(
        application.handle, application.body_limit, application.too_long, application.malformed
    )
    await listener.run(listening, asyncio.Event())


if __name__ == "__main__":
    main()
