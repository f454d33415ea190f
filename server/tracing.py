"""Traces over OTLP/HTTP, when `OTLP_ENDPOINT` is set; nothing of OpenTelemetry is imported else.

A span per operation, named by its operationId, continues the caller's W3C `traceparent`; it is the
current span while the request runs. Attributes are names and numbers from the specs; no header,
query, body or user id is among them.
"""

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from server.lane.operation import Ended, Operation

if TYPE_CHECKING:
    from starlette.types import Scope


class Tracing:
    """Exports spans to `<endpoint>/v1/traces` in batches, from a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces")
        self._provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": "quartet",
                    "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
                }
            ),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("quartet")

    def operation(self, operation: Operation, scope: "Scope", request_id: bytes) -> Ended:
        """Begin the span of one request; what is returned ends it (server.lane Around.trace)."""
        from opentelemetry import trace
        from opentelemetry.context import attach
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        context = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span(
            operation.operation_id,
            context,
            SpanKind.SERVER,
            {
                "http.request.method": scope["method"],
                "http.route": operation.path,
                "quartet.request_id": request_id.decode("latin-1"),
            },
        )
        # Each request is a task of its own, and its context ends with it.
        attach(trace.set_span_in_context(span, context))

        def ended(status: int, seconds: float) -> None:
            del seconds
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return ended

    async def close(self) -> None:
        """Export what is left; waits at most 5 s for the collector."""
        await asyncio.to_thread(self._provider.force_flush, 5000)
        await asyncio.to_thread(self._provider.shutdown)
