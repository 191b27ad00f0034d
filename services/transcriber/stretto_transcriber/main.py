"""Settings, loaders, engine, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from stretto.transcriber.v1 import transcriber_pb2_grpc
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.metrics import Metrics, StageMetrics
from stretto_shared.grpc.program import serve_alone
from stretto_shared.weights import parse_model_list

from stretto_transcriber import loading
from stretto_transcriber.engine import Engraving, Hearing, Tracking, TranscriberEngine, Transcribing
from stretto_transcriber.servicer import TranscriberServicer
from stretto_transcriber.settings import TranscriberSettings

PASS_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16)
L = TypeVar("L", bound=loading.LoadedListener)


class TranscriberMetrics(StageMetrics):
    """What the engine reports, for Prometheus; `kind` says whether notes or beats were listened for."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        super().__init__(metrics, "transcriber")
        self._audio = metrics.counter("stretto_transcriber_audio_s", "Seconds of audio heard", ("kind",)).labels(kind)
        self._windows = metrics.histogram(
            "stretto_transcriber_pass_windows", "Windows that shared a pass of a model", ("kind",), PASS_BUCKETS
        ).labels(kind)

    def observe_pass(self, num_windows: int) -> None:
        """How many windows shared a pass."""
        self._windows.observe(num_windows)

    def count_audio(self, audio_s: float) -> None:
        """So much more audio was heard."""
        self._audio.inc(audio_s)


def build(context: HostContext, settings: TranscriberSettings | None = None) -> ServiceHost:
    """The transcriber service, not started."""
    settings = settings or TranscriberSettings()
    names = settings.models or ",".join(loading.list_names(settings.weights_dir))
    sources = parse_model_list(names) if names else {}
    beats = {n: source for n, source in sources.items() if loading.tracks_beats(n, source, settings.weights_dir)}
    notes = {name: source for name, source in sources.items() if name not in beats}
    kernel_dir = settings.native_kernel_dir if settings.dtype == "bfloat16" else None
    load_notes = partial(loading.load_transcriber, native_kernel_dir=kernel_dir)
    engine = TranscriberEngine(
        Transcribing(_hearing(context, settings, notes, "notes", load_notes)),
        Tracking(
            _hearing(context, settings, beats, "beats", loading.load_tracker),
            max_waiting=settings.max_requests * max(1, len(beats)),
        ),
        Engraving(loading.engrave_score, max_waiting=settings.max_engravings),
    )
    if context.metrics is not None:
        context.metrics.stage("transcriber").watch_waiting(engine.count_waiting)
    return ServiceHost(
        name="transcriber",
        full_name="stretto.transcriber.v1.TranscriberService",
        add_to_server=lambda grpc_server: transcriber_pb2_grpc.add_TranscriberServiceServicer_to_server(
            TranscriberServicer(engine), grpc_server
        ),
        start=engine.start,
        stop=engine.stop,
    )


def _hearing(
    context: HostContext, settings: TranscriberSettings, sources: Mapping[str, str], kind: str, load: Callable[..., L]
) -> Hearing[L]:
    default_name = next(iter(sources), "")
    return Hearing(
        {
            name: partial(
                load,
                name,
                source,
                weights_dir=settings.weights_dir,
                is_default=name == default_name,
                max_joined=settings.max_joined,
            )
            for name, source in sources.items()
        },
        purpose=f"hears {kind}",
        max_requests=settings.max_requests,
        num_threads=settings.num_threads,
        meter=None if context.metrics is None else TranscriberMetrics(context.metrics, kind),
    )


def main() -> None:
    """Serve the transcriber service alone until SIGTERM or SIGINT."""
    serve_alone("transcriber", build)


if __name__ == "__main__":
    main()
