"""`stretto serve` and `stretto models`."""

from __future__ import annotations

from typing import Annotated

import typer
from stretto_shared.errors import NotReady
from stretto_shared.grpc.hosting import load_builders
from stretto_shared.grpc.server import run
from stretto_shared.grpc.settings import GrpcSettings

from stretto_client.cli.output import model_as_json, model_table, print_json, stderr_console, stdout_console
from stretto_client.cli.session import Address, AsJson, run_session
from stretto_client.client import StrettoClient


def serve(
    services: Annotated[
        str, typer.Option(help="The services to run, by name with commas. Default: every installed one.")
    ] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 50051,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1",
) -> None:
    """Run services in this process, all on one port, until SIGINT or SIGTERM. STRETTO_GRPC_* sets the rest."""
    names = [name.strip() for name in services.split(",") if name.strip()]
    builders = load_builders(names or None)
    if not builders:
        raise NotReady(
            "No Stretto service is installed here. Install stretto-orchestrator, stretto-codec, stretto-embedding "
            "and stretto-acoustic."
        )
    stderr_console().print(
        f"Serving {', '.join(sorted(builders))} on {host}:{port}. Stop with Ctrl-C.", highlight=False
    )
    run(GrpcSettings(host=host, port=port), builders)


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
