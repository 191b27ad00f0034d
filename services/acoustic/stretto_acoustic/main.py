"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

import functools

from stretto.acoustic.v1 import acoustic_pb2_grpc
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.grpc.token_metrics import TokenStageMetrics
from stretto_shared.weights import parse_model_list

from stretto_acoustic import loading
from stretto_acoustic.engine import AcousticEngine
from stretto_acoustic.servicer import AcousticServicer
from stretto_acoustic.settings import AcousticSettings


def build(context: HostContext, settings: AcousticSettings | None = None) -> ServiceHost:
    """The acoustic service, not started."""
    settings = settings or AcousticSettings()
    sources = parse_model_list(settings.models)
    default_name = next(iter(sources))
    engine = AcousticEngine(
        {
            name: functools.partial(
                loading.load,
                name,
                source,
                weights_dir=settings.weights_dir,
                is_default=name == default_name,
                dtype=settings.dtype,
                weight_format=settings.weight_format,
                native_kernel_dir=settings.native_kernel_dir,
                num_threads=settings.num_threads,
                device=settings.device,
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
        meter=None if context.metrics is None else context.metrics.stage("acoustic"),
        token_meter=None
        if context.metrics is None
        else functools.partial(TokenStageMetrics, context.metrics, "acoustic"),
        joins=settings.joins,
    )
    return host(engine)


def host(engine: AcousticEngine) -> ServiceHost:
    """Put an engine behind the wire."""
    return ServiceHost(
        name="acoustic",
        full_name="stretto.acoustic.v1.AcousticService",
        add_to_server=lambda grpc_server: acoustic_pb2_grpc.add_AcousticServiceServicer_to_server(
            AcousticServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def main() -> None:
    """Serve the acoustic service alone until SIGTERM or SIGINT."""
    serve_alone("acoustic", build)


if __name__ == "__main__":
    main()
