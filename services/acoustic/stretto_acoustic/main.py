"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

import dataclasses
import functools

from stretto.acoustic.v1 import acoustic_pb2_grpc
from stretto_shared.engine.token_engine import TokenEngineConfig
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.program import serve_alone
from stretto_shared.grpc.token_metrics import TokenStageMetrics
from stretto_shared.weights import parse_model_list

from stretto_acoustic import loading
from stretto_acoustic.engine import AcousticEngine, AcousticModels, Refining
from stretto_acoustic.servicer import AcousticServicer
from stretto_acoustic.settings import AcousticSettings


def build(context: HostContext, settings: AcousticSettings | None = None) -> ServiceHost:
    """The acoustic service, not started."""
    settings = settings or AcousticSettings()
    sources = parse_model_list(settings.models or ",".join(loading.list_default_names(settings.weights_dir)))
    stages = {name for name, source in sources.items() if loading.is_stage(name, source, settings.weights_dir)}
    generating = {name: source for name, source in sources.items() if name not in stages}
    default_name = next(iter(generating), "")
    limits = TokenEngineConfig(
        max_slots=settings.max_slots,
        max_queued=settings.max_queued,
        first_block_frames=settings.first_block_frames,
        block_frames=settings.block_frames,
        prefill_columns=settings.prefill_columns,
        kv_budget_bytes=settings.kv_memory_mb << 20,
        realtime_utilisation=settings.realtime_utilisation,
    )
    meter = None if context.metrics is None else context.metrics.stage("acoustic")
    token_meter = None if context.metrics is None else functools.partial(TokenStageMetrics, context.metrics, "acoustic")
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
            for name, source in generating.items()
        },
        config=dataclasses.replace(limits, realtime_max_lead_s=settings.realtime_max_lead_s),
        meter=meter,
        token_meter=token_meter,
        joins=settings.joins,
    )
    refining = Refining(
        {
            name: functools.partial(
                loading.load_stage,
                name,
                sources[name],
                weights_dir=settings.weights_dir,
                num_threads=settings.num_threads,
            )
            for name in sources
            if name in stages
        },
        config=limits,
        meter=meter,
        token_meter=token_meter,
        joins=settings.joins,
    )
    if meter is not None:
        meter.watch_waiting(lambda: engine.count_waiting() + refining.count_waiting())
    return host(engine, refining)


def host(engine: AcousticEngine, refining: Refining | None = None) -> ServiceHost:
    """Put engines behind the wire."""
    models = AcousticModels(engine, refining or Refining({}))
    return ServiceHost(
        name="acoustic",
        full_name="stretto.acoustic.v1.AcousticService",
        add_to_server=lambda grpc_server: acoustic_pb2_grpc.add_AcousticServiceServicer_to_server(
            AcousticServicer(models), grpc_server
        ),
        start=models.start,
        stop=models.stop,
    )


def main() -> None:
    """Serve the acoustic service alone until SIGTERM or SIGINT."""
    serve_alone("acoustic", build)


if __name__ == "__main__":
    main()
