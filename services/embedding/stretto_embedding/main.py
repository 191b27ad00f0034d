"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

import functools

from stretto.embedding.v1 import embedding_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.weights import parse_model_list

from stretto_embedding import loading
from stretto_embedding.engine import EmbeddingEngine
from stretto_embedding.servicer import EmbeddingServicer
from stretto_embedding.settings import EmbeddingSettings


def build(context: HostContext, settings: EmbeddingSettings | None = None) -> ServiceHost:
    """The embedding service, not started."""
    settings = settings or EmbeddingSettings()
    sources = parse_model_list(settings.text_models)
    default_name = next(iter(sources))
    engine = EmbeddingEngine(
        {
            name: functools.partial(
                loading.load, name, source, is_default=name == default_name, num_threads=settings.num_threads
            )
            for name, source in sources.items()
        },
        max_batch_size=settings.max_batch_size,
        max_wait_s=settings.max_wait_s,
        max_queued=settings.max_queued,
        meter=None if context.metrics is None else context.metrics.stage("embedding"),
    )
    return ServiceHost(
        name="embedding",
        full_name="stretto.embedding.v1.EmbeddingService",
        add_to_server=lambda grpc_server: embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            EmbeddingServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def main() -> None:
    """Serve the embedding service alone until SIGTERM or SIGINT."""
    serve_alone("embedding", build)


if __name__ == "__main__":
    main()
