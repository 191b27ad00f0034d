"""`MusicLM`: a joint embedding, then what happens, then how it sounds, each by a language model of its own.

The three stages of MusicLM (Agostinelli et al. 2023, https://arxiv.org/abs/2301.11325): semantic tokens of the style,
coarse codec tokens of style and semantic tokens, fine ones of the coarse unless the cascade ends with those. The style
is the joint embedding of a text, or of a recording that goes on without one; in a story it moves. Departure: each stage
is a service call that reads the one before while that is still at work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from stretto_shared.audio import Waveform
from stretto_shared.features import ModelInfo, StyleSpan
from stretto_shared.tokens import TokenMatrix

from stretto_orchestrator.clients import RefineRequest, SemanticRequest, Stages
from stretto_orchestrator.flows.cascades import Cascade
from stretto_orchestrator.flows.chain import TokenStage
from stretto_orchestrator.flows.composing import Piece
from stretto_orchestrator.flows.recording import encoded_for, last_seconds, last_whole_frames
from stretto_orchestrator.flows.story import PromptSpan, as_style, told_styles


@dataclass(frozen=True, eq=False)
class Heard:
    """The end of a recording as each stage hears it, and the language models that it was encoded for."""

    semantic: TokenMatrix
    sound: TokenMatrix
    coarse_model: ModelInfo
    fine_model: ModelInfo | None

    @property
    def coarse(self) -> TokenMatrix:
        """The coarsest codebooks of the sound, as many as the coarse stage makes."""
        return TokenMatrix(
            self.sound.codes[: self.coarse_model.num_codebooks], self.sound.frame_rate_hz, self.sound.codec_id
        )


@dataclass(frozen=True, eq=False)
class MusicLMBrief:
    """What the language models are told."""

    stages: Stages
    cascade: Cascade
    styles: tuple[StyleSpan, ...] = ()
    melody: TokenMatrix | None = None
    heard: Heard | None = None
    models: tuple[ModelInfo, ...] = ()

    @property
    def heard_s(self) -> float:
        return 0.0 if self.heard is None else self.heard.sound.duration_s

    async def after(self, recording: Waveform, listeners: Mapping[str, ModelInfo]) -> MusicLMBrief:
        """Without a prompt, the music is to be as the recording is."""
        stages, cascade, styles, models = self.stages, self.cascade, self.styles, self.models
        if not styles:
            joint, encoder = await stages.embedding.embed_audio(
                cascade.joint_model, last_seconds(recording), field="audio"
            )
            styles, models = (as_style(joint),), (encoder,)
        coarse_model = listeners[cascade.coarse_model]
        fine_model = listeners[cascade.fine_model] if cascade.fine_model else None
        sound = await encoded_for(fine_model or coarse_model, stages.codec, cascade.codec_model, recording)
        semantic, tokenizer = await stages.semantic.tokenize(
            cascade.tokenizer_model, last_whole_frames(recording, sound.frame_rate_hz), field="audio"
        )
        heard_frames = round(sound.duration_s * semantic.frame_rate_hz)
        heard = Heard(semantic.frames(0, heard_frames), sound, coarse_model, fine_model)
        return replace(self, styles=styles, heard=heard, models=(*models, tokenizer))

    def token_stages(self, piece: Piece) -> tuple[TokenStage, ...]:
        fine = (self._fine(piece),) if self.cascade.fine_model else ()
        return self._semantic(piece), self._coarse(piece), *fine

    def _semantic(self, piece: Piece) -> TokenStage:
        """What happens: semantic tokens of the style, and of a melody if there is one."""
        semantic = self.stages.semantic
        prompt = None if self.heard is None else self.heard.semantic
        request = SemanticRequest(
            model=self.cascade.semantic_model,
            styles=self.styles,
            melody=self.melody,
            prompt=prompt,
            duration_s=piece.duration_s,
            seed=piece.seed,
            sampling=piece.sampling,
            pacing=piece.pacing,
        )
        return TokenStage(
            semantic.stage, lambda source, resume_from: semantic.generate(request, resume_from), prompt=prompt
        )

    def _coarse(self, piece: Piece) -> TokenStage:
        """How it sounds, roughly: the coarsest codebooks of the codec, of the style and the semantic tokens."""
        prompt, prompt_model = (None, None) if self.heard is None else (self.heard.coarse, self.heard.coarse_model)
        return self._refining(self.cascade.coarse_model, self.styles, piece, prompt, prompt_model)

    def _fine(self, piece: Piece) -> TokenStage:
        """How it sounds, in full: all codebooks, of the coarsest alone."""
        prompt, prompt_model = (None, None) if self.heard is None else (self.heard.sound, self.heard.fine_model)
        return self._refining(self.cascade.fine_model, (), piece, prompt, prompt_model)

    def _refining(
        self,
        model: str,
        styles: tuple[StyleSpan, ...],
        piece: Piece,
        prompt: TokenMatrix | None,
        prompt_model: ModelInfo | None,
    ) -> TokenStage:
        request = RefineRequest(
            model=model,
            styles=styles,
            prompt=prompt,
            duration_s=piece.duration_s,
            seed=piece.seed,
            sampling=piece.sampling,
            pacing=piece.pacing,
        )
        acoustic = self.stages.acoustic
        return TokenStage(f"{acoustic.stage}/{model}", partial(acoustic.refine, request), prompt, prompt_model)


class MusicLM:
    """The composer of the kind `musiclm`."""

    def __init__(self, stages: Stages, cascade: Cascade) -> None:
        self._stages = stages
        self._cascade = cascade

    async def check_admission(self, piece: Piece, *, is_conditional: bool) -> None:
        """Nobody can say: each stage refuses as it is opened, once the request was heard."""

    async def read(
        self, prompt: str, melody: Waveform | None, story: Sequence[PromptSpan], duration_s: float
    ) -> MusicLMBrief:
        embedding, cascade = self._stages.embedding, self._cascade
        if not prompt:
            return MusicLMBrief(self._stages, cascade)
        styles, encoder = await told_styles(embedding, cascade.joint_model, prompt, story, duration_s)
        if melody is None:
            return MusicLMBrief(self._stages, cascade, styles, models=(encoder,))
        codes, listener = await embedding.melody_codes(cascade.melody_model, melody, field="melody")
        return MusicLMBrief(self._stages, cascade, styles, codes, models=(encoder, listener))

    async def listeners(self) -> Mapping[str, ModelInfo]:
        names = (self._cascade.coarse_model, self._cascade.fine_model)
        return {name: await self._stages.acoustic.last_known(name) for name in names if name}
