"""A recording goes on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput, NotFound
from stretto_shared.features import ModelInfo, SamplingOptions
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import BEST_EFFORT, AcousticClient, EncodedAudio, Pacing, Stages, TokenRequest
from stretto_orchestrator.flows.cascades import Cascade, find_cascade
from stretto_orchestrator.flows.generate_music import check_duration, check_priority, check_prompt
from stretto_orchestrator.flows.rendering import (
    CascadeObserver,
    MusicEvent,
    Progress,
    Rendering,
    RenderOptions,
    was_replaced,
)
from stretto_orchestrator.flows.stereo import encode_stereo

MAX_NEW_S = 20.0
MAX_HEARD_S = 10.0
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
    rendering = Rendering(stages, options, observer, cascade=cascade.name, pacing=request.pacing)
    if request.pacing.is_realtime:  # a refusal should be quick, and cost no work
        await stages.acoustic.check_admission(
            cascade.acoustic_model,
            duration_s=min(request.audio.duration_s, MAX_HEARD_S) + request.duration_s,
            sampling=request.sampling,
            pacing=request.pacing,
            is_conditional=bool(request.prompt),
        )
    text, text_model = None, None
    if request.prompt:
        yield Progress("embedding")
        text, text_model = await stages.embedding.embed_text(cascade.text_model, request.prompt, field="prompt")
    yield Progress("codec")
    listener = await stages.acoustic.last_known(cascade.acoustic_model)
    async with _noticing_a_replacement(listener, cascade.acoustic_model, stages.acoustic):
        prompt = await _encoded_for(listener, stages, cascade, request.audio)
        yield Progress("acoustic")
        tokens = TokenRequest(
            model=cascade.acoustic_model,
            text=text,
            melody=None,
            prompt=prompt,
            duration_s=prompt.duration_s + request.duration_s,
            seed=request.seed,
            sampling=request.sampling,
            pacing=request.pacing,
        )
        async with aclosing(
            rendering.events(
                tokens,
                duration_s=request.duration_s,
                keep_prompt=request.include_recording,
                prompt_model=listener,
            )
        ) as events:
            async for event in events:
                yield event
    yield rendering.receipt(
        cascade=cascade.name,
        prompt=request.prompt,
        text_model=text_model,
        source=request.audio,
        duration_s=request.duration_s,
        seed=request.seed,
    )


def last_whole_frames(recording: Waveform, frame_rate_hz: float) -> Waveform:
    """The last seconds of a recording, at most 10, as a whole number of token frames.

    So the join falls between two frames, and no frame is half silence.
    """
    num_frames = int(min(recording.duration_s, MAX_HEARD_S) * frame_rate_hz + 1e-9)
    num_samples = round(num_frames / frame_rate_hz * recording.sample_rate_hz)
    return Waveform(recording.samples[:, recording.num_samples - num_samples :], recording.sample_rate_hz)


def whole_frames(encoded: EncodedAudio) -> TokenMatrix:
    """The tokens without a last frame that reaches past the end of the audio."""
    samples_per_frame = encoded.model.sample_rate_hz / encoded.tokens.frame_rate_hz
    num_frames = max(1, int((encoded.num_samples + 0.5) / samples_per_frame))
    return encoded.tokens.frames(0, min(num_frames, encoded.tokens.num_frames))


async def _encoded_for(listener: ModelInfo, stages: Stages, cascade: Cascade, recording: Waveform) -> TokenMatrix:
    """The end of a recording as that language model hears it: with so many codebooks, in mono or in stereo."""
    heard = last_whole_frames(recording, listener.frame_rate_hz)
    num_codebooks = listener.num_codebooks
    if listener.is_stereo:
        encoded = await encode_stereo(
            stages.codec, cascade.codec_model, heard, num_codebooks=num_codebooks, field="audio"
        )
    else:
        encoded = await stages.codec.encode(cascade.codec_model, heard, num_codebooks=num_codebooks, field="audio")
    return whole_frames(encoded)


@asynccontextmanager
async def _noticing_a_replacement(expected: ModelInfo, name: str, acoustic: AcousticClient) -> AsyncIterator[None]:
    """Raise what a stage refuses as a Conflict if that name is by now another language model's."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        if error.field != "cascade":
            raise
        found = await acoustic.ask_for(name)
        if found.model_id == expected.model_id:
            raise
        raise was_replaced(expected, found) from error
