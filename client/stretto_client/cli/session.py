"""Which server a command talks to: the one named, or one of its own for the time of the command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any

import typer

from stretto_client.cli.output import stderr_console
from stretto_client.client import StrettoClient
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


@asynccontextmanager
async def open_session(address: str) -> AsyncIterator[StrettoClient]:
    """A client of the server at `address`, of the one in the environment, or of one made for this session."""
    address = address or ClientSettings().address
    if address:
        async with StrettoClient(address) as client:
            yield client
        return
    with stderr_console().status("Loading the models…"):
        server = embedded_server()
        address = await server.__aenter__()
    try:
        async with StrettoClient(address, tls=False) as client:
            yield client
    finally:
        await server.__aexit__(None, None, None)


def run_session(address: str, work: Callable[[StrettoClient], Coroutine[Any, Any, None]]) -> None:
    """Run one command's coroutine with a client."""

    async def session() -> None:
        async with open_session(address) as client:
            await work(client)

    asyncio.run(session())
