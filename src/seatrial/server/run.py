"""Run the server: one process, one event loop, until it is told to stop.

A server of two processes can lose one of them: there is no child here that could outlive its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from seatrial.bundle import TrustRoot, forbid_unpickling, open_trust_root
from seatrial.bundle.store import find_bundle
from seatrial.contract import load_contract
from seatrial.contract.schema import NAME_PATTERN
from seatrial.errors import BundleError, SeatrialError, UsageError
from seatrial.feedback import FeedbackLog, Shipper
from seatrial.feedback.recent import RecentPredictions
from seatrial.feedback.shipping import feedback_tables
from seatrial.promotion import read_pointer
from seatrial.server.batching import Predictor
from seatrial.server.holder import ModelHolder
from seatrial.server.http import Application
from seatrial.server.http1 import BACKLOG, Limits, Listener
from seatrial.server.metrics import Metrics
from seatrial.server.model import load_model
from seatrial.server.service import Service
from seatrial.server.tracing import Traces, open_traces
from seatrial.server.watchdog import watching
from seatrial.workspace import Workspace

if TYPE_CHECKING:
    from seatrial.server.grpc_server import GrpcServer

OTHER_FILES = 200
SWITCH_SECONDS = 0.0005
PARENT_SECONDS = 0.5
_log = logging.getLogger("seatrial.server")


@dataclass(frozen=True)
class ServeOptions:
    """How a model is served.

    Attributes:
        model: The model's name or folder.
        workspace: Where bundles, pointers and tables lie.
        trust: The makers of bundles that are trusted; None: those of ``$SEATRIAL_TRUST`` or the workspace.
        environment: The environment whose bundle is served, and followed.
        bundle: Beginning of the digest of the one bundle to serve; None follows the environment.
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        grpc_port: Port to listen at for gRPC; 0 takes a free one; None: gRPC is not spoken.
        log_folder: Folder of the feedback log; None: ``serving/MODEL/feedback-log`` of the workspace.
        collect_logs: Whether to ship what servers that are gone left in the folders beside the log's own.
        address_file: File that the server's address is written to while it runs.
        ship_every: Seconds between two rounds of shipping feedback into the tables.
        look_every: Seconds between two looks at the environment.
        drain: Seconds from SIGTERM to the stop, in which requests are answered, each answer closes its
            connection, and the server says that it is not ready: whoever sends requests here has time to
            learn that they go elsewhere.
        parent: Id of the process that started this one, whose end ends this one too; None if it may outlive it.
        hang_limit: Seconds that a prediction may hold up all others, at least 10; then the process ends.
        predictor: ``main`` or ``candidate`` of a SeldonDeployment, where a mesh splits the requests of a roll-out;
            empty: the server does.
    """

    model: str
    workspace: Workspace
    trust: TrustRoot | None = None
    environment: str = "local"
    bundle: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    log_folder: Path | None = None
    collect_logs: bool = False
    address_file: Path | None = None
    ship_every: float = 10.0
    look_every: float = 1.0
    drain: float = 0.0
    parent: int | None = None
    hang_limit: float = 30.0
    predictor: str = ""


def serve(options: ServeOptions, announce: Callable[[str], None]) -> None:
    """Serve a model until SIGINT or SIGTERM, then finish what is being answered and ship feedback.

    Args:
        options: What to serve, and how.
        announce: Called with one line when requests are answered.

    Raises:
        UsageError: if the address cannot be listened at, or the environment asks for traces in a way that is not there.
        BundleError: if the environment serves no bundle, or it cannot be loaded.
        FeedbackError: if the feedback log's folder cannot be used or is in use.
        TableError: if a table that the model's features read is missing.
        StoreError: if the store fails.
    """
    forbid_unpickling()
    traces = open_traces("seatrial")
    # The log's thread gets its turn within half a millisecond, also while the loop is busy.
    sys.setswitchinterval(SWITCH_SECONDS)
    name = _model_name(options.model)
    log = FeedbackLog(options.log_folder or _default_log_folder(options.workspace, name))
    try:
        holder = _open_model(options, name, log)
        recent = RecentPredictions()
        recent.restore(options.workspace, name, log)
        holder.learned.add(holder.current, recent.settled())
        shipper = Shipper(
            log,
            feedback_tables(options.workspace, name),
            every=options.ship_every,
            report=_log.warning,
            collect=options.collect_logs,
        )
        with _listen(options.host, options.port) as listener:
            shipper.start()
            try:
                service = _service(holder, log, recent, alone=not options.collect_logs)
                # What was loaded stays: the collector need not walk through it while requests wait.
                gc.freeze()
                uvloop.run(_begin(options, service, holder, listener, announce, traces))
            finally:
                shipper.stop()
    finally:
        log.close()
        if traces is not None:
            traces.close()


def _service(holder: ModelHolder, log: FeedbackLog, recent: RecentPredictions, *, alone: bool) -> Service:
    metrics = Metrics()
    predictor = Predictor(log, recent, metrics, lambda: holder.candidate, lambda: holder.copies)
    return Service(holder, log, recent, predictor, metrics, alone=alone)


def _model_name(model: str) -> str:
    return model if re.match(NAME_PATTERN, model) else load_contract(model).contract.name


def _default_log_folder(workspace: Workspace, name: str) -> Path:
    if not workspace.is_local:
        raise UsageError(
            "The feedback log needs a folder on a local disk, and the workspace is none.",
            remedy="Name one: --log-folder FOLDER",
        )
    return workspace.folder / "serving" / name / "feedback-log"


def _open_model(options: ServeOptions, name: str, log: FeedbackLog) -> ModelHolder:
    workspace = options.workspace
    trust = options.trust or open_trust_root(workspace)
    if options.bundle is not None:
        digest: str | None = find_bundle(workspace, options.bundle)
    else:
        digest = read_pointer(workspace, options.environment, name).digest
    if digest is None:
        raise BundleError(
            f"The environment {options.environment!r} serves no bundle of {name!r} yet.",
            remedy=f"Train one that passes its gates: seatrial train {name}",
        )
    model = load_model(workspace, name, digest, trust)
    followed = None if options.bundle else options.environment
    return ModelHolder(workspace, trust, model, followed, log, predictor=options.predictor)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"The server cannot listen at {host}:{port}: {error}.", remedy="Choose another port: --port 0"
        ) from None
    listener.setblocking(False)
    return listener


async def _begin(
    options: ServeOptions,
    service: Service,
    holder: ModelHolder,
    listening: socket.socket,
    announce: Callable[[str], None],
    traces: Traces | None,
) -> None:
    if options.predictor == "candidate":
        with contextlib.suppress(SeatrialError):  # Its requests are the candidate's, the first one, too.
            await holder.look()
    await _run(options, service, holder, listening, announce, traces)


async def _run(
    options: ServeOptions,
    service: Service,
    holder: ModelHolder,
    listening: socket.socket,
    announce: Callable[[str], None],
    traces: Traces | None,
) -> None:
    address = _address(listening)
    application = Application(service, traces)
    listener = Listener(
        application.handle,
        application.body_limit,
        application.too_long,
        application.malformed,
        Limits(connections=_most_connections()),
    )
    calls = None if options.grpc_port is None else _open_grpc(service, options, traces)
    _watch(service, holder, listener)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end(drain: float) -> None:
        service.draining = listener.draining = True
        if calls is not None:
            calls.drain()
        loop.call_later(drain, stop.set)

    loop.add_signal_handler(signal.SIGINT, end, 0.0)
    loop.add_signal_handler(signal.SIGTERM, end, options.drain)
    background = [asyncio.create_task(holder.follow(options.look_every))]
    if options.parent is not None:
        background.append(asyncio.create_task(_stop_with(options.parent, end)))
    if options.address_file is not None:
        _write_address(options.address_file, address)
    said = f"Serving {holder.name} (bundle {holder.current.digest[:12]}) at {address}/v2/models/{holder.name}"
    announce(said if calls is None else f"{said} and, over gRPC, at port {calls.port}")
    speaking = None if calls is None else asyncio.create_task(calls.run(stop))
    try:
        with watching(lambda: listener.now, options.hang_limit):
            await listener.run(listening, stop)
        if speaking is not None:
            await speaking
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        holder.stop()
        if options.address_file is not None:
            options.address_file.unlink(missing_ok=True)


def _open_grpc(service: Service, options: ServeOptions, traces: Traces | None) -> GrpcServer:
    # The library is large; whoever speaks REST alone does not load it.
    from seatrial.server.grpc_server import GrpcServer

    return GrpcServer(service, options.host, options.grpc_port or 0, traces)


def _most_connections() -> int:
    """As many as there are file descriptors for, with some left for files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(min(Limits.connections, soft - OTHER_FILES), 1)


