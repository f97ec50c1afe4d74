"""gRPC's calls that stay open: who watches the server's health, and who asks what is spoken here.

A stream holds one of the server's places for as long as its client likes. So there are few of them, beside the places
for predictions; one that asks what is spoken here and then is silent is ended; and all end with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection, reflection_pb2

from seatrial.errors import RequestError
from seatrial.server.messages import HEALTH, POOL

STREAMS = 32
"""Streams that may be open at once."""
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The names by which clients ask what is spoken here; both have the same messages."""
_STATES = HEALTH["HealthCheckResponse"].DESCRIPTOR.fields_by_name["status"].enum_type.values_by_name
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    _STATES[name].number for name in ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
)


class Streams:
    """Answers the calls that stay open.

    Args:
        services: The names of the services that are there.
        draining: Says whether the server is about to end.
        seconds: How long a client that asks what is spoken here may be silent.
    """

    def __init__(self, services: frozenset[str], draining: Callable[[], bool], seconds: float) -> None:
        self._services = services
        self._draining = draining
        self._seconds = seconds
        self._open = 0
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._reflection = reflection.aio.ReflectionServicer((*services, *REFLECTION), pool=POOL)

    def state(self, service: str) -> int:
        """Return a service's state; an empty name is the server's as a whole."""
        if service and service not in self._services:
            return int(SERVICE_UNKNOWN)
        return int(NOT_SERVING if self._draining() else SERVING)

    def tell(self) -> None:
        """Tell those who watch that the server is about to end."""
        self._changed.set()

    def end(self) -> None:
        """End all streams."""
        self._changed.set()
        self._ended.set()

    async def watch(self, message: Any, context: grpc.aio.ServicerContext) -> None:
        """Tell a service's state now, and again when it changes.

        Raises:
            RequestError: with status 429, if too many streams are open.
        """
        with self._place():
            told = self.state(message.service)
            await context.write(_health(told))
            await self._changed.wait()
            if self.state(message.service) != told:
                await context.write(_health(self.state(message.service)))
            await self._ended.wait()

    async def reflect(self, context: grpc.aio.ServicerContext) -> None:
        """Answer what a client asks about services and messages, question by question.

        Raises:
            RequestError: with status 429, if too many streams are open; with 408, if the client is silent.
        """
        with self._place():
            async for answer in self._reflection.ServerReflectionInfo(self._questions(context), context):
                await context.write(answer.SerializeToString())

    async def _questions(self, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        while not self._ended.is_set():
            try:
                content = await asyncio.wait_for(context.read(), self._seconds)
            except TimeoutError:
                raise RequestError(
                    f"No question came within {self._seconds:g} seconds.", status=408
                ) from None
            if not isinstance(content, bytes):
                return
            try:
                yield reflection_pb2.ServerReflectionRequest.FromString(content)
            except DecodeError as error:
                raise RequestError(f"The message must be a ServerReflectionRequest. {error}.") from None

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= STREAMS:
            raise RequestError(
                f"{STREAMS} streams are open already.", status=429, remedy="Use Check, or try again later."
            )
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


def _health(state: int) -> bytes:
    content: bytes = HEALTH["HealthCheckResponse"](status=state).SerializeToString()
    return content
