"""How any codec decodes piece by piece on its fixed grid of chunks. Knows nothing of requests and threads.

The engine cuts the frames of a clip where `DecodeGrid` says, counted from the clip's first frame, and feeds one chunk a
step, so that a stream and a unary call run the same arithmetic. A decoder keeps nothing of a clip but its state, so
that clips can share a step: their states are joined along the batch, and parted again after it.

Legend: B batch (of clips), C channels, S samples, K codebooks, T frames.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stretto_codec.models.packed_matrix import PackedMatrix, try_joining

CHUNK_DURATION_S = 0.4
FIRST_CUTS_S = (0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
"""Where the chunks before those of `CHUNK_DURATION_S` end. The first is short, so that audio begins early; others grow
no faster than a player empties what it got, as long as a second of tokens takes at most 0.8 s and the codec hears at
most 75 ms ahead (`tests/services/codec/test_decode_grid.py`)."""


@dataclass(frozen=True)
class DecodeGrid:
    """Where a codec's chunks begin and end.

    Args:
        chunk_frames: Frames of every chunk but the first few, and the last, which may have fewer.
        first_chunks: Frames of the first few.
        is_scaled: Whether each chunk comes with a loudness, in `TokenMatrix.chunk_scales`.
    """

    chunk_frames: int
    first_chunks: tuple[int, ...] = ()
    is_scaled: bool = False

    def size(self, index: int) -> int:
        """Frames of chunk `index`, counted from 0, unless the clip ends before."""
        return self.first_chunks[index] if index < len(self.first_chunks) else self.chunk_frames

    @property
    def kinds(self) -> list[int]:
        """The first chunk's size, and then each size that later ones have."""
        return [self.size(0), *sorted({self.chunk_frames, *self.first_chunks[1:]})]

    def cuts(self, num_frames: int) -> Iterator[tuple[int, int]]:
        """First frame and end of each chunk of a clip."""
        start = index = 0
        while start < num_frames:
            stop = min(start + self.size(index), num_frames)
            yield start, stop
            start, index = stop, index + 1


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


class StreamDecoder(Protocol):
    """Decodes clips chunk after chunk; holds the codec, and nothing of a clip."""

    can_join: bool
    """Whether states can be joined and parted, so that clips may share a step."""

    @property
    def joins_any(self) -> bool:
        """Whether any number of them may: none of its products has another order of sums for another number."""
        ...

    def open(self) -> Any:
        """The state of one clip before its first frame."""
        ...

    def step(self, codes: Tensor, state: Any, scale: float | None) -> tuple[Tensor, Any]:
        """Decode the next chunk of each clip.

        Args:
            codes: The chunks, [B, K, T].
            state: What was left by the step before, of B clips; it is not changed.
            scale: The chunk's loudness where the grid is scaled.

        Returns:
            The next samples of each clip, [B, C, S], and the state after them. S is T hops, but for a codec that
            hears later frames: its first chunks give fewer, and `finish` the rest.
        """
        ...

    def finish(self, state: Any) -> Tensor | None:
        """The samples [B, C, S] that were held back for frames which never came, or None."""
        ...

    def try_layers(self, max_clips: int, chunk_sizes: Sequence[int]) -> None:
        """Find out which layers may take so many clips in one product, for chunks of these sizes."""
        ...


