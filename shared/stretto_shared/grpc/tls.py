"""Certificates from settings to gRPC credentials, and who a peer is by its certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc_health.v1 import health

from stretto_shared.errors import PermissionDenied
from stretto_shared.grpc.call import Layer, ServedCall
from stretto_shared.grpc.certificates import CertificatePaths, Certificates, WatchedCertificates
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings

HEALTH = health.SERVICE_NAME


def server_credentials(
    settings: GrpcSettings, *, metrics: Metrics | None = None, log: Any = None
) -> grpc.ServerCredentials | None:
    """Credentials of a server: TLS, or mTLS when client authorities are set; None for plain text.

    Each new connection gets the certificate that the files hold by then; those that stand keep theirs.

    Raises:
        NotReady: If a file cannot be read, or they do not belong together.
    """
    if settings.tls_cert_path is None or settings.tls_key_path is None:
        return None
    paths = CertificatePaths("server", settings.tls_cert_path, settings.tls_key_path, settings.tls_client_ca_path)
    watched = WatchedCertificates(paths, metrics=metrics, log=log)
    served = watched.latest()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        if (latest := watched.latest()) is served:
            return None
        served = latest
        return _server_configuration(latest)

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(served), renewed, require_client_authentication=paths.authorities is not None
    )


def watched_certificates(
    settings: ChannelSettings, *, metrics: Metrics | None = None, log: Any = None
) -> WatchedCertificates | None:
    """The certificates of a channel; None for plain text.

    Raises:
        NotReady: If a file cannot be read, or they do not belong together.
    """
    if not settings.tls and settings.tls_ca_path is None and settings.tls_cert_path is None:
        return None
    paths = CertificatePaths("client", settings.tls_cert_path, settings.tls_key_path, settings.tls_ca_path)
    return WatchedCertificates(paths, metrics=metrics, log=log)


def channel_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """Credentials of a channel; without authorities it trusts the system's."""
    return grpc.ssl_channel_credentials(
        root_certificates=certificates.authorities,
        private_key=certificates.key,
        certificate_chain=certificates.certificate,
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


def _server_configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.certificate)], root_certificates=certificates.authorities
    )
