"""Prometheus metrics of one server: every RPC, and what its engines add. One registry a server, nothing global."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from stretto_shared.grpc.call import ServedCall

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
Kind = TypeVar("Kind", Counter, Gauge, Histogram)
RTF_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, 8.0)


class Metrics:
    """A registry that hands out counters, gauges and histograms by name; the same name gives the same one.

    Durations are in seconds and end in `_s`, as everywhere in Stretto.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._made: dict[str, Counter | Gauge | Histogram] = {}
        self._lock = threading.Lock()

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """A number that only grows; Prometheus appends `_total` to its name."""
        return self._make(Counter, name, documentation, labels)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """A number that goes up and down."""
        return self._make(Gauge, name, documentation, labels)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = LATENCY_BUCKETS_S,
    ) -> Histogram:
        """A distribution; `buckets` are upper bounds, in rising order."""
        return self._make(Histogram, name, documentation, labels, buckets=tuple(buckets))

    def stage(self, stage: str) -> StageMetrics:
        """What the engine of one stage, by service name, reports."""
        return StageMetrics(self, stage)

    def _make(self, kind: type[Kind], name: str, documentation: str, labels: Sequence[str], **options: Any) -> Kind:
        with self._lock:
            if name not in self._made:
                self._made[name] = kind(name, documentation, tuple(labels), registry=self.registry, **options)
            return cast(Kind, self._made[name])


class StageMetrics:
    """The numbers that only an engine knows, each labelled with its stage. Cheap and safe from any thread."""

    def __init__(self, metrics: Metrics, stage: str) -> None:
        label = ("stage",)
        self._waiting = metrics.gauge(
            "stretto_stage_waiting_requests",
            "Requests that wait in the stage's queue now; in embedding, the texts and melodies of requests",
            label,
        ).labels(stage)
        self._queue_wait = metrics.histogram(
            "stretto_request_queue_wait_s",
            "Seconds between a request's arrival and the start of its work; in embedding, of each text and melody",
            label,
        ).labels(stage)
        self._first_audio = metrics.histogram(
            "stretto_audio_ttfp_s",
            "Seconds between a request's arrival, in codec that of its first chunk's frames, and its first audio",
            label,
        ).labels(stage)
        self._rtf = metrics.histogram(
            "stretto_audio_rtf", "Seconds of work for one second of audio", label, RTF_BUCKETS
        ).labels(stage)

    def watch_waiting(self, count_waiting: Callable[[], int]) -> None:
        """Ask how many requests wait whenever somebody looks, so that also those who gave up are gone at once.

        Args:
            count_waiting: Called by the thread of the metrics page.
        """
        self._waiting.set_function(count_waiting)

    def observe_queue_wait(self, wait_s: float) -> None:
        """How long one request waited for its work to start."""
        self._queue_wait.observe(wait_s)

    def observe_first_audio(self, latency_s: float) -> None:
        """How long one request waited for its first audio."""
        self._first_audio.observe(latency_s)

    def observe_rtf(self, real_time_factor: float) -> None:
        """How much work one second of audio took."""
        self._rtf.observe(real_time_factor)


class RpcMetrics:
    """The layer that counts and times every RPC by method and code."""

    def __init__(self, metrics: Metrics) -> None:
        self._started = metrics.counter("stretto_rpc_started", "RPCs begun", ("method",))
        self._handled = metrics.counter("stretto_rpc_handled", "RPCs ended, by code", ("method", "code"))
        self._latency = metrics.histogram("stretto_rpc_latency_s", "Seconds from begin to end", ("method", "code"))
        self._in_flight = metrics.gauge("stretto_rpc_in_flight", "RPCs being served now", ("method",))
        self._responses = metrics.counter("stretto_rpc_response_messages", "Messages sent", ("method",))

    @asynccontextmanager
    async def around(self, call: ServedCall) -> AsyncIterator[None]:
        """Count one RPC."""
        self._started.labels(call.method).inc()
        in_flight = self._in_flight.labels(call.method)
        in_flight.inc()
        try:
            yield
        finally:
            in_flight.dec()
            self._handled.labels(call.method, call.code.name).inc()
            self._latency.labels(call.method, call.code.name).observe(call.elapsed_s)
            self._responses.labels(call.method).inc(call.num_responses)


class MetricsPage:
    """The page that Prometheus scrapes, served by a thread of its own until `close`."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        self._server: WSGIServer
        self._server, self._thread = start_http_server(port, addr=host.strip("[]"), registry=metrics.registry)

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
