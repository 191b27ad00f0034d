"""A recording goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotFound
from stretto_shared.features import ModelInfo, SamplingOptions

from stretto_orchestrator.clients import BEST_EFFORT, AcousticClient, Pacing, Stages, remaining_s
from stretto_orchestrator.flows.cascades import Cascade, find_cascade
from stretto_orchestrator.flows.chain import was_replaced
from stretto_orchestrator.flows.checks import check_duration, check_priority, check_prompt
from stretto_orchestrator.flows.composers import composer_of
from stretto_orchestrator.flows.composing import Piece
from stretto_orchestrator.flows.delivery import Delivery
from stretto_orchestrator.flows.events import CascadeObserver, MusicEvent, Progress
from stretto_orchestrator.flows.recording import last_seconds
from stretto_orchestrator.flows.rendering import Rendering, RenderOptions
from stretto_orchestrator.flows.resuming import Resumes

MAX_NEW_S = 20.0
MIN_HEARD_S = 0.1


@dataclass(frozen=True)
class ContinuationRequest:
    """What somebody has, and what should follow.

    Raises:
        InvalidInput: On a recording below 0.1 s, a too long prompt, a duration outside [0.1, 20], or a priority outside
            [0, 9].
    """

    cascade: str
    audio: Waveform
    prompt: str
    duration_s: float
    seed: int
    sampling: SamplingOptions
    include_recording: bool
    pacing: Pacing = BEST_EFFORT

    def __post_init__(self) -> None:
        check_prompt(self.prompt, min_characters=0)
        check_duration(self.duration_s, max_s=MAX_NEW_S)
        check_priority(self.pacing.priority)
        if self.audio.duration_s < MIN_HEARD_S:
            raise InvalidInput(
                "audio",
                f"expected at least {MIN_HEARD_S:g} s to continue, got {self.audio.duration_s:.3f} s. Send more.",
            )


async def continue_music(
    stages: Stages,
    cascades: Mapping[str, Cascade],
    request: ContinuationRequest,
    options: RenderOptions,
    observer: CascadeObserver,
) -> AsyncGenerator[MusicEvent, None]:
    """Progress, the recording's end if it was asked for, the new music, and the receipt last."""
    cascade = find_cascade(cascades, request.cascade)
    composer = composer_of(stages, cascade)
    delivery = Delivery(observer, cascade=cascade.name, pacing=request.pacing, starts=options.starts)
    resumes = Resumes(options.resume_policy, observer.observe_resume, remaining_s)
    if request.pacing.is_realtime:  # a refusal should be quick, and cost no work
        at_most_s = last_seconds(request.audio).duration_s + request.duration_s
        piece = Piece(at_most_s, request.seed, request.sampling, request.pacing)
        await composer.check_admission(piece, is_conditional=bool(request.prompt))
    if request.prompt:
        yield Progress("embedding")
    brief = await composer.read(request.prompt, None, (), request.duration_s)
    yield Progress("codec")
    listeners = await composer.listeners()
    async with _noticing_a_replacement(listeners, stages.acoustic):
        brief = await brief.after(request.audio, listeners)
        piece = Piece(brief.heard_s + request.duration_s, request.seed, request.sampling, request.pacing)
        rendering = Rendering(
            stages.codec,
            brief.token_stages(piece),
            resumes,
            max_ahead=options.max_messages_ahead,
            duration_s=request.duration_s,
            keep_prompt=request.include_recording,
            streams=cascade.streams,
        )
        async with aclosing(delivery.of(rendering.events())) as events:
            async for event in events:
                yield event
    yield delivery.receipt(
        prompt=request.prompt,
        seed=request.seed,
        duration_s=request.duration_s,
        sampling=rendering.sampling,
        models=(*brief.models, *rendering.models),
        source=request.audio,
        num_resumes=resumes.count,
    )


@asynccontextmanager
async def _noticing_a_replacement(expected: Mapping[str, ModelInfo], acoustic: AcousticClient) -> AsyncIterator[None]:
    """Raise what a stage refuses as a Conflict if one of the names is by now another language model's."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        if error.field != "cascade":
            raise
        for name, model in expected.items():
            found = await acoustic.ask_for(name)
            if found.model_id != model.model_id:
                raise was_replaced(model, found) from error
        raise
