"""Which server a command talks to: the one named, or one of its own for the time of the command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from stretto_client.cli.output import stderr_console
from stretto_client.client import StrettoClient, TlsFiles
from stretto_client.embedded import embedded_server
from stretto_client.settings import ClientSettings

Address = Annotated[
    str,
    typer.Option(
        "--address",
        help="The server to call, as host:port. Default: STRETTO_ADDRESS; with neither, the command runs a server "
        "of its own, which needs the services installed.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Timeout = Annotated[float, typer.Option("--timeout-s", min=0.001, help="Deadline of the call, in seconds.")]


@dataclass(frozen=True)
class Credentials:
    """What a command shows to a server and expects of it; None each where the environment says it."""

    api_key: Path | None = None
    tls: TlsFiles | None = None


_given: ContextVar[Credentials | None] = ContextVar("stretto_credentials", default=None)


def take_credentials(
    api_key_path: Annotated[
        Path | None,
        typer.Option(help="A file that holds the API key. Default: STRETTO_CHANNEL_API_KEY_PATH or _API_KEY."),
    ] = None,
    tls_ca_path: Annotated[
        Path | None,
        typer.Option(help="PEM of the authority of the server's certificate. Default: STRETTO_CHANNEL_TLS_CA_PATH."),
    ] = None,
    tls_cert_path: Annotated[Path | None, typer.Option(help="PEM of a certificate of one's own (mTLS).")] = None,
    tls_key_path: Annotated[Path | None, typer.Option(help="PEM of the private key of --tls-cert-path.")] = None,
) -> None:
    """Stretto: neural music models as gRPC services. Text in, music out."""
    paths = (tls_ca_path, tls_cert_path, tls_key_path)
    _given.set(Credentials(api_key_path, TlsFiles(*paths) if any(paths) else None))


@asynccontextmanager
async def open_session(address: str) -> AsyncIterator[StrettoClient]:
    """A client of the server at `address`, of the one in the environment, or of one made for this session."""
    address = address or ClientSettings().address
    if address:
        shown = _given.get() or Credentials()
        async with StrettoClient(address, tls=shown.tls, api_key=shown.api_key) as client:
            yield client
        return
    with stderr_console().status("Loading the models…"):
        server = embedded_server()
        address = await server.__aenter__()
    try:
        async with StrettoClient(address, tls=False, api_key="") as client:
            yield client
    finally:
        await server.__aexit__(None, None, None)


def run_session(address: str, work: Callable[[StrettoClient], Coroutine[Any, Any, None]]) -> None:
    """Run one command's coroutine with a client."""

    async def session() -> None:
        async with open_session(address) as client:
            await work(client)

    asyncio.run(session())
