"""OpenTelemetry traces: where the time of one request went, beside what other services did for the same user.

They are sent where the standard environment variables say so (``OTEL_EXPORTER_OTLP_ENDPOINT``), by OpenTelemetry's
own SDK, which is not even imported otherwise. A request's span goes on with the trace that its client names
(``traceparent``); its parts are children: the wait for a batch, the model, the log. A batch answers many requests,
so parts are measured once and told to each of them afterwards.

Ended spans wait in a bounded queue that a thread sends; a receiver that is slow or gone costs spans, never answers.
No attribute is anything that a client sent.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from seatrial.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_END_SECONDS = 2.0
"""How long the server's end may wait for the last spans to be sent."""

Attributes = Mapping[str, str | int]


class Trace:
    """The span of one request that is being answered, and how it gets its parts.

    Args:
        tracer: Makes spans.
        span: The request's.
        context: In which the request's span is the parent.
    """

    __slots__ = ("_context", "_span", "_tracer", "asked")

    def __init__(self, tracer: Tracer, span: Span, context: Context) -> None:
        self._tracer = tracer
        self._span = span
        self._context = context
        self.asked = 0
        """When a prediction was asked for, in nanoseconds since 1970."""

    def part(self, name: str, began: int, ended: int, attributes: Attributes | None = None) -> None:
        """Tell what a part of the request took.

        Args:
            name: The part's name.
            began: In nanoseconds since 1970.
            ended: Likewise.
            attributes: What else is known of it.
        """
        self._tracer.start_span(
            name, context=self._context, start_time=began, attributes=dict(attributes or {})
        ).end(end_time=ended)

    def end(self, attributes: Attributes, *, failed: bool) -> None:
        """End the request's span.

        Args:
            attributes: How the request was answered.
            failed: Whether that was the server's fault.
        """
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(dict(attributes))
        if failed:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


_CURRENT: ContextVar[Trace | None] = ContextVar("trace", default=None)

current_trace = _CURRENT.get
"""Return the trace of the request that is being worked at, or None."""


@contextlib.contextmanager
def tracing(trace: Trace | None) -> Iterator[None]:
    """Work at a request within the ``with`` block; what is begun there in a task or a thread belongs to it, too."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Tell the request's trace, if it has one, what the ``with`` block took."""
    trace, began = current_trace(), time.time_ns()
    try:
        yield
    finally:
        if trace is not None:
            trace.part(name, began, time.time_ns())


class Traces:
    """Begins traces, and has them sent.

    Args:
        provider: OpenTelemetry's own part that makes spans and has them sent.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate, trace

        self._provider = provider
        self._tracer = provider.get_tracer("seatrial.server")
        self._extract = propagate.extract
        self._kind = trace.SpanKind.SERVER
        self._in_context = trace.set_span_in_context

    def begin(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Trace | None:
        """Begin the span of a request.

        Args:
            name: Its name, of which there are few.
            headers: What the client sent beside the request, by names in lower case; may name its trace.
            attributes: What is known of the request.

        Returns:
            The trace, or None if this request is not sampled.
        """
        context = self._extract(headers)
        span = self._tracer.start_span(
            name, context=context, kind=self._kind, attributes=dict(attributes), start_time=time.time_ns()
        )
        return Trace(self._tracer, span, self._in_context(span, context)) if span.is_recording() else None

    def close(self) -> None:
        """Send what waits, if that does not take long."""
        # A receiver that does not answer would hold up the end for as long as the exporter's own time limits.
        closing = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        closing.start()
        closing.join(_END_SECONDS)


def open_traces(service: str) -> Traces | None:
    """Open what the environment asks for.

    Args:
        service: The service's name in the traces, where the environment gives none.

    Returns:
        What begins traces, or None if the environment names no receiver.

    Raises:
        UsageError: if the environment asks for another protocol than OTLP over HTTP.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS) or not _is_on():
        return None
    asked = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
    if asked != _PROTOCOL:
        raise UsageError(
            f"Traces are sent by OTLP over {_PROTOCOL} only. Got {asked!r} as {' or '.join(_PROTOCOLS)}.",
            remedy=f"Leave the variable out, and name the receiver's port for {_PROTOCOL}, by default 4318.",
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = os.environ.get("OTEL_SERVICE_NAME") or f"{SERVICE_NAME}=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create(None if named else {SERVICE_NAME: service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


def _is_on() -> bool:
    """Whether the environment, which names a receiver, does not say elsewhere that nothing is to be sent."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "none"
