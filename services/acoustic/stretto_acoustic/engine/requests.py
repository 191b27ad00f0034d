"""What a caller asks of the acoustic stage, checked against a model and put as its token engine takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stretto_shared.engine.program import TokenRequest
from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.stage_requests import MAX_PRIORITY, ROUNDING_FRAMES
from stretto_shared.errors import InvalidInput
from stretto_shared.features import Chromagram, SamplingOptions, TextStates
from stretto_shared.tokens import TokenMatrix

from stretto_acoustic.models.musicgen import MusicGenCondition, MusicGenConfig

MAX_TEXT_TOKENS = 512


@dataclass(frozen=True, eq=False)
class GenerateRequest:
    """One piece to generate; the fields are those of `stretto.acoustic.v1.GenerateTokensRequest`."""

    model: str
    duration_s: float
    seed: int
    sampling: SamplingOptions
    text: TextStates | None = None
    melody: Chromagram | None = None
    prompt: TokenMatrix | None = None
    resume_from: TokenMatrix | None = None
    is_realtime: bool = False
    priority: int = 0


def token_request(request: GenerateRequest, config: MusicGenConfig) -> TokenRequest[MusicGenCondition]:
    """Check a request against the model, and put it as the token engine takes it."""
    if not (math.isfinite(request.duration_s) and 0 < request.duration_s <= config.max_duration_s):
        raise InvalidInput(
            "duration_s",
            f"expected more than 0 and at most {config.max_duration_s:g} s, got {request.duration_s:g}. "
            "Ask for a shorter piece, and continue it from its end.",
        )
    if not 0 <= request.priority <= MAX_PRIORITY:
        raise InvalidInput("priority", f"expected 0 to {MAX_PRIORITY}, got {request.priority}. 0 is the usual one.")
    num_frames = max(1, math.ceil(request.duration_s * config.frame_rate_hz - ROUNDING_FRAMES))
    prompt = _known_codes(request.prompt, "prompt", config)
    resume_from = _known_codes(request.resume_from, "resume_from", config)
    if prompt.shape[1] >= num_frames:
        raise InvalidInput(
            "prompt",
            f"expected fewer than the {num_frames} frames of the whole piece, got {prompt.shape[1]}. "
            "Ask for a longer duration_s, which counts the prompt, or send a shorter prompt.",
        )
    if prompt.shape[1] + resume_from.shape[1] >= num_frames:
        raise InvalidInput(
            "resume_from",
            f"expected fewer than the {num_frames - prompt.shape[1]} frames after the prompt, got "
            f"{resume_from.shape[1]}. A piece that is complete needs no resume.",
        )
    return TokenRequest(
        condition=MusicGenCondition(
            _text_states(request.text, config), _pitch_classes(request.melody, config, num_frames)
        ),
        num_frames=num_frames,
        prompt=prompt,
        resume_from=resume_from,
        sampling=_sampling(request.sampling, config),
        seed=request.seed,
        is_realtime=request.is_realtime,
        priority=request.priority,
    )


def _text_states(text: TextStates | None, config: MusicGenConfig) -> NDArray[np.float32] | None:
    if text is None:
        return None
    if not _is_same(text.encoder_id, config.text_encoder_id):
        raise InvalidInput(
            "text.encoder_id",
            f"expected states of the text encoder {config.text_encoder_id!r}, got {text.encoder_id!r}. "
            "Embed the text with that encoder.",
            reason="ENCODER_MISMATCH",
        )
    if text.dimension != config.text_dim:
        raise InvalidInput("text.dimension", f"expected {config.text_dim}, got {text.dimension}. Use that encoder.")
    if text.states.shape[0] > MAX_TEXT_TOKENS:
        raise InvalidInput(
            "text.token_states",
            f"expected at most {MAX_TEXT_TOKENS} tokens, got {text.states.shape[0]}. Shorten the text.",
        )
    return text.states


def _pitch_classes(melody: Chromagram | None, config: MusicGenConfig, num_frames: int) -> NDArray[np.int32] | None:
    """Bring a melody to the model's rate and the piece's length: cut, or repeated from its start as MusicGen does."""
    if melody is None:
        return None
    if config.melody_conditioning == "none":
        raise InvalidInput(
            "melody", "expected none: this model has no melody conditioning. Leave it out, or choose a model with it."
        )
    wanted = math.ceil(num_frames / config.frame_rate_hz * config.chroma_frame_rate_hz)
    wanted = min(max(1, wanted), config.chroma_frames)
    sources = (np.arange(wanted) * (melody.frame_rate_hz / config.chroma_frame_rate_hz)).astype(np.int64)
    return melody.pitch_classes[sources % melody.pitch_classes.size]


def _known_codes(tokens: TokenMatrix | None, field: str, config: MusicGenConfig) -> NDArray[np.int32]:
    if tokens is None:
        return np.zeros((config.num_codebooks, 0), dtype=np.int32)
    if not _is_same(tokens.codec_id, config.codec_id):
        raise InvalidInput(
            f"{field}.codec_id",
            f"expected tokens of the codec {config.codec_id!r}, got {tokens.codec_id!r}. "
            "Encode the audio with that codec.",
            reason="CODEC_MISMATCH",
        )
    if tokens.num_codebooks != config.num_codebooks:
        raise InvalidInput(f"{field}.codebook_count", f"expected {config.num_codebooks}, got {tokens.num_codebooks}.")
    if tokens.frame_rate_hz != config.frame_rate_hz:
        raise InvalidInput(
            f"{field}.frame_rate_hz", f"expected {config.frame_rate_hz:g}, got {tokens.frame_rate_hz:g}."
        )
    if tokens.codes.size and int(tokens.codes.max()) >= config.cardinality:
        raise InvalidInput(
            f"{field}.codes", f"expected codes below {config.cardinality}, got {int(tokens.codes.max())}."
        )
    return tokens.codes


def _sampling(options: SamplingOptions, config: MusicGenConfig) -> Sampling:
    if options.top_k is not None and options.top_k > config.cardinality:
        raise InvalidInput(
            "sampling.top_k",
            f"expected 0 (all) to {config.cardinality}, the codes of one codebook, got {options.top_k}.",
        )
    defaults = Sampling(config.temperature, min(config.top_k, config.cardinality), config.top_p, config.guidance_scale)
    return defaults.filled_from(options)


def codec_id_of(request: GenerateRequest, config: MusicGenConfig) -> str:
    """Name the codec as the caller's own tokens do, digest included, so that the parts of a piece go together."""
    for tokens in (request.prompt, request.resume_from):
        if tokens is not None:
            return tokens.codec_id
    return config.codec_id


def _is_same(given: str, expected: str) -> bool:
    """Compare `{name}@{digest}` of what a caller sends with the model's own; where one has no digest, names decide."""
    given_name, _, given_digest = given.partition("@")
    name, _, digest = expected.partition("@")
    return given_name == name and (given_digest == digest or not given_digest or not digest)
