"""Incoming runs of frames, checked and cut again on the codec's fixed grid of chunks. Numpy only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from stretto_shared.errors import Conflict, InvalidInput
from stretto_shared.features import ModelInfo
from stretto_shared.tokens import TokenMatrix

from stretto_codec.models.streaming import DecodeGrid

MAX_SCALES_AHEAD = 4096


@dataclass(frozen=True, eq=False)
class Chunk:
    """One step of a decoder: which one, codes [K, T], and the loudness where the codec has one."""

    index: int
    codes: NDArray[np.int32]
    scale: float | None


class FrameBuffer:
    """The frames of one clip that came and are not decoded yet.

    Invariant: the chunks that `take` gives depend on the frames only, never on how they were cut into messages.
    It holds less than a chunk beside the last message, and few loudnesses that have no frames yet.
    """

    def __init__(self, info: ModelInfo, cardinality: int, grid: DecodeGrid, *, tokens_id: str = "") -> None:
        self._info = info
        self._tokens_id = tokens_id or info.model_id
        self._cardinality = cardinality
        self._grid = grid
        self._codes = np.zeros((0, 0), dtype=np.int32)
        self._scales: deque[float] = deque()
        self._num_messages = 0
        self._num_taken = 0

    def add(self, tokens: TokenMatrix) -> None:
        """Append the next run of frames.

        Raises:
            InvalidInput: If they are not of this codec, there are none, or too many loudnesses come ahead of them.
            Conflict: If the number of codebooks is not that of the frames before.
        """
        self._check(tokens)
        if self._num_messages and tokens.num_codebooks != self._codes.shape[0]:
            raise Conflict(
                f"tokens.codebook_count: expected {self._codes.shape[0]} as in the messages before, "
                f"got {tokens.num_codebooks}. Send one codebook count per stream."
            )
        self._codes = np.concatenate([self._codes, tokens.codes], axis=1) if self._num_messages else tokens.codes
        self._add_scales(tokens.chunk_scales)
        self._num_messages += 1

    def take(self, *, at_end: bool) -> Chunk | None:
        """The next chunk, or None if more frames have to come first.

        Args:
            at_end: Whether all frames have come.

        Raises:
            InvalidInput: At the end, if there never was a frame, or loudnesses are left over; and always if the
                chunk's own is missing.
        """
        size = self._grid.size(self._num_taken)
        num_frames = self._codes.shape[1]
        if num_frames < size and not at_end:
            return None
        if num_frames == 0:
            self._check_end()
            return None
        chunk = Chunk(self._num_taken, self._codes[:, :size], self._take_scale())
        self._codes = self._codes[:, size:]
        self._num_taken += 1
        return chunk

    def _check(self, tokens: TokenMatrix) -> None:
        info = self._info
        # A model published elsewhere knows only the name, and one that reads ListModels the id of this number format.
        if tokens.codec_id not in (self._tokens_id, info.model_id, info.name):
            raise InvalidInput(
                "tokens.codec_id",
                f"expected {self._tokens_id!r}, got {tokens.codec_id!r}. Decode with the codec that made the tokens.",
            )
        if tokens.num_codebooks > info.num_codebooks:
            raise InvalidInput(
                "tokens.codebook_count",
                f"expected 1 to {info.num_codebooks} for codec {info.name!r}, got {tokens.num_codebooks}.",
            )
        if abs(tokens.frame_rate_hz - info.frame_rate_hz) > 1e-6:
            raise InvalidInput(
                "tokens.frame_rate_hz",
                f"expected {info.frame_rate_hz:g} for codec {info.name!r}, got {tokens.frame_rate_hz:g}.",
            )
        if tokens.num_frames == 0:
            raise InvalidInput("tokens.codes", "expected at least one frame, got none. Leave empty messages out.")
        if tokens.chunk_scales and not self._grid.is_scaled:
            raise InvalidInput("tokens.chunk_scales", f"expected none, since codec {info.name!r} does not normalise.")
        if int(tokens.codes.max()) >= self._cardinality:
            position = int((tokens.codes >= self._cardinality).argmax())  # the first, in the order of the wire
            codebook, frame = divmod(position, tokens.num_frames)
            raise InvalidInput(
                f"tokens.codes[{position}]",
                f"expected 0 to {self._cardinality - 1} for codec {info.name!r}, "
                f"got {tokens.codes[codebook, frame]} (codebook {codebook}, frame {frame} of the message).",
            )

    def _add_scales(self, scales: tuple[float, ...]) -> None:
        num_chunks = -(-self._codes.shape[1] // self._grid.chunk_frames)
        num_ahead = len(self._scales) + len(scales) - num_chunks
        if num_ahead > MAX_SCALES_AHEAD:
            raise InvalidInput(
                "tokens.chunk_scales",
                f"expected one for each chunk of {self._grid.chunk_frames} frames, at most {MAX_SCALES_AHEAD} of them "
                f"ahead of their frames, got {num_ahead} ahead. Send a chunk's own with its first frame.",
            )
        self._scales.extend(scales)

    def _check_end(self) -> None:
        if self._num_messages == 0:
            raise InvalidInput("tokens", "expected at least one frame before the end of the stream, got none.")
        if self._scales:
            raise InvalidInput(
                "tokens.chunk_scales",
                f"expected one for each chunk of {self._grid.chunk_frames} frames, got {len(self._scales)} more.",
            )

    def _take_scale(self) -> float | None:
        if not self._grid.is_scaled:
            return None
        if not self._scales:
            raise InvalidInput(
                "tokens.chunk_scales",
                f"expected one for each chunk of {self._grid.chunk_frames} frames, got too few. "
                "Send a chunk's own with its first frame.",
            )
        return self._scales.popleft()
