"""One gRPC server for one service or for all of them: start, health, limits, drain, stop.

The life of a server: bind the port (health NOT_SERVING), load every service at once in the background, turn each
SERVING as it is ready, serve; at a signal turn NOT_SERVING, refuse new calls, let those in flight finish, stop.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.sdk.trace.export import SpanExporter

from stretto_shared.errors import Conflict, NotReady
from stretto_shared.grpc.call import CallInterceptor, Layer, ServedCall
from stretto_shared.grpc.hosting import BuildService, HostContext, ServiceHost
from stretto_shared.grpc.logs import make_logger, rpc_logs
from stretto_shared.grpc.metrics import Metrics, MetricsPage, RpcMetrics
from stretto_shared.grpc.readiness import Readiness
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.settling import settle, switching_often
from stretto_shared.grpc.status import DeadlineExpired, typed_errors
from stretto_shared.grpc.tls import only_named_peers, server_credentials
from stretto_shared.grpc.tracing import Tracing

FLUSH_S = 5.0
INFRASTRUCTURE = (health.SERVICE_NAME, reflection.SERVICE_NAME, "grpc.channelz.v1.Channelz")


class StrettoServer:
    """A server for one or more services.

    Args:
        settings: How to listen, limit, drain and report.
        builders: The services to host, by name, as `load_builders` gives them.
        log: A structlog logger; None makes one from the settings.
        span_exporter: Gets every span at once, beside what the settings export.
        guarded: Whether the layers of the services hold; False for a server that only its own process can reach.
        owns_process: Whether the process is there for this server: then loading it is not to keep answers waiting.
    """

    def __init__(
        self,
        settings: GrpcSettings,
        builders: Mapping[str, BuildService],
        *,
        log: Any = None,
        span_exporter: SpanExporter | None = None,
        guarded: bool = True,
        owns_process: bool = False,
    ) -> None:
        self.metrics = Metrics()
        self._settings = settings
        self._builders = dict(builders)
        self._guarded = guarded
        self._owns_process = owns_process
        self._log = log if log is not None else make_logger(settings.log_level, as_json=settings.log_json)
        name = "stretto" if len(self._builders) != 1 else f"stretto-{next(iter(self._builders))}"
        self._tracing = Tracing(name, settings.otlp_endpoint, span_exporter)
        self._hosts: list[ServiceHost] = []
        self._loading: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._readiness: Readiness | None = None
        self._page: MetricsPage | None = None
        self._probed: grpc.aio.Server | None = None
        self._loopback_folder: tempfile.TemporaryDirectory[str] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Bind the port and begin to load the services in the background.

        Returns:
            The port that is bound.

        Raises:
            Conflict: If the server was started before.
            NotReady: If a port cannot be bound or a certificate cannot be read.
        """
        if self._server is not None:
            raise Conflict("The server was started before. Make a new one.")
        self._readiness = Readiness()
        try:
            loopback_address = self._open_loopback() if len(self._builders) > 1 else None
            context = HostContext(loopback_address=loopback_address, metrics=self.metrics, log=self._log)
            self._hosts = [build(context) for build in self._builders.values()]
            self._server = grpc.aio.server(
                interceptors=[CallInterceptor(self._layers(self._readiness))], options=_options(self._settings)
            )
            port = await self._bind(self._server, self._readiness, loopback_address)
        except BaseException:
            await self.stop()
            raise
        self._loading = asyncio.create_task(self._load(self._readiness))
        self._log.info("listening", address=f"{self._settings.host}:{port}", services=sorted(self._builders))
        return port

    async def wait_until_ready(self) -> None:
        """Wait until every service is SERVING.

        Raises:
            NotReady: If the server was not started, or is stopped while it loads.
            Exception: What the `start` of a service raised.
        """
        if self._loading is None:
            raise NotReady("The server was not started. Await start() first.")
        await asyncio.wait([self._loading])
        if self._loading.cancelled():
            raise NotReady("The server was stopped while it loaded.")
        self._loading.result()

    async def stop(self) -> None:
        """Turn health to NOT_SERVING, let calls in flight finish for `drain_s`, cancel the rest, stop the services."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def serve_until_signalled(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop. A second signal ends the process at once.

        Raises:
            Exception: What the `start` of a service raised; the server is stopped then.
        """
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        kinds = (signal.SIGTERM, signal.SIGINT)
        for kind in kinds:
            loop.add_signal_handler(kind, signalled.set)
        waiting = asyncio.create_task(signalled.wait())
        ready = asyncio.create_task(self.wait_until_ready())
        try:
            await asyncio.wait({waiting, ready}, return_when=asyncio.FIRST_COMPLETED)
            if not signalled.is_set():
                ready.result()
                await waiting
            self._log.info("stopping", drain_s=self._settings.drain_s)
        finally:
            for kind in kinds:
                loop.remove_signal_handler(kind)
            for task in (waiting, ready):
                task.cancel()
            await asyncio.gather(waiting, ready, return_exceptions=True)
            await self.stop()

    async def _bind(self, server: grpc.aio.Server, readiness: Readiness, loopback_address: str | None) -> int:
        """Register everything, bind every address and begin to answer."""
        for host in self._hosts:
            host.add_to_server(server)
        health_pb2_grpc.add_HealthServicer_to_server(readiness.health, server)
        channelz.add_channelz_servicer(server)
        reflection.enable_server_reflection([*(host.full_name for host in self._hosts), *INFRASTRUCTURE], server)
        server.add_generic_rpc_handlers(tuple(handler for host in self._hosts for handler in host.extra_handlers))
        await readiness.expect([host.full_name for host in self._hosts])
        port = self._bind_port(server)
        if self._settings.health_port:
            await self._serve_probes(readiness)
        if loopback_address is not None:
            server.add_insecure_port(loopback_address)
        if self._settings.metrics_port:
            self._page = self._serve_metrics()
        await server.start()
        return port

    def _bind_port(self, server: grpc.aio.Server) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        credentials = server_credentials(self._settings, metrics=self.metrics, log=self._log)
        try:
            if credentials is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise NotReady(f"Cannot listen on {address}. Is the port taken? Choose another.") from error
        if port == 0:
            raise NotReady(f"Cannot listen on {address}. Is the port taken? Choose another.")
        return int(port)

    async def _serve_probes(self, readiness: Readiness) -> None:
        """Answer health, and nothing else, on a port of its own in plain text."""
        settings = self._settings
        address = f"{settings.health_host or settings.host}:{settings.health_port}"
        self._probed = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(readiness.health, self._probed)
        try:
            self._probed.add_insecure_port(address)
        except RuntimeError as error:
            raise NotReady(f"Cannot answer health on {address}. Is the port taken? Choose another.") from error
        await self._probed.start()

    def _serve_metrics(self) -> MetricsPage:
        host, port = self._settings.metrics_host or self._settings.host, self._settings.metrics_port
        try:
            return MetricsPage(self.metrics, host, port)
        except OSError as error:
            raise NotReady(f"Cannot serve metrics on {host}:{port} ({error.strerror}). Choose another port.") from error

    def _open_loopback(self) -> str:
        """A unix socket that only this user can reach."""
        self._loopback_folder = tempfile.TemporaryDirectory(prefix="stretto-")
        return f"unix:{Path(self._loopback_folder.name) / 'loopback.sock'}"

    def _layers(self, readiness: Readiness) -> tuple[Layer, ...]:
        return (
            self._tracing.around,
            rpc_logs(self._log),
            RpcMetrics(self.metrics).around,
            readiness.in_flight,
            typed_errors(self._log),
            *((only_named_peers(names),) if (names := self._settings.client_names) else ()),
            *(layer for host in self._hosts for layer in host.layers if self._guarded),
            readiness.gate,
            _default_deadline(self._settings.default_deadline_s),
        )

    async def _load(self, readiness: Readiness) -> None:
        """Start every service at once; the first failure is raised when all have ended."""
        with switching_often() if self._owns_process else nullcontext():
            outcomes = await asyncio.gather(
                *(self._load_one(host, readiness) for host in self._hosts), return_exceptions=True
            )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _load_one(self, host: ServiceHost, readiness: Readiness) -> None:
        began_s = asyncio.get_running_loop().time()
        try:
            await host.start()
        except Exception as error:
            readiness.mark_failed(host.full_name)
            self._log.error("service_failed", service=host.name, exc_info=error)
            raise
        if self._owns_process:
            settle()
        await readiness.mark_serving(host.full_name)
        self._log.info("serving", service=host.name, load_s=round(asyncio.get_running_loop().time() - began_s, 3))

    async def _stop(self) -> None:
        if self._readiness is not None and self._server is not None:
            drained = await self._readiness.drain(self._settings.drain_s)
            if not drained:
                self._log.warning("drain_cut", drain_s=self._settings.drain_s)
            self._readiness.health.end_watches()
            await self._server.stop(FLUSH_S if drained else 0)
        if self._probed is not None:
            await self._probed.stop(0)
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        for host in reversed(self._hosts):
            try:
                await host.stop()
            except Exception as error:
                self._log.error("service_stop_failed", service=host.name, exc_info=error)
        if self._page is not None:
            await asyncio.to_thread(self._page.close)
        await asyncio.to_thread(self._tracing.close)
        if self._loopback_folder is not None:
            self._loopback_folder.cleanup()
        self._log.info("stopped")


def run(settings: GrpcSettings, builders: Mapping[str, BuildService]) -> None:
    """Serve until SIGTERM or SIGINT: what every `main.py` calls.

    Raises:
        Exception: What a service raised while it was built or loaded.
    """

    async def serve() -> None:
        server = StrettoServer(settings, builders, owns_process=True)
        await server.start()
        await server.serve_until_signalled()

    settle()
    asyncio.run(serve())


def _options(settings: GrpcSettings) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_receive_bytes),
        ("grpc.max_send_message_length", settings.max_receive_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout_s * 1000)),  # a hung process, as in channel.py
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 900),
    ]
    if settings.max_connection_age_s:
        options.append(("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)))
    return options


def _default_deadline(deadline_s: float) -> Layer:
    """The layer that gives a deadline to requests without one."""

    @asynccontextmanager
    async def around(call: ServedCall) -> AsyncIterator[None]:
        if not deadline_s or call.deadline_at_s is not None or call.is_infrastructure:
            yield
            return
        call.deadline_at_s = call.started_at_s + deadline_s
        limit = asyncio.timeout(deadline_s)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if limit.expired():
                raise DeadlineExpired from error
            raise

    return around
