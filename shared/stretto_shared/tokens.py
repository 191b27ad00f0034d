"""`TokenMatrix`: codec tokens as every room of the house passes them on. Numpy only; no torch, no wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_shared.errors import InvalidInput

MAX_CODEBOOKS = 64
MAX_FRAME_RATE_HZ = 1000.0
MAX_CHUNK_SCALE = 1e4  # loudness that a chunk was divided by, relative to full scale


@dataclass(frozen=True, eq=False)
class TokenMatrix:
    """Tokens [K, T] of one codec; codebook 0 is the coarsest.

    Invariant: `codes` is int32 [K, T], read-only, not negative; 1 to 64 codebooks; `chunk_scales` is empty unless
    the codec normalises its chunks. Whether a code is below the cardinality only the codec knows.

    Raises:
        InvalidInput: On any other shape or value.
    """

    codes: NDArray[np.int32]
    frame_rate_hz: float
    codec_id: str
    chunk_scales: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        codes = np.array(self.codes, dtype=np.int32, copy=True, order="C")
        if codes.ndim != 2 or not 1 <= codes.shape[0] <= MAX_CODEBOOKS:
            raise InvalidInput(
                "tokens.codebook_count",
                f"expected a matrix [K, T] with 1 to {MAX_CODEBOOKS} codebooks, got shape {codes.shape}.",
            )
        if codes.size and int(codes.min()) < 0:
            raise InvalidInput("tokens.codes", f"expected codes of at least 0, got {int(codes.min())}.")
        if not 0 < self.frame_rate_hz <= MAX_FRAME_RATE_HZ:
            raise InvalidInput(
                "tokens.frame_rate_hz", f"expected above 0 and at most {MAX_FRAME_RATE_HZ:g}, got {self.frame_rate_hz}."
            )
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)

    @property
    def num_codebooks(self) -> int:
        return int(self.codes.shape[0])

    @property
    def num_frames(self) -> int:
        return int(self.codes.shape[1])

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.frame_rate_hz

    def frames(self, start: int, stop: int) -> TokenMatrix:
        """Frames [start, stop) as a matrix of their own."""
        return TokenMatrix(self.codes[:, start:stop], self.frame_rate_hz, self.codec_id, self.chunk_scales)


def concatenate(parts: Sequence[TokenMatrix]) -> TokenMatrix:
    """Join consecutive runs of frames of one codec.

    Raises:
        InvalidInput: If there is no part, or the parts differ in codec, rate or codebooks.
    """
    if not parts:
        raise InvalidInput("tokens", "expected at least one matrix, got none.")
    first = parts[0]
    for part in parts[1:]:
        if (part.codec_id, part.frame_rate_hz, part.num_codebooks) != (
            first.codec_id,
            first.frame_rate_hz,
            first.num_codebooks,
        ):
            raise InvalidInput(
                "tokens.codec_id",
                f"expected tokens of {first.codec_id!r} ({first.num_codebooks} codebooks, {first.frame_rate_hz:g} Hz), "
                f"got {part.codec_id!r} ({part.num_codebooks}, {part.frame_rate_hz:g} Hz). Send one codec per stream.",
            )
    codes = np.concatenate([part.codes for part in parts], axis=1)
    scales = tuple(scale for part in parts for scale in part.chunk_scales)
    return TokenMatrix(codes, first.frame_rate_hz, first.codec_id, scales)
