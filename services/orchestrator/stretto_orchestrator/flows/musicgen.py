"""`MusicGen`: text states, a chromagram if there is a melody, and one language model of all codebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import Chromagram, ModelInfo, TextStates
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import Stages, TokenRequest
from stretto_orchestrator.flows.cascades import MUSICLM, Cascade
from stretto_orchestrator.flows.chain import TokenStage
from stretto_orchestrator.flows.composing import Piece
from stretto_orchestrator.flows.recording import encoded_for
from stretto_orchestrator.flows.story import PromptSpan


@dataclass(frozen=True, eq=False)
class MusicGenBrief:
    """What the language model is told."""

    stages: Stages
    cascade: Cascade
    text: TextStates | None = None
    melody: Chromagram | None = None
    prompt: TokenMatrix | None = None
    prompt_model: ModelInfo | None = None
    models: tuple[ModelInfo, ...] = ()

    @property
    def heard_s(self) -> float:
        return 0.0 if self.prompt is None else self.prompt.duration_s

    async def after(self, recording: Waveform, listeners: Mapping[str, ModelInfo]) -> MusicGenBrief:
        listener = listeners[self.cascade.acoustic_model]
        heard = await encoded_for(listener, self.stages.codec, self.cascade.codec_model, recording)
        return replace(self, prompt=heard, prompt_model=listener)

    def token_stages(self, piece: Piece) -> tuple[TokenStage, ...]:
        request = TokenRequest(
            model=self.cascade.acoustic_model,
            text=self.text,
            melody=self.melody,
            prompt=self.prompt,
            duration_s=piece.duration_s,
            seed=piece.seed,
            sampling=piece.sampling,
            pacing=piece.pacing,
        )
        acoustic = self.stages.acoustic
        return (
            TokenStage(
                name=acoustic.stage,
                open_stream=lambda source, resume_from: acoustic.generate(request, resume_from),
                prompt=self.prompt,
                prompt_model=self.prompt_model,
            ),
        )


class MusicGen:
    """The composer of the kind `musicgen`."""

    def __init__(self, stages: Stages, cascade: Cascade) -> None:
        self._stages = stages
        self._cascade = cascade

    async def check_admission(self, piece: Piece, *, is_conditional: bool) -> None:
        await self._stages.acoustic.check_admission(
            self._cascade.acoustic_model,
            duration_s=piece.duration_s,
            sampling=piece.sampling,
            pacing=piece.pacing,
            is_conditional=is_conditional,
        )

    async def read(
        self, prompt: str, melody: Waveform | None, story: Sequence[PromptSpan], duration_s: float
    ) -> MusicGenBrief:
        if story:
            raise InvalidInput(
                "story",
                f"needs a cascade with a joint embedding, which {self._cascade.name!r} has not. Choose {MUSICLM!r}.",
            )
        if not prompt:
            return MusicGenBrief(self._stages, self._cascade)
        embedding = self._stages.embedding
        text, text_model = await embedding.embed_text(self._cascade.text_model, prompt, field="prompt")
        chroma = None if melody is None else await embedding.embed_melody(melody, field="melody")
        return MusicGenBrief(self._stages, self._cascade, text, chroma, models=(text_model,))

    async def listeners(self) -> Mapping[str, ModelInfo]:
        name = self._cascade.acoustic_model
        return {name: await self._stages.acoustic.last_known(name)}
