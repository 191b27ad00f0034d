"""What a caller asks of one stage of a token cascade, checked against its model, and what a window is told of it.

A stage that goes on with the codebooks of its own source, as a fine stage does, gives those that it read as well: its
tokens are whole ones, coarsest first, and so are a caller's prompt and what is resumed from.

Legend: K codebooks that the stage draws, G that it gives, T frames, Q codes of a style, N codebooks and U columns of a
melody, J codebooks and W frames of the source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_shared.engine.sampling import Sampling
from stretto_shared.engine.windows import Window, WindowedRequest, WindowLayout
from stretto_shared.errors import InvalidInput, NotFound
from stretto_shared.features import MAX_PIECE_S, SamplingOptions, StyleSpan
from stretto_shared.nn.stage_lm.config import StageCondition, StageConfig
from stretto_shared.tokens import TokenMatrix

MAX_PRIORITY = 9
ROUNDING_FRAMES = 1e-6  # 0.3 s at 50 Hz is 15 frames, though 0.3 * 50 is a little more in binary


@dataclass(frozen=True, eq=False)
class StageRequest:
    """One piece for one stage; the fields are those of `GenerateTokensRequest` and of `RefineConfig`."""

    model: str
    duration_s: float
    seed: int
    sampling: SamplingOptions
    styles: tuple[StyleSpan, ...] = ()
    melody: TokenMatrix | None = None
    prompt: TokenMatrix | None = None
    resume_from: TokenMatrix | None = None
    is_realtime: bool = False
    priority: int = 0


def layout_of(config: StageConfig) -> WindowLayout:
    """How pieces of a stage lie in windows."""
    return WindowLayout(config.num_codebooks, config.window_frames, config.stride_frames)


def continues_source(config: StageConfig) -> bool:
    """Whether the stage's codebooks follow those of its source, in the same tokens."""
    return config.hears_source and config.tokens == config.source_tokens


def num_given_codebooks(config: StageConfig) -> int:
    """G: codebooks of what the stage gives."""
    return config.num_codebooks + (config.num_source_codebooks if continues_source(config) else 0)


class StagePiece:
    """A request that fits its stage: how it is drawn, and what the model is told of each window.

    Raises:
        InvalidInput: If the request does not fit the model.
    """

    def __init__(self, request: StageRequest, config: StageConfig) -> None:
        _check_numbers(request)
        self._config = config
        self._styles = _style_codes(request.styles, config)
        self._melody = _melody_codes(request.melody, config)
        self.num_frames = max(1, math.ceil(request.duration_s * config.frame_rate_hz - ROUNDING_FRAMES))
        self._num_sounding = max(1, math.ceil(request.duration_s * config.source_frame_rate_hz - ROUNDING_FRAMES))
        self.known = self._known(request)  # [G, T]
        self.tokens_id = next((t.codec_id for t in (request.prompt, request.resume_from) if t), config.tokens)
        num_prompt = 0 if request.prompt is None else request.prompt.num_frames
        own = self.known[-config.num_codebooks :]
        self.wanted = WindowedRequest(
            num_frames=self.num_frames,
            prompt=own[:, :num_prompt],
            resume_from=own[:, num_prompt:],
            sampling=_sampling(request.sampling, config),
            seed=request.seed,
            typical=self._typical(),
            cuts=tuple(frame for frame, _ in self._styles if frame),
            is_realtime=request.is_realtime,
            priority=request.priority,
        )

    @property
    def num_source_frames(self) -> int:
        """Source frames that the whole piece needs: those that begin before its end, which may lie inside a frame."""
        return min(self._config.source_frames(self.num_frames), self._num_sounding)

    def source_range(self, window: Window) -> tuple[int, int]:
        """Source frames [start, stop) of a window."""
        start = _first_column(window.start, self._config.source_frame_rate_hz, self._config)
        return start, min(start + self._config.source_frames(window.num_frames), self.num_source_frames)

    def condition(self, window: Window, source: NDArray[np.int32] | None = None) -> StageCondition:
        """What the model is told of a window: the style in force, its part of the melody, and its source [J, W]."""
        in_force = [codes for frame, codes in self._styles if frame <= window.first_new]
        return StageCondition(
            style=in_force[-1] if in_force else None,
            melody=self._melody_of(window),
            source=None if source is None else source.astype(np.int64),
        )

    def _melody_of(self, window: Window) -> NDArray[np.int64] | None:
        """The columns [N, U] of a window; a melody that is over begins again."""
        if self._melody is None:
            return None
        first = _first_column(window.start, self._config.melody_frame_rate_hz, self._config)
        columns = first + np.arange(self._config.melody_frames(window.num_frames))
        return self._melody[:, columns % self._melody.shape[1]]

    def _typical(self) -> StageCondition:
        longest = Window(0, 0, min(self.num_frames, self._config.window_frames))
        num_source = self._config.source_frames(longest.num_frames)
        source = np.zeros((self._config.num_source_codebooks, num_source), dtype=np.int32)
        return self.condition(longest, source if self._config.hears_source else None)

    def _known(self, request: StageRequest) -> NDArray[np.int32]:
        prompt = _known_codes(request.prompt, "prompt", self._config)
        resume_from = _known_codes(request.resume_from, "resume_from", self._config)
        if prompt.shape[1] >= self.num_frames:
            raise InvalidInput(
                "prompt",
                f"expected fewer than the {self.num_frames} frames of the whole piece, got {prompt.shape[1]}. "
                "Ask for a longer duration_s, which counts the prompt, or send a shorter prompt.",
            )
        if prompt.shape[1] + resume_from.shape[1] >= self.num_frames:
            raise InvalidInput(
                "resume_from",
                f"expected fewer than the {self.num_frames - prompt.shape[1]} frames after the prompt, got "
                f"{resume_from.shape[1]}. A piece that is complete needs no resume.",
            )
        return np.concatenate([prompt, resume_from], axis=1)


