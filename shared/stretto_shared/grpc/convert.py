"""The one place where protobuf messages and value types meet.

`x_from_proto(message, field=...)` checks everything that the wire cannot promise and raises `InvalidInput` with the
caller's own field path, as in `melody.sample_rate_hz`; `x_to_proto(value)` cannot fail.

Most of this runs on the event loop, so a length is checked before anything is copied, and values all at once. What may
be large, whole clips and their tokens, a servicer converts in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import numpy as np
from google.protobuf.message import Message
from stretto.common.v1 import audio_pb2, features_pb2, model_pb2, tokens_pb2

from stretto_shared.audio import Waveform
from stretto_shared.errors import InvalidInput
from stretto_shared.features import (
    Chromagram,
    JointEmbedding,
    ModelInfo,
    SamplingOptions,
    StyleSpan,
    TextStates,
)
from stretto_shared.tokens import MAX_CHUNK_SCALE, MAX_CODEBOOKS, TokenMatrix

BYTES_PER_FLOAT = 4
FLOAT32_WIRE = np.dtype("<f4")
MAX_CODES = 1 << 22  # of one message; ten minutes at EnCodec's highest rate are a third of it
MAX_CHUNK_SCALES = 4096  # of one message; more than an hour of EnCodec 48 kHz
MAX_TEXT_DIMENSION = 16_384
MAX_MELODY_FRAMES = 65_536
MAX_STYLE_SPANS = 1024
_CODES_PER_STEP = 16_384
_Reply = TypeVar("_Reply")


class NewFrames(Protocol):
    """Consecutive new frames of a stage; `model` and `sampling` come with the first of a stream only."""

    @property
    def tokens(self) -> TokenMatrix: ...
    @property
    def first_frame(self) -> int: ...
    @property
    def num_total_frames(self) -> int: ...
    @property
    def model(self) -> ModelInfo | None: ...
    @property
    def sampling(self) -> SamplingOptions | None: ...


def waveform_to_proto(waveform: Waveform) -> audio_pb2.Waveform:
    """Interleave the channels."""
    return audio_pb2.Waveform(
        sample_rate_hz=waveform.sample_rate_hz,
        channel_count=waveform.num_channels,
        samples=np.ascontiguousarray(waveform.samples.T, dtype=FLOAT32_WIRE).tobytes(),
    )


def waveform_from_proto(message: audio_pb2.Waveform, field: str = "waveform") -> Waveform:
    """Check and de-interleave a clip of at least one sample.

    Raises:
        InvalidInput: If the clip is missing or empty, or its rate, channels, byte length or values are off.
    """
    _require(message, field)
    num_channels = message.channel_count
    if num_channels not in (1, 2):
        raise InvalidInput(f"{field}.channel_count", f"expected 1 or 2, got {num_channels}. Send mono or stereo audio.")
    raw = message.samples  # once: each access copies them
    num_bytes = len(raw)
    frame_bytes = BYTES_PER_FLOAT * num_channels
    if num_bytes == 0 or num_bytes % frame_bytes:
        raise InvalidInput(
            f"{field}.samples",
            f"expected a positive multiple of {frame_bytes} bytes (32-bit floats, {num_channels} channel(s)), "
            f"got {num_bytes}. Send float32 samples, interleaved.",
        )
    samples = np.frombuffer(raw, dtype=FLOAT32_WIRE).reshape(-1, num_channels).T
    with errors_named(field):
        return Waveform(samples, message.sample_rate_hz)


def tokens_to_proto(tokens: TokenMatrix) -> tokens_pb2.TokenMatrix:
    """Write the matrix row by row."""
    message = tokens_pb2.TokenMatrix(
        codec_id=tokens.codec_id,
        frame_rate_hz=tokens.frame_rate_hz,
        codebook_count=tokens.num_codebooks,
        chunk_scales=tokens.chunk_scales,
    )
    codes = tokens.codes.ravel()
    for start in range(0, codes.size, _CODES_PER_STEP):  # in one go, a long clip would let no other thread run
        message.codes.extend(codes[start : start + _CODES_PER_STEP].tolist())
    return message


def frames_to_proto(frames: NewFrames, reply: Callable[..., _Reply]) -> _Reply:
    """New frames as any message that carries such; the services' messages have the same fields."""
    return reply(
        tokens=tokens_to_proto(frames.tokens),
        first_frame_index=frames.first_frame,
        total_frame_count=frames.num_total_frames,
        model=None if frames.model is None else model_info_to_proto(frames.model),
        sampling=None if frames.sampling is None else sampling_to_proto(frames.sampling),
    )


