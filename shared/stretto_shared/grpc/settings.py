"""The environment of the gRPC shell: `STRETTO_GRPC_*` for servers, `STRETTO_CHANNEL_*` for channels."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class GrpcSettings(BaseSettings):
    """How a server listens, limits, drains and reports."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_GRPC_", frozen=True, use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen on. A container needs `0.0.0.0` or `[::]`."""

    port: int = Field(default=50051, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    max_receive_bytes: int = Field(default=64 * MEBIBYTE, ge=1024)
    """Largest message taken or sent; a larger one fails with RESOURCE_EXHAUSTED."""

    max_concurrent_streams: int = Field(default=256, ge=1)
    """RPCs at once on one connection; a client holds further ones back."""

    default_deadline_s: float = Field(default=600.0, ge=0)
    """Deadline of a request that comes without one, so that a stream which was opened and forgotten gives its place
    back. 0 gives it none: then such a stream holds its place until its client goes away."""

    keepalive_time_s: float = Field(default=30.0, gt=0)
    """A silent connection is pinged after this time."""

    keepalive_timeout_s: float = Field(default=10.0, gt=0)
    """A ping without an answer closes the connection after this time."""

    max_connection_age_s: float = Field(default=300.0, ge=0)
    """Connections are asked to reconnect after this time, so that clients see new replicas; 0 never asks."""

    drain_s: float = Field(default=30.0, ge=0)
    """How long a stopping server lets requests in flight finish before it cancels them."""

    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the Prometheus page; 0 serves none."""

    metrics_host: str = ""
    """Address of the Prometheus page; empty takes `host`."""

    tls_cert_path: Path | None = None
    """The server's certificate chain, PEM. Set together with `tls_key_path`; unset serves plain text."""

    tls_key_path: Path | None = None
    """The private key of `tls_cert_path`, PEM."""

    tls_client_ca_path: Path | None = None
    """Authorities of client certificates, PEM. Set: every client must show a certificate (mTLS)."""

    tls_client_names: str = ""
    """Whom to serve of those with a certificate: common or DNS names, with commas, for example `stretto-orchestrator`.
    Empty serves all of them. Set only together with `tls_client_ca_path`."""

    health_port: int = Field(default=0, ge=0, le=65535)
    """Port that answers health in plain text and nothing else, for probes that speak no TLS, as Kubernetes' own; 0
    opens none. `port` answers health too."""

    health_host: str = ""
    """Address of the health port; empty takes `host`."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe line to write. Health and reflection calls are written at `debug`."""

    log_json: bool = False
    """One JSON object a line instead of console text."""

    otlp_endpoint: str = ""
    """OTLP collector for spans, as `http://host:4317`; empty exports none."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> GrpcSettings:
        if (self.tls_cert_path is None) != (self.tls_key_path is None):
            raise ValueError("tls_cert_path and tls_key_path belong together. Set both, or neither.")
        if self.tls_client_ca_path is not None and self.tls_cert_path is None:
            raise ValueError("tls_client_ca_path needs tls_cert_path and tls_key_path. Set all three for mTLS.")
        if self.tls_client_names and self.tls_client_ca_path is None:
            raise ValueError("tls_client_names needs tls_client_ca_path. Set it, or unset the names.")
        return self

    @property
    def client_names(self) -> frozenset[str]:
        """`tls_client_names` one by one."""
        return frozenset(name.strip() for name in self.tls_client_names.split(",") if name.strip())


class ChannelSettings(BaseSettings):
    """How a channel finds, watches and retries its servers."""

    model_config = SettingsConfigDict(env_prefix="STRETTO_CHANNEL_", frozen=True, use_attribute_docstrings=True)

    max_receive_bytes: int = Field(default=64 * MEBIBYTE, ge=1024)
    """Largest message taken or sent."""

    keepalive_time_s: float = Field(default=10.0, ge=1)
    """A silent connection is pinged after this time, also between calls."""

    keepalive_timeout_s: float = Field(default=5.0, gt=0)
    """A ping without an answer closes the connection after this time."""

    max_attempts: int = Field(default=4, ge=1, le=5)
    """Tries of a call that fails with UNAVAILABLE before its first response; 1 never retries."""

    initial_backoff_s: float = Field(default=0.1, gt=0)
    """Mean wait before the second try; it doubles with each try, up to 2 s."""

    health_checking: bool = True
    """Send calls only to servers whose health is SERVING. Never applies to unix sockets."""

    health_service: str = ""
    """Full name of the service whose health decides; empty asks for the whole server's."""

    tls: bool = False
    """Encrypt, trusting the system's authorities; implied by the paths below."""

    tls_ca_path: Path | None = None
    """Authorities of server certificates, PEM."""

    tls_cert_path: Path | None = None
    """The client's own certificate chain for mTLS, PEM. Set together with `tls_key_path`."""

    tls_key_path: Path | None = None
    """The private key of `tls_cert_path`, PEM."""

    tls_server_name: str = ""
    """Name expected in the server's certificate where it differs from the address."""

    api_key: SecretStr = SecretStr("")
    """The key that the server asks for, sent with every call. Anybody between can read it unless TLS is on."""

    api_key_path: Path | None = None
    """A file that holds the key, in place of `api_key`."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> ChannelSettings:
        if (self.tls_cert_path is None) != (self.tls_key_path is None):
            raise ValueError("tls_cert_path and tls_key_path belong together. Set both, or neither.")
        if self.api_key.get_secret_value() and self.api_key_path is not None:
            raise ValueError("api_key and api_key_path are two places for one key. Unset one of them.")
        return self
