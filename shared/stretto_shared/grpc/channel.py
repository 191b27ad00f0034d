"""Channels to other services: round robin over healthy servers, retries, keepalive, and the caller's own context.

A call made while an RPC is being served carries that RPC's remaining time as its deadline (never a longer one than
asked for), its trace context and its request id.

Methods that take a stream are never retried by the channel: gRPC (grpcio 1.85.3) loses messages that are sent around
the moment of a retry, without an error, or ends the process (`ILLEGAL STATE: FORWARDED_BATCH`,
https://github.com/grpc/grpc/issues/40283). Who sends a stream opens it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
from stretto.acoustic.v1 import acoustic_pb2
from stretto.codec.v1 import codec_pb2
from stretto.embedding.v1 import embedding_pb2
from stretto.harmony.v1 import harmony_pb2
from stretto.orchestrator.v1 import orchestrator_pb2
from stretto.semantic.v1 import semantic_pb2
from stretto.transcriber.v1 import transcriber_pb2

from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.api_keys import headers_of
from stretto_shared.grpc.call import REQUEST_ID_KEY, current_call
from stretto_shared.grpc.certificates import Certificates
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.renewal import RenewedChannel
from stretto_shared.grpc.settings import ChannelSettings
from stretto_shared.grpc.tls import channel_credentials, watched_certificates
from stretto_shared.grpc.tracing import outgoing_trace_headers

MAX_BACKOFF_S = 2.0
SERVICES = tuple(
    service
    for file in (acoustic_pb2, codec_pb2, embedding_pb2, harmony_pb2, orchestrator_pb2, semantic_pb2, transcriber_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
)
"""Every service of the wire."""
_STREAMED_TO = [
    {"service": service.full_name, "method": method.name}
    for service in SERVICES
    for method in service.methods
    if method.client_streaming
]
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "passthrough:")


def open_channel(
    address: str, settings: ChannelSettings | None = None, *, metrics: Metrics | None = None, log: Any = None
) -> grpc.aio.Channel:
    """A channel to every server behind an address. Nothing connects before the first call; close it when done.

    Args:
        address: `host:port`, `dns:///name:port` (all addresses of the name), `ipv4:a:1,b:2`, or `unix:/path`.
        settings: How to find, watch and retry; None takes them from the environment.
        metrics: Gets the expiry of the channel's own certificate, which is taken up anew when its files change.
        log: Gets what becomes of changed certificates.

    Raises:
        InvalidInput: If the address is empty or has no port, or what is set as the API key cannot be one.
        NotReady: If a certificate or the file of the API key cannot be read, or a certificate has another key.
    """
    settings = settings if settings is not None else ChannelSettings()
    target = _target(address)
    is_local = target.startswith("unix")
    options = _options(settings, health_checking=settings.health_checking and not is_local)
    headers = headers_of(settings)
    watched = None if is_local else watched_certificates(settings, metrics=metrics, log=log)
    if watched is None:
        return PropagatingChannel(grpc.aio.insecure_channel(target, options=options), headers)

    def open_secure(certificates: Certificates) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(target, channel_credentials(certificates), options=options)

    return PropagatingChannel(RenewedChannel(watched, open_secure), headers)


def _target(address: str) -> str:
    if address.startswith(_SCHEMES):
        return address
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput("address", f"expected host:port, dns:///name:port or unix:/path, got '{address}'.")
    return f"dns:///{address}"


def _options(settings: ChannelSettings, *, health_checking: bool) -> list[tuple[str, Any]]:
    service_config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if health_checking:
        service_config["healthCheckConfig"] = {"serviceName": settings.health_service}
    if settings.max_attempts > 1:
        retry_policy = {
            "maxAttempts": settings.max_attempts,
            "initialBackoff": f"{settings.initial_backoff_s}s",
            "maxBackoff": f"{MAX_BACKOFF_S}s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        service_config["methodConfig"] = [{"name": [{}], "retryPolicy": retry_policy}, {"name": _STREAMED_TO}]
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.max_receive_message_length", settings.max_receive_bytes),
        ("grpc.max_send_message_length", settings.max_receive_bytes),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        # A peer whose kernel still acknowledges while its process hangs is found out by this one, else after a minute.
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 5_000),  # also how long one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if settings.tls_server_name:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return options


class PropagatingChannel(grpc.aio.Channel):  # type: ignore[misc]  # grpc has no types
    """A channel whose calls carry the deadline, trace and request id of the RPC being served, and its own headers.

    A wrapper and not a client interceptor: those of `grpc.aio` put a task and a queue around every stream.
    """

    def __init__(self, channel: grpc.aio.Channel, headers: Mapping[str, str] | None = None) -> None:
        self._channel = channel
        self._headers = dict(headers or {})

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return _propagating(self._channel.unary_unary(*args, **kwargs), self._headers)

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return _propagating(self._channel.unary_stream(*args, **kwargs), self._headers)

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return _propagating(self._channel.stream_unary(*args, **kwargs), self._headers)

    def stream_stream(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """See `grpc.aio.Channel`."""
        return _propagating(self._channel.stream_stream(*args, **kwargs), self._headers)

    async def close(self, grace: float | None = None) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See `grpc.aio.Channel`."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See `grpc.aio.Channel`."""
        await self._channel.channel_ready()

    async def __aenter__(self) -> PropagatingChannel:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _propagating(call: Callable[..., Any], headers: Mapping[str, str]) -> Callable[..., Any]:
    def start(*args: Any, timeout: float | None = None, metadata: Any = None, **kwargs: Any) -> Any:
        return call(*args, timeout=_timeout_s(timeout), metadata=_metadata(metadata, headers), **kwargs)

    return start


def _timeout_s(asked_s: float | None) -> float | None:
    served = current_call()
    remaining_s = None if served is None else served.remaining_s
    if remaining_s is None:
        return asked_s
    return remaining_s if asked_s is None else min(asked_s, remaining_s)


def _metadata(given: Sequence[tuple[str, Any]] | None, headers: Mapping[str, str]) -> list[tuple[str, Any]]:
    metadata = list(given or ())
    keys = {key for key, _ in metadata}
    served = current_call()
    extra = {} if served is None else {REQUEST_ID_KEY: served.request_id, **outgoing_trace_headers()}
    metadata.extend((key, value) for key, value in {**headers, **extra}.items() if key not in keys)
    return metadata