def tokens_from_proto(message: tokens_pb2.TokenMatrix, field: str = "tokens") -> TokenMatrix:
    """Check and shape a token matrix; it may have no frames.

    Raises:
        InvalidInput: If the matrix is missing, names no codec, or its counts, rate, codes or scales are off.
    """
    _require(message, field)
    if not message.codec_id:
        raise InvalidInput(f"{field}.codec_id", "is required. Name the codec that made the tokens, as name@digest.")
    num_codebooks = message.codebook_count
    if not 1 <= num_codebooks <= MAX_CODEBOOKS:
        raise InvalidInput(f"{field}.codebook_count", f"expected 1 to {MAX_CODEBOOKS}, got {num_codebooks}.")
    num_codes = len(message.codes)
    if num_codes > MAX_CODES:
        raise InvalidInput(
            f"{field}.codes",
            f"expected at most {MAX_CODES} codes in one message, got {num_codes}. Send a longer clip in parts.",
        )
    if num_codes % num_codebooks:
        raise InvalidInput(
            f"{field}.codes",
            f"expected a multiple of codebook_count {num_codebooks}, got {num_codes} codes. Send whole frames.",
        )
    scales = _chunk_scales_from_proto(message, num_codes // num_codebooks, f"{field}.chunk_scales")
    codes = np.array(message.codes, dtype=np.int32).reshape(num_codebooks, -1)
    with errors_named(field):
        return TokenMatrix(codes, message.frame_rate_hz, message.codec_id, scales)


def _chunk_scales_from_proto(message: tokens_pb2.TokenMatrix, num_frames: int, field: str) -> tuple[float, ...]:
    num_scales, max_scales = len(message.chunk_scales), min(num_frames, MAX_CHUNK_SCALES)
    if num_scales > max_scales:
        raise InvalidInput(
            field,
            f"expected at most one for each of the message's {num_frames} frames, and {MAX_CHUNK_SCALES} in all, "
            f"got {num_scales}. Send the scale of a chunk with its first frame.",
        )
    scales = np.array(message.chunk_scales, dtype=np.float32)
    is_valid = (scales > 0) & (scales <= MAX_CHUNK_SCALE)  # neither holds for NaN
    if not is_valid.all():
        wrong = scales[is_valid.argmin()]
        raise InvalidInput(field, f"expected scales above 0 and at most {MAX_CHUNK_SCALE:g}, got {wrong:g}.")
    return tuple(scales.tolist())


def text_states_to_proto(states: TextStates) -> features_pb2.TextStates:
    """Write the vectors of one text."""
    return features_pb2.TextStates(
        encoder_id=states.encoder_id,
        dimension=states.dimension,
        pooled=states.pooled.tolist(),
        token_states=np.ascontiguousarray(states.states, dtype=FLOAT32_WIRE).tobytes(),
    )


def text_states_from_proto(message: features_pb2.TextStates, field: str = "text") -> TextStates:
    """Check and shape the vectors of one text.

    Raises:
        InvalidInput: If they are missing, name no encoder, or their sizes or values are off.
    """
    _require(message, field)
    if not message.encoder_id:
        raise InvalidInput(f"{field}.encoder_id", "is required. Name the encoder that made the states, as name@digest.")
    dimension = message.dimension
    if not 1 <= dimension <= MAX_TEXT_DIMENSION:
        raise InvalidInput(f"{field}.dimension", f"expected 1 to {MAX_TEXT_DIMENSION}, got {dimension}.")
    if len(message.pooled) != dimension:
        raise InvalidInput(f"{field}.pooled", f"expected {dimension} floats (dimension), got {len(message.pooled)}.")
    raw = message.token_states
    num_bytes = len(raw)
    if num_bytes == 0 or num_bytes % (BYTES_PER_FLOAT * dimension):
        raise InvalidInput(
            f"{field}.token_states",
            f"expected a positive multiple of {BYTES_PER_FLOAT * dimension} bytes (4 * dimension), got {num_bytes}.",
        )
    states = np.frombuffer(raw, dtype=FLOAT32_WIRE).reshape(-1, dimension)
    with errors_named(field):
        return TextStates(message.encoder_id, np.array(message.pooled, dtype=np.float32), states)


def joint_embedding_to_proto(embedding: JointEmbedding) -> features_pb2.JointEmbedding:
    """Write a point of a joint space and its codes."""
    return features_pb2.JointEmbedding(
        encoder_id=embedding.encoder_id, values=embedding.values.tolist(), codes=embedding.codes
    )


def joint_embedding_from_proto(message: features_pb2.JointEmbedding, field: str = "embedding") -> JointEmbedding:
    """Check a point of a joint space.

    Raises:
        InvalidInput: If it is missing, names no encoder, or its size, values or codes are off.
    """
    _require(message, field)
    if not message.encoder_id:
        raise InvalidInput(f"{field}.encoder_id", "is required. Name the joint encoder that made it, as name@digest.")
    if not 1 <= len(message.values) <= MAX_TEXT_DIMENSION:
        raise InvalidInput(f"{field}.values", f"expected 1 to {MAX_TEXT_DIMENSION} floats, got {len(message.values)}.")
    with errors_named(field):
        return JointEmbedding(message.encoder_id, np.array(message.values, dtype=np.float32), tuple(message.codes))


def style_spans_to_proto(spans: Sequence[StyleSpan]) -> list[features_pb2.StyleSpan]:
    """Write which style holds from when on."""
    return [
        features_pb2.StyleSpan(start_s=span.start_s, encoder_id=span.encoder_id, codes=span.codes) for span in spans
    ]


def style_spans_from_proto(messages: Sequence[features_pb2.StyleSpan], field: str = "styles") -> tuple[StyleSpan, ...]:
    """Check a list of styles, which may be empty.

    Raises:
        InvalidInput: If there are too many, one is malformed, the first does not start at 0, or starts do not rise, or
            they come from several encoders.
    """
    if len(messages) > MAX_STYLE_SPANS:
        raise InvalidInput(field, f"expected at most {MAX_STYLE_SPANS} spans, got {len(messages)}. Send fewer.")
    spans: list[StyleSpan] = []
    for index, message in enumerate(messages):
        path = f"{field}[{index}]"
        if not message.encoder_id:
            raise InvalidInput(
                f"{path}.encoder_id", "is required. Name the joint encoder of the codes, as name@digest."
            )
        with errors_named(path):
            span = StyleSpan(message.start_s, message.encoder_id, tuple(message.codes))
        if not spans and span.start_s != 0:
            raise InvalidInput(f"{path}.start_s", f"expected 0 for the first span, got {span.start_s:g}.")
        if spans and span.start_s <= spans[-1].start_s:
            raise InvalidInput(
                f"{path}.start_s",
                f"expected more than {spans[-1].start_s:g} s, got {span.start_s:g}. Put them in order.",
            )
        if spans and span.encoder_id != spans[0].encoder_id:
            raise InvalidInput(
                f"{path}.encoder_id", f"expected {spans[0].encoder_id!r} as in the first span, got {span.encoder_id!r}."
            )
        spans.append(span)
    return tuple(spans)


def chromagram_to_proto(melody: Chromagram) -> features_pb2.Chromagram:
    """Write a melody."""
    return features_pb2.Chromagram(frame_rate_hz=melody.frame_rate_hz, pitch_classes=melody.pitch_classes.tolist())


def chromagram_from_proto(message: features_pb2.Chromagram, field: str = "melody") -> Chromagram:
    """Check a melody of at least one frame.

    Raises:
        InvalidInput: If it is missing, empty or too long, or a pitch class or the rate is off.
    """
    _require(message, field)
    num_frames = len(message.pitch_classes)
    if num_frames > MAX_MELODY_FRAMES:
        raise InvalidInput(
            f"{field}.pitch_classes", f"expected 1 to {MAX_MELODY_FRAMES} frames, got {num_frames}. Cut the melody."
        )
    with errors_named(field):
        return Chromagram(np.array(message.pitch_classes, dtype=np.int32), message.frame_rate_hz)


def sampling_to_proto(sampling: SamplingOptions) -> model_pb2.SamplingOptions:
    """Write the options; None leaves a field unset."""
    return model_pb2.SamplingOptions(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        guidance_scale=sampling.guidance_scale,
    )


def sampling_from_proto(message: model_pb2.SamplingOptions, field: str = "sampling") -> SamplingOptions:
    """Check the options; an unset field, or an unset message, becomes None throughout.

    Raises:
        InvalidInput: On a value outside its range.
    """
    with errors_named(field):
        return SamplingOptions(
            temperature=message.temperature if message.HasField("temperature") else None,
            top_k=message.top_k if message.HasField("top_k") else None,
            top_p=message.top_p if message.HasField("top_p") else None,
            guidance_scale=message.guidance_scale if message.HasField("guidance_scale") else None,
        )


def model_info_to_proto(info: ModelInfo) -> model_pb2.ModelInfo:
    """Write what a service says of one of its models."""
    return model_pb2.ModelInfo(
        name=info.name,
        service=info.service,
        digest_sha256=info.digest_sha256,
        licence=info.licence,
        score=info.score,
        parameter_count=info.parameter_count,
        is_default=info.is_default,
        source=info.source,
        sample_rate_hz=info.sample_rate_hz,
        frame_rate_hz=info.frame_rate_hz,
        codebook_count=info.num_codebooks,
        channel_count=info.num_channels,
    )


def model_info_from_proto(message: model_pb2.ModelInfo, field: str = "model") -> ModelInfo:
    """Read what a service says of one of its models.

    Raises:
        InvalidInput: If it is missing or nameless.
    """
    _require(message, field)
    if not message.name:
        raise InvalidInput(f"{field}.name", "is required.")
    return ModelInfo(
        name=message.name,
        service=message.service,
        digest_sha256=message.digest_sha256,
        licence=message.licence,
        score=message.score,
        parameter_count=message.parameter_count,
        is_default=message.is_default,
        source=message.source,
        sample_rate_hz=message.sample_rate_hz,
        frame_rate_hz=message.frame_rate_hz,
        num_codebooks=message.codebook_count,
        num_channels=message.channel_count,
    )


def is_realtime_from_proto(pace: model_pb2.Pace, field: str = "pace") -> bool:
    """Whether somebody listens; not set, nobody does.

    Raises:
        InvalidInput: If it is a pace of a newer wire than this one.
    """
    if pace not in model_pb2.Pace.values():
        known = ", ".join(f"{value} ({name})" for name, value in model_pb2.Pace.items())
        raise InvalidInput(field, f"expected one of {known}, got {pace}. Choose one, or update the server.")
    return bool(pace == model_pb2.PACE_REALTIME)


@contextmanager
def errors_named(field: str) -> Iterator[None]:
    """Put the caller's field path in place of the value type's own first word."""
    try:
        yield
    except InvalidInput as error:
        _, dot, rest = error.field.partition(".")
        raise InvalidInput(f"{field}{dot}{rest}", error.description, reason=error.reason) from None


def _require(message: Message, field: str) -> None:
    """A message that nobody set arrives as one without fields."""
    if not message.ListFields():
        raise InvalidInput(field, "is required, but was not set.")
