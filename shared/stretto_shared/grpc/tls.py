"""Certificates from settings to gRPC credentials."""

from __future__ import annotations

from pathlib import Path

import grpc

from stretto_shared.errors import NotReady
from stretto_shared.grpc.settings import ChannelSettings, GrpcSettings


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


def _read(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReady(f"{field}: cannot read '{path}' ({error.strerror}). Give the path of a PEM file.") from error
