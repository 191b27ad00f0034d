"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from stretto.semantic.v1 import semantic_pb2_grpc
from stretto_shared.engine.config import TokenEngineConfig
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.grpc.token_metrics import TokenStageMetrics
from stretto_shared.weights import parse_model_list

from stretto_semantic import loading
from stretto_semantic.engine import Generating, SemanticEngine, Tokenizing
from stretto_semantic.servicer import SemanticServicer
from stretto_semantic.settings import SemanticSettings


def build(context: HostContext, settings: SemanticSettings | None = None) -> ServiceHost:
    """The semantic service, not started."""
    settings = settings or SemanticSettings()
    found = [*loading.list_tokenizer_names(settings.weights_dir), *loading.list_stage_names(settings.weights_dir)]
    names = settings.models or ",".join(found)
    sources = parse_model_list(names) if names else {}
    stages = {name: source for name, source in sources.items() if loading.is_stage(name, source, settings.weights_dir)}
    tokenizers = {name: source for name, source in sources.items() if name not in stages}
    tokenizing = _build_tokenizing(context, settings, tokenizers)
    generating = _build_generating(context, settings, stages)
    if context.metrics is not None:
        meter = context.metrics.stage("semantic")
        meter.watch_waiting(lambda: tokenizing.count_waiting() + generating.count_waiting())
    engine = SemanticEngine(tokenizing, generating)
    return ServiceHost(
        name="semantic",
        full_name="stretto.semantic.v1.SemanticService",
        add_to_server=lambda grpc_server: semantic_pb2_grpc.add_SemanticServiceServicer_to_server(
            SemanticServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def _build_tokenizing(context: HostContext, settings: SemanticSettings, sources: Mapping[str, str]) -> Tokenizing:
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


def _build_generating(context: HostContext, settings: SemanticSettings, sources: Mapping[str, str]) -> Generating:
    default_name = next(iter(sources), "")
    metrics = context.metrics
    return Generating(
        {
            name: functools.partial(
                loading.load_stage,
                name,
                source,
                weights_dir=settings.weights_dir,
                is_default=name == default_name,
                num_threads=settings.num_threads,
            )
            for name, source in sources.items()
        },
        config=TokenEngineConfig(
            max_slots=settings.max_slots,
            max_queued=settings.max_queued,
            first_block_frames=settings.first_block_frames,
            block_frames=settings.block_frames,
            prefill_columns=settings.prefill_columns,
            kv_budget_bytes=settings.kv_memory_mb << 20,
            realtime_utilisation=settings.realtime_utilisation,
        ),
        meter=None if metrics is None else metrics.stage("semantic"),
        token_meter=None if metrics is None else functools.partial(TokenStageMetrics, metrics, "semantic"),
        joins=settings.joins,
    )


def main() -> None:
    """Serve the semantic service alone until SIGTERM or SIGINT."""
    serve_alone("semantic", build)


if __name__ == "__main__":
    main()
