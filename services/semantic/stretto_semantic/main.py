"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

import functools

from stretto.semantic.v1 import semantic_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.weights import parse_model_list

from stretto_semantic import loading
from stretto_semantic.engine import SemanticEngine, Tokenizing
from stretto_semantic.servicer import SemanticServicer
from stretto_semantic.settings import SemanticSettings


def build(context: HostContext, settings: SemanticSettings | None = None) -> ServiceHost:
    """The semantic service, not started."""
    settings = settings or SemanticSettings()
    engine = SemanticEngine(_build_tokenizing(context, settings))
    return ServiceHost(
        name="semantic",
        full_name="stretto.semantic.v1.SemanticService",
        add_to_server=lambda grpc_server: semantic_pb2_grpc.add_SemanticServiceServicer_to_server(
            SemanticServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def _build_tokenizing(context: HostContext, settings: SemanticSettings) -> Tokenizing:
    names = settings.models or ",".join(loading.list_tokenizer_names(settings.weights_dir))
    sources = parse_model_list(names) if names else {}
    default_name = next(iter(sources), "")
    return Tokenizing(
        {
            name: functools.partial(
                loading.load_tokenizer,
                name,
                source,
                weights_dir=settings.weights_dir,
                is_default=name == default_name,
                max_joined=settings.max_joined,
            )
            for name, source in sources.items()
        },
        max_requests=settings.max_requests,
        num_threads=settings.num_threads,
        meter=None if context.metrics is None else context.metrics.stage("semantic"),
    )


def main() -> None:
    """Serve the semantic service alone until SIGTERM or SIGINT."""
    serve_alone("semantic", build)


if __name__ == "__main__":
    main()
