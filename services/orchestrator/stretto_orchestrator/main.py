"""Settings, channels, clients, flows, servicer, server: the one place of this service that knows everything."""

from __future__ import annotations

from stretto.codec.v1 import codec_pb2
from stretto.embedding.v1 import embedding_pb2
from stretto.harmony.v1 import harmony_pb2
from stretto.orchestrator.v1 import orchestrator_pb2_grpc
from stretto.semantic.v1 import semantic_pb2
from stretto.transcriber.v1 import transcriber_pb2
from stretto_shared.errors import InvalidInput
from stretto_shared.grpc.channel import open_channel
from stretto_shared.grpc.hosting import HostContext, ServiceHost
from stretto_shared.grpc.metrics import Metrics
from stretto_shared.grpc.playout_metrics import PlayoutMetrics
from stretto_shared.grpc.program import serve_alone
from stretto_shared.grpc.setting_errors import InvalidSetting

from stretto_orchestrator.clients import (
    AcousticClient,
    CodecClient,
    EmbeddingClient,
    HarmonyClient,
    SemanticClient,
    Stages,
    TranscriberClient,
)
from stretto_orchestrator.door.guard import Guard
from stretto_orchestrator.door.keys import KeyFile
from stretto_orchestrator.door.limits import Limits
from stretto_orchestrator.flows.cascades import cascades_with
from stretto_orchestrator.flows.forking import KeptAudio
from stretto_orchestrator.flows.patience import HeldMusic
from stretto_orchestrator.flows.rendering import RenderOptions
from stretto_orchestrator.flows.resuming import ResumePolicy
from stretto_orchestrator.flows.starting import Starts
from stretto_orchestrator.forwarding import ForwardedStage, StageForwarder
from stretto_orchestrator.servicer import FlowSetup, OrchestratorServicer
from stretto_orchestrator.settings import OrchestratorSettings

STAGE_SERVICES = {
    "embedding": "stretto.embedding.v1.EmbeddingService",
    "semantic": "stretto.semantic.v1.SemanticService",
    "acoustic": "stretto.acoustic.v1.AcousticService",
    "codec": "stretto.codec.v1.CodecService",
    "transcriber": "stretto.transcriber.v1.TranscriberService",
    "harmony": "stretto.harmony.v1.HarmonyService",
}
FORWARDED = {
    "embedding": embedding_pb2.DESCRIPTOR.services_by_name["EmbeddingService"],
    "semantic": semantic_pb2.DESCRIPTOR.services_by_name["SemanticService"],
    "codec": codec_pb2.DESCRIPTOR.services_by_name["CodecService"],
    "transcriber": transcriber_pb2.DESCRIPTOR.services_by_name["TranscriberService"],
    "harmony": harmony_pb2.DESCRIPTOR.services_by_name["HarmonyService"],
}


class CascadeMeter(PlayoutMetrics):
    """What the listeners of one cascade hear, for Prometheus; the label `model` is the cascade's name."""

    def __init__(self, metrics: Metrics, cascade: str) -> None:
        super().__init__(metrics, "orchestrator", cascade)
        self._stage = metrics.stage("orchestrator")

    def observe_first_audio(self, latency_s: float) -> None:
        """Seconds from a request to its first chunk."""
        self._stage.observe_first_audio(latency_s)


class CascadeMetrics:
    """First-audio latency, play-out, real-time factor and resumes of the cascades, for Prometheus."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._stage = metrics.stage("orchestrator")
        self._resumes = metrics.counter("stretto_stage_resumes", "Stages resumed after a lost connection", ("stage",))

    def meter_of(self, cascade: str) -> CascadeMeter:
        """Who counts what the listeners of one cascade hear."""
        return CascadeMeter(self._metrics, cascade)

    def observe_music(self, real_time_factor: float) -> None:
        """One piece of music was finished."""
        self._stage.observe_rtf(real_time_factor)

    def observe_resume(self, stage: str) -> None:
        """A stage was resumed."""
        self._resumes.labels(stage).inc()


def build(context: HostContext, settings: OrchestratorSettings | None = None) -> ServiceHost:
    """The orchestrator, not started.

    Raises:
        InvalidSetting: If the address of a stage is neither set nor that of this very server, or the file of keys is
            wrong.
    """
    settings = settings or OrchestratorSettings()
    guard = _guard(settings, context)
    asked = {
        "embedding": settings.embedding_address,
        "semantic": settings.semantic_address,
        "acoustic": settings.acoustic_address,
        "codec": settings.codec_address,
        "transcriber": settings.transcriber_address,
        "harmony": settings.harmony_address,
    }
    channels = {
        name: open_channel(address or _own_address(context, name), metrics=context.metrics, log=context.log)
        for name, address in asked.items()
    }
    timeout_s = settings.stage_timeout_s
    setup = FlowSetup(
        stages=Stages(
            EmbeddingClient(channels["embedding"], timeout_s=timeout_s),
            SemanticClient(channels["semantic"], timeout_s=timeout_s),
            AcousticClient(channels["acoustic"], timeout_s=timeout_s),
            CodecClient(channels["codec"], timeout_s=timeout_s),
            TranscriberClient(channels["transcriber"], timeout_s=timeout_s),
            HarmonyClient(channels["harmony"], timeout_s=timeout_s),
        ),
        cascades=cascades_with(settings.extra_cascades),
        options=RenderOptions(
            ResumePolicy(settings.max_resumes, settings.resume_backoff_s),
            settings.max_messages_ahead,
            HeldMusic(settings.max_held_music_s),
            settings.max_candidates_at_once,
            Starts(settings.start_lead_per_listener_s),
        ),
        observer=CascadeMetrics(context.metrics or Metrics()),
        list_timeout_s=settings.list_timeout_s,
        kept_audio=KeptAudio(settings.max_kept_audio_bytes),
    )

    async def start() -> None:
        """Nothing to load: channels connect with the first call."""

    async def stop() -> None:
        for channel in channels.values():
            await channel.close()

    elsewhere = [ForwardedStage(name, service, channels[name]) for name, service in FORWARDED.items() if asked[name]]
    return ServiceHost(
        name="orchestrator",
        full_name="stretto.orchestrator.v1.OrchestratorService",
        add_to_server=lambda grpc_server: orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server(
            OrchestratorServicer(setup), grpc_server
        ),
        start=start,
        stop=stop,
        extra_handlers=(StageForwarder(elsewhere),) if elsewhere else (),
        layers=(guard.around,),
    )


def main() -> None:
    """Serve the orchestrator alone until SIGTERM or SIGINT."""
    serve_alone("orchestrator", build)


def _guard(settings: OrchestratorSettings, context: HostContext) -> Guard:
    """Who watches the door.

    Raises:
        InvalidSetting: If the file of keys cannot be read, or is wrong.
    """
    defaults = Limits(settings.max_requests_per_minute, settings.max_requests_at_once, settings.max_request_bytes)
    keys = None
    if settings.api_keys_path is not None:
        try:
            keys = KeyFile(settings.api_keys_path, defaults, context.log)
        except InvalidInput as error:
            raise InvalidSetting("STRETTO_ORCHESTRATOR_API_KEYS_PATH", error.message) from error
    return Guard(keys, defaults, context.metrics or Metrics())


def _own_address(context: HostContext, stage: str) -> str:
    if context.loopback_address is None:
        variable = f"STRETTO_ORCHESTRATOR_{stage.upper()}_ADDRESS"
        raise InvalidSetting(
            variable, f"is required when the orchestrator runs alone. Set it to where {stage} listens."
        )
    return context.loopback_address


if __name__ == "__main__":
    main()
