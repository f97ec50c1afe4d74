"""Stands between a driver and Kubeflow's cache, which does not look at what it would take again.

A driver asks the API of Kubeflow Pipelines for an earlier step with the same code and inputs, and takes what that
one left. Here it asks this process instead, which asks the API and keeps to itself what is not as its step left it any
more: the driver then lets the step run, and what that leaves is what the next run is answered by. Nothing has been
written to the lineage by then; a driver that has decided cannot be asked again, as one step would be there twice.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seatrial.cluster_setup.entry import say
from seatrial.errors import SeatrialError
from seatrial.kubeflow_driver.driving import Door
from seatrial.kubeflow_driver.messages import MESSAGES

_LISTS = "/api.TaskService/ListTasksV1"
_HERE, _SECONDS = "127.0.0.1", 60.0

Check = Callable[[int], str]
"""Says why what a step left, by its id in the lineage, must not be taken again; nothing if it may.

It may raise :class:`seatrial.errors.SeatrialError` where that cannot be known.
"""


class CheckedCache:
    """Answers drivers as the API of Kubeflow Pipelines does, at an address of this machine alone.

    Args:
        pipelines: ``HOST:PORT`` of the API's gRPC.
        check: What is asked before an earlier step is named.
        at_once: How many drivers may ask at the same time.

    Attributes:
        door: Where drivers ask.
    """

    def __init__(self, pipelines: str, check: Check, *, at_once: int) -> None:
        import grpc

        class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]  # the library has no types
            def service(_, details: Any) -> Any:  # noqa: N805 -- the outer one is meant by `self`
                return grpc.unary_unary_rpc_method_handler(
                    lambda request, context: self._answer(details.method, request, context)
                )

        self._check, self._channel = check, grpc.insecure_channel(pipelines)
        self._server = grpc.server(
            ThreadPoolExecutor(at_once, thread_name_prefix="cache"), options=(("grpc.so_reuseport", 0),)
        )
        self._server.add_generic_rpc_handlers((Calls(),))
        self.door = Door(_HERE, self._server.add_insecure_port(f"{_HERE}:0"))
        self._server.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._server.stop(None).wait()
        self._channel.close()

    def _answer(self, call: str, request: bytes, context: Any) -> bytes:
        import grpc

        try:
            answer: bytes = self._channel.unary_unary(call)(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return self._without_changed(answer) if call == _LISTS else answer

    def _without_changed(self, answer: bytes) -> bytes:
        """The earlier step that was asked for, or an answer that names none."""
        tasks = MESSAGES["Tasks"].FromString(answer).tasks
        return answer if all(self._may_be_taken(task) for task in tasks) else b""

    def _may_be_taken(self, task: Any) -> bool:
        """Whether what an earlier step left may be taken again.

        Where that cannot be known the step runs, which costs time; whatever it waits for then, it says itself.
        """
        what = f"{task.pipelineName}: what run {task.runId} left as {task.mlmdExecutionID} is"
        try:
            why = self._check(int(task.mlmdExecutionID))
        except (SeatrialError, ValueError) as error:
            why = str(error)
        except Exception:  # noqa: BLE001 -- a fault of ours must neither fail a run nor let through what is not known
            why = traceback.format_exc()
        say(f"{what} not taken again: {why}" if why else f"{what} taken again")
        return not why
