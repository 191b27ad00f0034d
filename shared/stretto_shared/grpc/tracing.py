"""OpenTelemetry spans: one server span for each RPC, its parent taken from the caller's metadata.

Departure from the contributed interceptors: the status is right also after an abort. As the semantic conventions say
of server spans, only codes that are the server's fault set ERROR; the code itself is always an attribute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stretto_shared.errors import NotReady
from stretto_shared.grpc.call import ServedCall

_SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Tracing:
    """The spans of one server; nothing global is touched.

    Args:
        service_name: What the spans call this process, for example `stretto-codec`.
        otlp_endpoint: Collector to export to; empty exports nothing, but still passes trace ids on.
        exporter: A further exporter, which gets each span at once.

    Raises:
        NotReady: If an endpoint is set and the exporter's package is not installed.
    """

    def __init__(self, service_name: str, otlp_endpoint: str = "", exporter: SpanExporter | None = None) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service_name}), shutdown_on_exit=False
        )
        if otlp_endpoint:
            self._provider.add_span_processor(BatchSpanProcessor(_otlp_exporter(otlp_endpoint)))
        if exporter is not None:
            self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("stretto_shared.grpc")

    @asynccontextmanager
    async def around(self, call: ServedCall) -> AsyncIterator[None]:
        """The layer that runs one RPC inside its span."""
        if call.is_infrastructure:
            yield
            return
        parent = TraceContextTextMapPropagator().extract(call.metadata)
        span = self._tracer.start_span(
            call.method.removeprefix("/"),
            parent,
            kind=trace.SpanKind.SERVER,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": call.service,
                "rpc.method": call.method.rpartition("/")[2],
                "stretto.request_id": call.request_id,
            },
        )
        token = otel_context.attach(trace.set_span_in_context(span))
        call.on_first_response = lambda: span.add_event("first_response")  # first frames, first audio
        try:
            yield
        finally:
            otel_context.detach(token)
            span.set_attribute("stretto.response_count", call.num_responses)
            span.set_attribute("rpc.grpc.status_code", call.code.value[0])
            if call.reason:
                span.set_attribute("stretto.error_reason", call.reason)
            if call.code in _SERVER_FAULTS:
                span.set_status(trace.StatusCode.ERROR, call.reason or call.code.name)
            span.end()

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def outgoing_trace_headers() -> dict[str, str]:
    """The W3C headers that carry the current span to the next service; empty outside of a span."""
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def trace_ids() -> dict[str, str]:
    """The trace that the running RPC belongs to, as `{"trace_id": …}`, to find its log lines by; empty outside."""
    context = trace.get_current_span().get_span_context()
    return {"trace_id": trace.format_trace_id(context.trace_id)} if context.is_valid else {}


def _otlp_exporter(endpoint: str) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise NotReady("otlp_endpoint is set, but the exporter is missing. Install stretto-shared[otlp].") from error
    return OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https"))
