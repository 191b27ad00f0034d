"""`stretto serve` and `stretto models`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from stretto_shared.errors import NotReady
from stretto_shared.grpc.hosting import BuildService, load_builders
from stretto_shared.grpc.server import StrettoServer
from stretto_shared.grpc.settings import GrpcSettings
from stretto_shared.grpc.settling import settle

from stretto_client.cli.output import model_as_json, model_table, print_json, stderr_console, stdout_console
from stretto_client.cli.session import Address, AsJson, run_session
from stretto_client.client import StrettoClient


def serve(
    services: Annotated[
        str, typer.Option(help="The services to run, by name with commas. Default: every installed one.")
    ] = "",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="The port to listen on; 0 takes a free one. Default: STRETTO_GRPC_PORT, or 50051."
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="The address to listen on; 0.0.0.0 for every interface. Default: STRETTO_GRPC_HOST, or 127.0.0.1."
        ),
    ] = None,
) -> None:
    """Run services in this process, all on one port, until SIGINT or SIGTERM. STRETTO_GRPC_* sets the rest."""
    names = [name.strip() for name in services.split(",") if name.strip()]
    builders = load_builders(names or None)
    if not builders:
        raise NotReady(
            "No Stretto service is installed here. Install stretto-orchestrator, stretto-codec, stretto-embedding "
            "and stretto-acoustic."
        )
    given: dict[str, Any] = {"host": host, "port": port}
    settings = GrpcSettings(**{name: value for name, value in given.items() if value is not None})
    settle()
    asyncio.run(_serve_until_signalled(settings, builders))


async def _serve_until_signalled(settings: GrpcSettings, builders: dict[str, BuildService]) -> None:
    """Serve, and say where once the port is bound, for only then is it known."""
    server = StrettoServer(settings, builders, owns_process=True)
    port = await server.start()
    stderr_console().print(
        f"Serving {', '.join(sorted(builders))} on {settings.host}:{port}. Stop with Ctrl-C.", soft_wrap=True
    )
    await server.serve_until_signalled()


def models(address: Address = "", as_json: AsJson = False) -> None:
    """List every model that the server reaches: name, digest, licence, score."""

    async def work(client: StrettoClient) -> None:
        listed = await client.list_models()
        if as_json:
            print_json(
                {
                    "models": [model_as_json(model) for model in listed.models],
                    "unreachable_services": listed.unreachable_services,
                }
            )
            return
        stdout_console().print(model_table(listed.models))
        for service in listed.unreachable_services:
            stderr_console().print(f"The service {service!r} did not answer.", style="yellow")

    run_session(address, work)
