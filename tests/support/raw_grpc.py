"""A gRPC server that answers each call with bytes, so that what a service said once can be said again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

Answers = Callable[[str, bytes], bytes | grpc.StatusCode]
"""The answer to a call, by its full name and what it was asked; or how it fails."""


@contextmanager
def answering(answers: Answers) -> Iterator[str]:
    """Serve at a free port of this machine, and yield ``HOST:PORT``."""

    def answer(call: str, request: bytes, context: Any) -> bytes:
        found = answers(call, request)
        if isinstance(found, grpc.StatusCode):
            context.abort(found, "told so")
        return bytes(found)

    class Calls(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: answer(details.method, request, context)
            )

    server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((Calls(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
