"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

from functools import partial

from stretto.harmony.v1 import harmony_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.metrics import Metrics, StageMetrics
from stretto_shared.grpc.program import serve_alone
from stretto_shared.weights import parse_model_list

from stretto_harmony import loading
from stretto_harmony.engine import Analyzers, HarmonyEngine, ScoreFiles
from stretto_harmony.readers import read_score
from stretto_harmony.servicer import HarmonyServicer
from stretto_harmony.settings import HarmonySettings
from stretto_harmony.writers import WRITERS


class HarmonyMetrics(StageMetrics):
    """What the engine reports, for Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics, "harmony")
        self._measures = metrics.counter("stretto_harmony_measures", "Measures analysed", ("model",))
        self._windows = metrics.histogram("stretto_harmony_window_s", "Seconds of work for one window", ("model",))

    def observe_window(self, model: str, num_measures: int, taken_s: float) -> None:
        """A window of so many measures took so long."""
        self._measures.labels(model).inc(num_measures)
        self._windows.labels(model).observe(taken_s)


def build(context: HostContext, settings: HarmonySettings | None = None) -> ServiceHost:
    """The harmony service, not started."""
    settings = settings or HarmonySettings()
    names = settings.models or ",".join(loading.list_names(settings.weights_dir))
    sources = parse_model_list(names) if names else {}
    default_name = next(iter(sources), "")
    loaders = {
        name: partial(
            loading.load_analyzer,
            name,
            source,
            weights_dir=settings.weights_dir,
            is_default=name == default_name,
        )
        for name, source in sources.items()
    }
    analyzers = Analyzers(
        loaders,
        max_requests=settings.max_requests,
        num_threads=settings.num_threads,
        meter=None if context.metrics is None else HarmonyMetrics(context.metrics),
    )
    engine = HarmonyEngine(analyzers, ScoreFiles(read_score, WRITERS, max_waiting=settings.max_readings))
    if context.metrics is not None:
        context.metrics.stage("harmony").watch_waiting(engine.count_waiting)
    return ServiceHost(
        name="harmony",
        full_name="stretto.harmony.v1.HarmonyService",
        add_to_server=lambda grpc_server: harmony_pb2_grpc.add_HarmonyServiceServicer_to_server(
            HarmonyServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def main() -> None:
    """Serve the harmony service alone until SIGTERM or SIGINT."""
    serve_alone("harmony", build)


if __name__ == "__main__":
    main()