@contextmanager
def fields_below(path: str) -> Iterator[None]:
    """Name the fields of errors by their path in a message that holds the request under `path`."""
    try:
        yield
    except (InvalidInput, NotFound) as error:
        raise type(error)(f"{path}.{error.field}", error.description, reason=error.reason) from None


def is_same_maker(given: str, expected: str) -> bool:
    """Compare `{name}@{digest}` of what a caller sends with the model's own; where one has no digest, names decide."""
    given_name, _, given_digest = given.partition("@")
    name, _, digest = expected.partition("@")
    return given_name == name and (given_digest == digest or not given_digest or not digest)


def check_tokens(
    tokens: TokenMatrix, field: str, *, made_by: str, num_codebooks: int, frame_rate_hz: float, cardinality: int
) -> None:
    """Refuse tokens that are not those that a model was trained on.

    Raises:
        InvalidInput: Naming the field.
    """
    if not is_same_maker(tokens.codec_id, made_by):
        raise InvalidInput(
            f"{field}.codec_id",
            f"expected tokens of {made_by!r}, on which this model was trained, got {tokens.codec_id!r}. Use that one.",
            reason="CODEC_MISMATCH",
        )
    if tokens.num_codebooks != num_codebooks:
        raise InvalidInput(f"{field}.codebook_count", f"expected {num_codebooks}, got {tokens.num_codebooks}.")
    if tokens.frame_rate_hz != frame_rate_hz:
        raise InvalidInput(f"{field}.frame_rate_hz", f"expected {frame_rate_hz:g}, got {tokens.frame_rate_hz:g}.")
    _check_codes(tokens.codes, f"{field}.codes", cardinality)


def _check_codes(codes: NDArray[np.int32], field: str, cardinality: int) -> None:
    if codes.size and int(codes.max()) >= cardinality:
        raise InvalidInput(field, f"expected codes below {cardinality}, got {int(codes.max())}.")


