"""`TextStates`, `JointEmbedding`, `ModelInfo` and others: what travels between stages beside tokens and audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_shared.errors import InvalidInput

CHROMA_FRAME_RATE_HZ = 7.8125
NUM_PITCH_CLASSES = 12
MAX_STYLE_CODES = 64
MAX_PIECE_S = 600.0


@dataclass(frozen=True, eq=False)
class TextStates:
    """One text as a text encoder hears it.

    Invariant: `pooled` is float32 [D], `states` float32 [L, D] without padding, both finite and read-only.
    """

    encoder_id: str
    pooled: NDArray[np.float32]
    states: NDArray[np.float32]

    def __post_init__(self) -> None:
        pooled = np.array(self.pooled, dtype=np.float32, copy=True)
        states = np.array(self.states, dtype=np.float32, copy=True)
        if pooled.ndim != 1 or states.ndim != 2 or states.shape[1] != pooled.shape[0] or states.shape[0] < 1:
            raise InvalidInput(
                "text.token_states",
                f"expected pooled [D] and states [L, D] with L >= 1, got {pooled.shape} and {states.shape}.",
            )
        if not (np.isfinite(pooled).all() and np.isfinite(states).all()):
            raise InvalidInput("text.token_states", "expected finite values, got NaN or infinity.")
        pooled.setflags(write=False)
        states.setflags(write=False)
        object.__setattr__(self, "pooled", pooled)
        object.__setattr__(self, "states", states)

    @property
    def dimension(self) -> int:
        return int(self.pooled.shape[0])


@dataclass(frozen=True, eq=False)
class JointEmbedding:
    """A text or a recording as a point of the space that both share.

    Invariant: `values` is float32 [D], finite, of unit length and read-only; `codes` are its codes by residual vector
    quantisation, coarsest first, and empty where the encoder has no quantiser.
    """

    encoder_id: str
    values: NDArray[np.float32]
    codes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float32, copy=True)
        if values.ndim != 1 or values.size < 1:
            raise InvalidInput("embedding.values", f"expected at least one float [D], got shape {values.shape}.")
        norm = float(np.linalg.norm(values))
        if not (np.isfinite(norm) and norm > 0):
            raise InvalidInput("embedding.values", f"expected finite values that are not all 0, got norm {norm}.")
        _check_codes("embedding.codes", self.codes)
        values /= norm
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def similarity(self, other: JointEmbedding) -> float:
        """Cosine of the two, -1 to 1."""
        return float(np.dot(self.values, other.values))


@dataclass(frozen=True)
class StyleSpan:
    """The codes of a `JointEmbedding` that hold from `start_s` on.

    Raises:
        InvalidInput: On a start outside [0, 600], or codes that are missing, too many or negative.
    """

    start_s: float
    encoder_id: str
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= MAX_PIECE_S:
            raise InvalidInput("style.start_s", f"expected 0 to {MAX_PIECE_S:g} s, got {self.start_s:g}.")
        if not self.codes:
            raise InvalidInput("style.codes", "expected at least one code, got none. Send those of a joint embedding.")
        _check_codes("style.codes", self.codes)


def _check_codes(field: str, codes: tuple[int, ...]) -> None:
    if len(codes) > MAX_STYLE_CODES:
        raise InvalidInput(field, f"expected at most {MAX_STYLE_CODES} codes, got {len(codes)}.")
    if codes and min(codes) < 0:
        raise InvalidInput(field, f"expected codes of 0 or more, got {min(codes)}.")


@dataclass(frozen=True, eq=False)
class Chromagram:
    """The strongest pitch class of each frame, 0 (C) to 11 (B), or -1 for silence: int32 [T], read-only."""

    pitch_classes: NDArray[np.int32]
    frame_rate_hz: float = CHROMA_FRAME_RATE_HZ

    def __post_init__(self) -> None:
        classes = np.array(self.pitch_classes, dtype=np.int32, copy=True)
        if classes.ndim != 1 or classes.size < 1:
            raise InvalidInput("melody.pitch_classes", f"expected at least one frame [T], got shape {classes.shape}.")
        if int(classes.min()) < -1 or int(classes.max()) >= NUM_PITCH_CLASSES:
            raise InvalidInput("melody.pitch_classes", "expected -1 to 11 in every frame. Use -1 for silence.")
        if not 0 < self.frame_rate_hz <= 1000:
            raise InvalidInput("melody.frame_rate_hz", f"expected above 0 and at most 1000, got {self.frame_rate_hz}.")
        classes.setflags(write=False)
        object.__setattr__(self, "pitch_classes", classes)


@dataclass(frozen=True)
class SamplingOptions:
    """How to draw tokens; None takes the model's own default. Ranges as in `stretto.common.v1.SamplingOptions`.

    Raises:
        InvalidInput: On a value outside its range.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    guidance_scale: float | None = None

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, lambda v: v == 0 or 0.01 <= v <= 10, "0, or 0.01 to 10")
        _check("top_k", self.top_k, lambda v: 0 <= v <= 1_000_000, "0 (all) or more")
        _check("top_p", self.top_p, lambda v: 0 < v <= 1, "above 0 and at most 1")
        _check("guidance_scale", self.guidance_scale, lambda v: 0 <= v <= 20, "0 to 20")


def _check(name: str, value: float | None, valid: Callable[[float], bool], expected: str) -> None:
    if value is not None and not valid(value):
        raise InvalidInput(f"sampling.{name}", f"expected {expected}, got {value}.")


@dataclass(frozen=True)
class ModelInfo:
    """What a service says of one of its models; the fields are those of `stretto.common.v1.ModelInfo`."""

    name: str
    service: str
    digest_sha256: str
    licence: str
    score: str = ""
    parameter_count: int = 0
    is_default: bool = False
    source: str = "default"
    sample_rate_hz: int = 0
    frame_rate_hz: float = 0.0
    num_codebooks: int = 0
    num_channels: int = 0

    @property
    def is_stereo(self) -> bool:
        """Whether its audio, or that which a language model's tokens stand for, has two channels."""
        return self.num_channels == 2

    @property
    def model_id(self) -> str:
        """`{name}@{first 12 hex digits of the digest}`: how tokens and states name what made them."""
        return f"{self.name}@{self.digest_sha256[:12]}"
