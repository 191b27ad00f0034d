"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from stretto.embedding.v1 import embedding_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.weights import parse_model_list

from stretto_embedding import loading
from stretto_embedding.engine import EmbeddingEngine, Limits
from stretto_embedding.servicer import EmbeddingServicer
from stretto_embedding.settings import EmbeddingSettings


def build(context: HostContext, settings: EmbeddingSettings | None = None) -> ServiceHost:
    """The embedding service, not started."""
    settings = settings or EmbeddingSettings()
    texts = _text_loaders(settings)
    engine = EmbeddingEngine(
        texts,
        joint_loaders=_joint_loaders(settings, _minilm_loader(settings, texts)),
        melody_loaders=_melody_loaders(settings),
        limits=Limits(settings.max_batch_size, settings.max_wait_s, settings.max_queued, settings.max_requests),
        num_threads=settings.num_threads,
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


def _text_loaders(settings: EmbeddingSettings) -> dict[str, Callable[[], loading.TextEncoder]]:
    sources = parse_model_list(settings.text_models)
    default_name = next(iter(sources))
    return {
        name: loading.Once(partial(loading.load, name, source, is_default=name == default_name))
        for name, source in sources.items()
    }


def _minilm_loader(
    settings: EmbeddingSettings, texts: dict[str, Callable[[], loading.TextEncoder]]
) -> Callable[[], loading.TextEncoder]:
    """MiniLM for the joint encoders that read its states: the one that is served, if it is, and not a second one."""
    is_served = parse_model_list(settings.text_models).get(loading.DEFAULT_NAME) == "default"
    return texts[loading.DEFAULT_NAME] if is_served else loading.Once(loading.load_default)


def _joint_loaders(
    settings: EmbeddingSettings, load_minilm: Callable[[], loading.TextEncoder]
) -> dict[str, Callable[[], loading.JointEncoder]]:
    names = settings.joint_models or ",".join(loading.list_joint_names(settings.weights_dir))
    sources = parse_model_list(names) if names else {}
    return {
        name: partial(
            loading.load_joint,
            name,
            source,
            weights_dir=settings.weights_dir,
            is_default=index == 0,
            load_text_encoder=load_minilm,
        )
        for index, (name, source) in enumerate(sources.items())
    }


def _melody_loaders(settings: EmbeddingSettings) -> dict[str, Callable[[], loading.MelodyEncoder]]:
    names = settings.melody_models or ",".join(loading.list_melody_names(settings.weights_dir))
    sources = parse_model_list(names) if names else {}
    return {
        name: partial(loading.load_melody, name, source, weights_dir=settings.weights_dir)
        for name, source in sources.items()
    }


def main() -> None:
    """Serve the embedding service alone until SIGTERM or SIGINT."""
    serve_alone("embedding", build)


if __name__ == "__main__":
    main()