def _check_numbers(request: StageRequest) -> None:
    if not (math.isfinite(request.duration_s) and 0 < request.duration_s <= MAX_PIECE_S):
        raise InvalidInput(
            "duration_s",
            f"expected more than 0 and at most {MAX_PIECE_S:g} s, got {request.duration_s:g}. "
            "Ask for a shorter piece, and continue it from its end.",
        )
    if not 0 <= request.priority <= MAX_PRIORITY:
        raise InvalidInput("priority", f"expected 0 to {MAX_PRIORITY}, got {request.priority}. 0 is the usual one.")


def _style_codes(spans: Sequence[StyleSpan], config: StageConfig) -> list[tuple[int, NDArray[np.int64]]]:
    """Codes [Q] by the frame from which on they hold; a span with the codes of the one before changes nothing."""
    if spans and not config.hears_style:
        raise InvalidInput("styles", "expected none: this model hears no style. Leave them out.")
    changes: list[tuple[int, NDArray[np.int64]]] = []
    for index, span in enumerate(spans):
        field = f"styles[{index}]"
        if not is_same_maker(span.encoder_id, config.style_encoder):
            raise InvalidInput(
                f"{field}.encoder_id",
                f"expected codes of the joint encoder {config.style_encoder!r}, on which this model was trained, got "
                f"{span.encoder_id!r}. Embed with that encoder.",
                reason="ENCODER_MISMATCH",
            )
        if len(span.codes) != config.num_style_codes:
            raise InvalidInput(
                f"{field}.codes", f"expected {config.num_style_codes} codes, got {len(span.codes)}. Send all of them."
            )
        codes = np.array(span.codes, dtype=np.int64)
        _check_codes(codes.astype(np.int32), f"{field}.codes", config.style_cardinality)
        frame = math.ceil(span.start_s * config.frame_rate_hz - ROUNDING_FRAMES)
        while changes and changes[-1][0] >= frame:  # of two changes within one frame the later one holds
            changes.pop()
        if not changes or not np.array_equal(changes[-1][1], codes):
            changes.append((frame, codes))
    return changes


def _melody_codes(melody: TokenMatrix | None, config: StageConfig) -> NDArray[np.int64] | None:
    if melody is None:
        return None
    if not config.hears_melody:
        raise InvalidInput("melody", "expected none: this model has no melody conditioning. Leave it out.")
    check_tokens(
        melody,
        "melody",
        made_by=config.melody_encoder,
        num_codebooks=config.num_melody_codebooks,
        frame_rate_hz=config.melody_frame_rate_hz,
        cardinality=config.melody_cardinality,
    )
    if melody.num_frames == 0:
        raise InvalidInput("melody.codes", "expected at least one frame, got none. Leave the melody out for none.")
    return melody.codes.astype(np.int64)


def _known_codes(tokens: TokenMatrix | None, field: str, config: StageConfig) -> NDArray[np.int32]:
    """Frames [G, T] that a caller sends; none where it sends none."""
    if tokens is None:
        return np.zeros((num_given_codebooks(config), 0), dtype=np.int32)
    num_read = num_given_codebooks(config) - config.num_codebooks
    check_tokens(
        tokens,
        field,
        made_by=config.tokens,
        num_codebooks=num_given_codebooks(config),
        frame_rate_hz=config.frame_rate_hz,
        cardinality=max(config.cardinality, config.source_cardinality if num_read else 0),
    )
    _check_codes(tokens.codes[:num_read], f"{field}.codes", config.source_cardinality)
    _check_codes(tokens.codes[num_read:], f"{field}.codes", config.cardinality)
    return tokens.codes


def _sampling(options: SamplingOptions, config: StageConfig) -> Sampling:
    if options.top_k is not None and options.top_k > config.cardinality:
        raise InvalidInput(
            "sampling.top_k",
            f"expected 0 (all) to {config.cardinality}, the codes of one codebook, got {options.top_k}.",
        )
    defaults = Sampling(config.temperature, min(config.top_k, config.cardinality), config.top_p, config.guidance_scale)
    return defaults.filled_from(options)


def _first_column(frame: int, rate_hz: float, config: StageConfig) -> int:
    """The column of something at `rate_hz` in which one of the stage's own frames begins."""
    return math.floor(frame * rate_hz / config.frame_rate_hz + ROUNDING_FRAMES)
