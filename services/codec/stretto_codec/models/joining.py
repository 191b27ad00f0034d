"""How many streams may share a decoding step of a codec: tried, not believed.

A kernel may sum a row in another order when more rows stand beside it, and then a stream's samples would depend on its
company (`docs/adr/0008`). So a server decodes a few chunks of each shape that its grid knows, alone and in company, and
lets as many share a step as left every sample and every state the same bytes.

Legend: K codebooks, T frames.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from stretto_codec.models.packed_matrix import JOINED_CLIPS
from stretto_codec.models.streaming import CodecConfig, DecodeGrid, StreamDecoder, join, part

_SEED = 20_004


@torch.inference_mode()
def find_max_joined(decoder: StreamDecoder, grid: DecodeGrid, config: CodecConfig, limit: int) -> int:
    """The most clips, at most `limit`, for which they and every lesser number of `JOINED_CLIPS` decode as alone."""
    counts = [count for count in JOINED_CLIPS if count <= limit]
    if not counts or not decoder.can_join:
        return 1
    decoder.try_layers(counts[-1], grid.kinds)
    generator = torch.Generator().manual_seed(_SEED)
    states = [decoder.open() for _ in range(counts[-1])]
    for size in grid.kinds:
        shape = (len(states), config.num_codebooks, size)
        codes = torch.randint(0, config.cardinality, shape, generator=generator)
        alone = [decoder.step(clip, state, None) for clip, state in zip(codes.chunk(len(states)), states, strict=True)]
        while counts and not all(_is_as_alone(decoder, codes, states, alone, count) for count in counts):
            counts.pop()
        if not counts:
            return 1
        states = [part(state, 1)[0] for _, state in alone]
    return counts[-1]


def _is_as_alone(
    decoder: StreamDecoder, codes: Tensor, states: list[Any], alone: list[tuple[Tensor, Any]], count: int
) -> bool:
    """Whether the last `count` clips, in reverse order, decode in one step as each of them did alone."""
    chosen = list(range(len(states)))[: -count - 1 : -1]
    audio, joined = decoder.step(codes[chosen], join([states[clip] for clip in chosen]), None)
    parted = part(joined, count)
    return all(
        torch.equal(audio[place], alone[clip][0][0]) and _equal(parted[place], alone[clip][1])
        for place, clip in enumerate(chosen)
    )


def _equal(one: Any, other: Any) -> bool:
    """Whether two states hold the same bytes."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return all(_equal(mine, yours) for mine, yours in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one):
        return all(_equal(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one))
    return bool(one == other)
