"""How any codec decodes piece by piece on its fixed grid of chunks. Knows nothing of requests and threads.

The engine cuts the frames of a clip at absolute multiples of `DecodeGrid.chunk_frames` and feeds one chunk a step,
so that a stream and a unary call run the same arithmetic.

Legend: C channels, S samples, K codebooks, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

CHUNK_DURATION_S = 0.4


@dataclass(frozen=True)
class DecodeGrid:
    """Where a codec's chunks begin and end.

    Args:
        chunk_frames: Frames of every chunk but the last, which may have fewer.
        lookahead_frames: Frames after a chunk that its step wants to see as well; fewer only at the end of the clip.
        is_scaled: Whether each chunk comes with a loudness, in `TokenMatrix.chunk_scales`.
    """

    chunk_frames: int
    lookahead_frames: int = 0
    is_scaled: bool = False


class CodecConfig(Protocol):
    """What every codec's config says."""

    @property
    def sample_rate_hz(self) -> int: ...
    @property
    def num_channels(self) -> int: ...
    @property
    def hop_length(self) -> int: ...
    @property
    def num_codebooks(self) -> int: ...
    @property
    def cardinality(self) -> int: ...
    @property
    def frame_rate_hz(self) -> float: ...


class ChunkDecoder(Protocol):
    """Decodes one clip, chunk after chunk; holds its state."""

    def step(self, codes: Tensor, ahead: Tensor, scale: float | None) -> Tensor:
        """Decode the next chunk.

        Args:
            codes: The chunk, [1, K, T].
            ahead: The frames after it, [1, K, A] with A <= lookahead_frames.
            scale: The chunk's loudness where the grid is scaled.

        Returns:
            The next samples of the clip, [1, C, S].
        """
        ...

    def finish(self) -> Tensor | None:
        """The samples that were held back for a chunk that never came, [1, C, S], or None."""
        ...


class CausalModule(Protocol):
    """A codec whose samples depend on no later frame."""

    def init_decoder_state(self, batch_size: int) -> Any:
        """The state before the first frame."""
        ...

    def decode_chunk(self, codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Codes [B, K, T] to audio [B, C, T * hop] and the state after them."""
        ...


class CausalChunkDecoder:
    """A `ChunkDecoder` over a causal module."""

    def __init__(self, module: CausalModule) -> None:
        self._module = module
        self._state = module.init_decoder_state(1)

    def step(self, codes: Tensor, ahead: Tensor, scale: float | None) -> Tensor:
        audio, self._state = self._module.decode_chunk(codes, self._state)
        return audio

    def finish(self) -> Tensor | None:
        return None


def grid_of(config: CodecConfig) -> DecodeGrid:
    """The grid of a causal codec: chunks of `CHUNK_DURATION_S`."""
    return DecodeGrid(chunk_frames=max(1, round(config.frame_rate_hz * CHUNK_DURATION_S)))


def decode_on_grid(decoder: ChunkDecoder, grid: DecodeGrid, codes: Tensor, scales: tuple[float, ...] = ()) -> Tensor:
    """Decode a whole clip [1, K, T] as the engine does, for recipes and tests: [1, C, S]."""
    parts = []
    for index, start in enumerate(range(0, codes.shape[-1], grid.chunk_frames)):
        stop = start + grid.chunk_frames
        ahead = codes[..., stop : stop + grid.lookahead_frames]
        parts.append(decoder.step(codes[..., start:stop], ahead, scales[index] if grid.is_scaled else None))
    rest = decoder.finish()
    return torch.cat(parts if rest is None else [*parts, rest], dim=-1)