class CausalModule(Protocol):
    """A codec whose samples depend on no later frame."""

    @property
    def config(self) -> Any: ...  # a CodecConfig; a module's attributes have no narrower type

    def modules(self) -> Iterator[nn.Module]: ...

    def init_decoder_state(self, batch_size: int) -> Any:
        """The state before the first frame: tensors with the batch first, in lists and dataclasses."""
        ...

    def decode_chunk(self, codes: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Codes [B, K, T] to audio [B, C, T * hop] and the state after them; `state` is not changed."""
        ...


class CausalDecoder:
    """A `StreamDecoder` over a causal module; those of its layers that are a `PackedMatrix` are tried one by one."""

    can_join = True
    joins_any = False

    def __init__(self, module: CausalModule) -> None:
        self._module = module

    def open(self) -> Any:
        return self._module.init_decoder_state(1)

    def step(self, codes: Tensor, state: Any, scale: float | None) -> tuple[Tensor, Any]:
        return self._module.decode_chunk(codes, state)

    def finish(self, state: Any) -> Tensor | None:
        return None

    def try_layers(self, max_clips: int, chunk_sizes: Sequence[int]) -> None:
        matrices = [layer for layer in self._module.modules() if isinstance(layer, PackedMatrix)]

        def run() -> None:
            state = self.open()
            for size in chunk_sizes:
                codes = torch.zeros(1, self._module.config.num_codebooks, size, dtype=torch.int64)
                _, state = self._module.decode_chunk(codes, state)

        try_joining(matrices, max_clips, run)


class ClipDecoder:
    """One clip on its way through a decoder: holds its state."""

    def __init__(self, decoder: StreamDecoder) -> None:
        self._decoder = decoder
        self._state = decoder.open()

    def step(self, codes: Tensor, scale: float | None = None) -> Tensor:
        """The next chunk [1, K, T] to the next samples [1, C, S]."""
        audio, state = self._decoder.step(codes, self._state, scale)
        [self._state] = part(state, 1)
        return audio

    def finish(self) -> Tensor | None:
        """The samples [1, C, S] that were held back, or None."""
        return self._decoder.finish(self._state)


def step_together(clips: Sequence[ClipDecoder], codes: Tensor) -> list[Tensor]:
    """The next chunks [B, K, T] of B clips of one decoder in one step: samples [1, C, S] each.

    The chunks are of one size, and either all the first of their clips or none. If it fails, no clip has moved.
    """
    audio, state = clips[0]._decoder.step(codes, join([clip._state for clip in clips]), None)
    for clip, own in zip(clips, part(state, len(clips)), strict=True):
        clip._state = own
    return list(audio.chunk(len(clips)))


def finish_together(clips: Sequence[ClipDecoder]) -> list[Tensor] | None:
    """The samples [1, C, S] that were held back of clips of one decoder that all are under way, or None."""
    rest = clips[0]._decoder.finish(join([clip._state for clip in clips]))
    return None if rest is None else list(rest.chunk(len(clips)))


def join(states: Sequence[Any]) -> Any:
    """The states of clips as that of a batch: tensors along their first axis, what is no tensor if all agree."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, list):
        return [join(parts) for parts in zip(*states, strict=True)]
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first)]
        return dataclasses.replace(first, **{name: join([getattr(state, name) for state in states]) for name in names})
    if any(state != first for state in states):
        raise ValueError(f"expected states of the same kind to join, got {first!r} and others.")
    return first


def part(state: Any, num_clips: int) -> list[Any]:
    """The states of the clips of a batch, the inverse of `join`; as copies, which keep no chunk's values in memory."""
    if isinstance(state, Tensor):
        return [clip.clone() for clip in state.chunk(num_clips)]
    if isinstance(state, list):
        parted = [part(each, num_clips) for each in state]
        return [[each[clip] for each in parted] for clip in range(num_clips)]
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        fields = {field.name: part(getattr(state, field.name), num_clips) for field in dataclasses.fields(state)}
        return [
            dataclasses.replace(state, **{name: each[clip] for name, each in fields.items()})
            for clip in range(num_clips)
        ]
    return [state] * num_clips


def grid_of(config: CodecConfig) -> DecodeGrid:
    """The grid of a codec without segments: short chunks first, then those of `CHUNK_DURATION_S`."""
    rate_hz = config.frame_rate_hz
    cuts = sorted({max(1, round(rate_hz * cut_s)) for cut_s in FIRST_CUTS_S})
    first = tuple(stop - start for start, stop in itertools.pairwise([0, *cuts]))
    return DecodeGrid(max(1, round(rate_hz * CHUNK_DURATION_S)), first)


def decode_on_grid(clip: ClipDecoder, grid: DecodeGrid, codes: Tensor, scales: tuple[float, ...] = ()) -> Tensor:
    """Decode a whole clip [1, K, T] as the engine does, for recipes and tests: [1, C, S]."""
    parts = [
        clip.step(codes[..., start:stop], scales[index] if grid.is_scaled else None)
        for index, (start, stop) in enumerate(grid.cuts(codes.shape[-1]))
    ]
    rest = clip.finish()
    return torch.cat(parts if rest is None else [*parts, rest], dim=-1)