def _watch(service: Service, holder: ModelHolder, listener: Listener) -> None:
    metrics, predictor = service.metrics, service.predictor
    metrics.watch("connections", lambda: len(listener.connections))
    metrics.watch("refused_connections_total", lambda: listener.refused)
    metrics.watch("waiting_requests", lambda: predictor.waiting)
    metrics.watch("shed_total", lambda: predictor.shed)
    metrics.watch("learned_rows", lambda: len(holder.learned))
    counts = holder.counts
    metrics.watch("candidate_weight", lambda: holder.candidate.stage.weight if holder.candidate else 0)
    metrics.watch("candidate_compared_rows_total", lambda: counts.compared)
    metrics.watch("candidate_answered_rows_total", lambda: counts.answered)
    metrics.watch("candidate_failed_rows_total", lambda: counts.failed)
    metrics.watch("candidate_dropped_rows_total", lambda: counts.dropped)
    metrics.identify(lambda: {"name": holder.name, "bundle": holder.current.digest})
    log = service.log
    if log is not None:
        metrics.watch("log_waiting_records", lambda: log.waiting)
        metrics.watch("log_bytes", lambda: log.held_bytes)
        metrics.watch("log_segments", lambda: len(log.segments()))
        metrics.watch("log_unsynced_total", lambda: log.unsynced)
        metrics.watch("log_unrecorded_rows_total", lambda: predictor.unrecorded)
        metrics.watch("feedback_unshipped_seconds", lambda: log.unshipped_seconds)


async def _stop_with(parent: int, end: Callable[[float], None]) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 -- the end of a parent is no event of this loop
        await asyncio.sleep(PARENT_SECONDS)
    _log.warning("The process that started the server has ended; the server stops.")
    end(0.0)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _write_address(path: Path, address: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    partial.write_text(address)
    partial.replace(path)
