"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

from stretto.semantic.v1 import semantic_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone

from stretto_semantic.engine import SemanticEngine
from stretto_semantic.servicer import SemanticServicer
from stretto_semantic.settings import SemanticSettings


def build(context: HostContext, settings: SemanticSettings | None = None) -> ServiceHost:
    """The semantic service, not started."""
    settings = settings or SemanticSettings()
    engine = SemanticEngine()
    return ServiceHost(
        name="semantic",
        full_name="stretto.semantic.v1.SemanticService",
        add_to_server=lambda grpc_server: semantic_pb2_grpc.add_SemanticServiceServicer_to_server(
            SemanticServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def main() -> None:
    """Serve the semantic service alone until SIGTERM or SIGINT."""
    serve_alone("semantic", build)


if __name__ == "__main__":
    main()
