"""A prompt, and a melody or a story if there is one, becomes music."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import SamplingOptions

from stretto_orchestrator.clients import BEST_EFFORT, Pacing, Stages, remaining_s
from stretto_orchestrator.flows.audition import Audition
from stretto_orchestrator.flows.cascades import MUSICLM, Cascade, find_cascade
from stretto_orchestrator.flows.checks import check_duration, check_priority, check_prompt
from stretto_orchestrator.flows.composers import composer_of
from stretto_orchestrator.flows.composing import Piece
from stretto_orchestrator.flows.delivery import Delivery
from stretto_orchestrator.flows.events import CascadeObserver, MusicEvent, Progress
from stretto_orchestrator.flows.patience import Patience
from stretto_orchestrator.flows.rendering import Rendering, RenderOptions
from stretto_orchestrator.flows.resuming import Resumes
from stretto_orchestrator.flows.story import PromptSpan, check_story

DEFAULT_DURATION_S = 10.0
MAX_DURATION_S = 30.0
MAX_JOINT_DURATION_S = 300.0
MAX_CANDIDATES = 8
MAX_JUDGED_S = 600.0  # of all candidates together: they travel to their judge in one message
NUM_SEEDS = 2**64


@dataclass(frozen=True)
class MusicRequest:
    """What somebody wants to hear.

    Raises:
        InvalidInput: On an empty or too long prompt, a duration outside [0.1, 300], a priority outside [0, 9], a story
            that is none, or candidates that are too many or that a listener would wait for.
    """

    cascade: str
    prompt: str
    duration_s: float
    seed: int
    sampling: SamplingOptions
    melody: Waveform | None
    pacing: Pacing = BEST_EFFORT
    story: tuple[PromptSpan, ...] = ()
    num_candidates: int = 1

    def __post_init__(self) -> None:
        check_prompt(self.prompt, min_characters=1)
        check_duration(self.duration_s, max_s=MAX_JOINT_DURATION_S)
        check_priority(self.pacing.priority)
        check_story(self.story, self.duration_s)
        for index, span in enumerate(self.story):
            check_prompt(span.prompt, min_characters=1, field=f"story[{index}].prompt")
        self._check_candidates()

    @property
    def judged_s(self) -> float:
        """Seconds of music that are made before anything is sent: none of one candidate."""
        return self.num_candidates * self.duration_s if self.num_candidates > 1 else 0.0

    def _check_candidates(self) -> None:
        num_candidates = self.num_candidates
        if not 1 <= num_candidates <= MAX_CANDIDATES:
            raise InvalidInput("candidate_count", f"expected 1 to {MAX_CANDIDATES}, got {num_candidates}.")
        if num_candidates > 1 and self.pacing.is_realtime:
            raise InvalidInput(
                "candidate_count",
                f"expected 1 in real time, got {num_candidates}: the choice is made once all are there. Drop the pace.",
            )
        if self.judged_s > MAX_JUDGED_S:
            raise InvalidInput(
                "candidate_count",
                f"expected at most {MAX_JUDGED_S:g} s of music in all candidates, got {num_candidates} of "
                f"{self.duration_s:g} s. Ask for fewer or shorter ones.",
            )


async def generate_music(
    stages: Stages,
    cascades: Mapping[str, Cascade],
    request: MusicRequest,
    options: RenderOptions,
    observer: CascadeObserver,
) -> AsyncGenerator[MusicEvent, None]:
    """Progress, audio while it is being made, and the receipt last."""
    cascade = find_cascade(cascades, request.cascade)
    check_duration(request.duration_s, max_s=MAX_JOINT_DURATION_S if cascade.kind == MUSICLM else MAX_DURATION_S)
    composer = composer_of(stages, cascade)
    delivery = Delivery(observer, cascade=cascade.name, pacing=request.pacing, starts=options.starts)
    resumes = Resumes(options.resume_policy, observer.observe_resume, remaining_s)
    pieces = [
        Piece(request.duration_s, (request.seed + index) % NUM_SEEDS, request.sampling, request.pacing)
        for index in range(request.num_candidates)
    ]
    with options.held_music.held(request.judged_s):
        if request.pacing.is_realtime:  # a refusal should be quick, and cost no work
            await composer.check_admission(pieces[0], is_conditional=True)
        yield Progress("embedding")
        brief = await composer.read(request.prompt, request.melody, request.story, request.duration_s)
        if len(pieces) > 1 and cascade.kind != MUSICLM:  # a choice that nobody could make should cost no music
            await stages.embedding.embed_jointly(cascade.joint_model, [request.prompt], fields=["prompt"])
        audition = Audition(
            {
                piece.seed: partial(
                    Rendering,
                    stages.codec,
                    brief.token_stages(piece),
                    resumes,
                    max_ahead=options.max_messages_ahead,
                    duration_s=request.duration_s,
                    streams=cascade.streams,
                )
                for piece in pieces
            },
            partial(stages.embedding.rank_audio, cascade.joint_model, request.prompt, field="prompt"),
            max_at_once=options.max_candidates_at_once,
            patience=Patience(remaining_s),
        )
        async with aclosing(delivery.of(audition.events())) as events:
            async for event in events:
                yield event
        yield delivery.receipt(
            prompt=request.prompt,
            seed=audition.seed,
            duration_s=request.duration_s,
            sampling=audition.chosen.sampling,
            models=audition.models_after(brief.models),
            source=request.melody,
            num_resumes=resumes.count,
            story=request.story,
            num_candidates=len(pieces),
            similarity=audition.similarity,
        )
