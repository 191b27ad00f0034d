"""The all-in-one server inside the caller's own process, for as long as a block runs: Stretto as SQLite is SQL.

Importing this module imports no service: they are found by their entry points when the server starts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stretto_shared.errors import NotReady
from stretto_shared.grpc.hosting import load_builders
from stretto_shared.grpc.logs import make_logger
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.setting_errors import named_settings
from stretto_shared.grpc.settings import GrpcSettings

DOOR = "orchestrator"
LOOPBACK_HOST = "127.0.0.1"


@asynccontextmanager
async def embedded_server() -> AsyncIterator[str]:
    """Start every installed service on a free loopback port, yield its address when all are ready, and stop it.

    Raises:
        NotReady: If the services are not installed in this environment, or one cannot load its models.
        InvalidSetting: If the environment holds a wrong setting of the server or of a service.
    """
    builders = load_builders(None)
    if DOOR not in builders:
        raise NotReady(no_services_message(list(builders)))
    with named_settings():
        settings = GrpcSettings(
            host=LOOPBACK_HOST,
            port=0,
            log_level="error",
            metrics_port=0,
            drain_s=1.0,
            tls_cert_path=None,
            tls_key_path=None,
            tls_client_ca_path=None,
            tls_client_names="",
            health_port=0,
        )
        log = _UnseenLog(make_logger(settings.log_level, as_json=False))
        server = StrettoServer(settings, builders, log=log, guarded=False)
        port = await server.start()
    try:
        await server.wait_until_ready()
        yield f"{LOOPBACK_HOST}:{port}"
    finally:
        await server.stop()


class _UnseenLog:
    """The server's log for people who do not know that there is a server: only what no exception tells them."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def error(self, event: str, **fields: Any) -> None:
        """Write an error, unless it is the one that `wait_until_ready` raises."""
        if event != "service_failed":
            self._log.error(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write nothing."""

    info = debug = warning


def no_services_message(installed: list[str]) -> str:
    """What to do where the door's service is missing."""
    have = ", ".join(sorted(installed)) or "none"
    return (
        f"No server is named and the services are not installed here (found: {have}). Name one with --address or "
        "STRETTO_ADDRESS, or install stretto-orchestrator, stretto-codec, stretto-embedding and stretto-acoustic."
    )
