"""Certificates from settings to gRPC credentials, and who a peer is by its certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health

from stretto_shared.errors import NotReady, PermissionDenied
from stretto_shared.grpc.call import Layer, ServedCall
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

HEALTH = health.SERVICE_NAME


def server_credentials(settings: GrpcSettings) -> grpc.ServerCredentials | None:
    """Credentials of a server: TLS, or mTLS when client authorities are set; None for plain text.

    Raises:
        NotReady: If a file cannot be read.
    """
    if settings.tls_cert_path is None or settings.tls_key_path is None:
        return None
    client_ca_path = settings.tls_client_ca_path
    return grpc.ssl_server_credentials(
        [(_read("tls_key_path", settings.tls_key_path), _read("tls_cert_path", settings.tls_cert_path))],
        root_certificates=None if client_ca_path is None else _read("tls_client_ca_path", client_ca_path),
        require_client_auth=client_ca_path is not None,
    )


def channel_credentials(settings: ChannelSettings) -> grpc.ChannelCredentials | None:
    """Credentials of a channel; None for plain text.

    Raises:
        NotReady: If a file cannot be read.
    """
    if not settings.tls and settings.tls_ca_path is None and settings.tls_cert_path is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=None if settings.tls_ca_path is None else _read("tls_ca_path", settings.tls_ca_path),
        private_key=None if settings.tls_key_path is None else _read("tls_key_path", settings.tls_key_path),
        certificate_chain=None if settings.tls_cert_path is None else _read("tls_cert_path", settings.tls_cert_path),
    )


def peer_names(call: ServedCall) -> tuple[str, ...]:
    """The names in the peer's certificate, which its authority vouches for: the common one first; none without one."""
    known = call.context.auth_context()
    values = [value for key in ("x509_common_name", "x509_subject_alternative_name") for value in known.get(key, ())]
    return tuple(dict.fromkeys(value.decode(errors="replace") for value in values))


def only_named_peers(names: frozenset[str]) -> Layer:
    """The layer that serves nobody but these, by any name in their certificate. Health is for all."""

    @asynccontextmanager
    async def around(call: ServedCall) -> AsyncIterator[None]:
        if not call.is_loopback and call.service != HEALTH and not names.intersection(peer_names(call)):
            raise PermissionDenied(
                "This service answers only those that its settings name. Call the orchestrator, or add the name in "
                "the certificate to STRETTO_GRPC_TLS_CLIENT_NAMES.",
                reason="PEER_NOT_NAMED",
            )
        yield

    return around


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReady(f"{field}: cannot read '{path}' ({error.strerror}). Give the path of a PEM file.") from error
