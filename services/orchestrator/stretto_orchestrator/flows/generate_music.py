"""A prompt, and a melody if there is one, becomes music."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import SamplingOptions

from stretto_orchestrator.clients import BEST_EFFORT, Pacing, Stages, TokenRequest
from stretto_orchestrator.flows.cascades import Cascade, find_cascade
from stretto_orchestrator.flows.rendering import CascadeObserver, MusicEvent, Progress, Rendering, RenderOptions

DEFAULT_DURATION_S = 10.0
MIN_DURATION_S = 0.1  # below half a sample there would be no music at all; this much can be heard
MAX_DURATION_S = 30.0
MAX_PROMPT_CHARACTERS = 2_000
MAX_PRIORITY = 9


@dataclass(frozen=True)
class MusicRequest:
    """What somebody wants to hear.

    Raises:
        InvalidInput: On an empty or too long prompt, a duration outside [0.1, 30], or a priority outside [0, 9].
    """

    cascade: str
    prompt: str
    duration_s: float
    seed: int
    sampling: SamplingOptions
    melody: Waveform | None
    pacing: Pacing = BEST_EFFORT

    def __post_init__(self) -> None:
        check_prompt(self.prompt, min_characters=1)
        check_duration(self.duration_s, max_s=MAX_DURATION_S)
        check_priority(self.pacing.priority)


async def generate_music(
    stages: Stages,
    cascades: Mapping[str, Cascade],
    request: MusicRequest,
    options: RenderOptions,
    observer: CascadeObserver,
) -> AsyncGenerator[MusicEvent, None]:
    """Progress, audio while it is being made, and the receipt last."""
    cascade = find_cascade(cascades, request.cascade)
    rendering = Rendering(stages, options, observer, cascade=cascade.name, pacing=request.pacing)
    if request.pacing.is_realtime:  # a refusal should be quick, and cost no work
        await stages.acoustic.check_admission(
            cascade.acoustic_model,
            duration_s=request.duration_s,
            sampling=request.sampling,
            pacing=request.pacing,
            is_conditional=True,
        )
    yield Progress("embedding")
    text, text_model = await stages.embedding.embed_text(cascade.text_model, request.prompt, field="prompt")
    melody = None
    if request.melody is not None:
        melody = await stages.embedding.embed_melody(request.melody, field="melody")
    yield Progress("acoustic")
    tokens = TokenRequest(
        model=cascade.acoustic_model,
        text=text,
        melody=melody,
        prompt=None,
        duration_s=request.duration_s,
        seed=request.seed,
        sampling=request.sampling,
        pacing=request.pacing,
    )
    async with aclosing(rendering.events(tokens, duration_s=request.duration_s)) as events:
        async for event in events:
            yield event
    yield rendering.receipt(
        cascade=cascade.name,
        prompt=request.prompt,
        text_model=text_model,
        source=request.melody,
        duration_s=request.duration_s,
        seed=request.seed,
    )


def check_prompt(prompt: str, *, min_characters: int) -> None:
    """Raise InvalidInput unless the prompt has a fitting length and, where it is required, a word."""
    if not min_characters <= len(prompt) <= MAX_PROMPT_CHARACTERS or (prompt and not prompt.strip()):
        raise InvalidInput(
            "prompt",
            f"expected {min_characters} to {MAX_PROMPT_CHARACTERS} characters that are not all blank, "
            f"got {len(prompt)}. Describe the music in words.",
        )


def check_duration(duration_s: float, *, max_s: float) -> None:
    """Raise InvalidInput unless the duration lies between 0.1 s and `max_s`."""
    if not MIN_DURATION_S <= duration_s <= max_s:
        raise InvalidInput(
            "duration_s",
            f"expected {MIN_DURATION_S:g} to {max_s:g} s, got {duration_s:g} s. Ask for a length between the two.",
        )


def check_priority(priority: int) -> None:
    """Raise InvalidInput unless the priority lies between 0 and 9."""
    if not 0 <= priority <= MAX_PRIORITY:
        raise InvalidInput("priority", f"expected 0 to {MAX_PRIORITY}, got {priority}. 0 is the usual one.")
