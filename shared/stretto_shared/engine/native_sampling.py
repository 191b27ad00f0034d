"""Drawing tokens by the native kernel: one call for the rows of all pieces, each drawn in its own way.

The draw of `sampling.sample` without top-p, at a temperature above 0, for logits on the CPU. The kernel makes only the
draws that the last bits of a logarithm cannot decide; numpy makes the others. So the tokens are those of `sample`, with
and without a kernel, and no draw depends on the rows beside it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from stretto_shared.engine.sampling import Sampling, sample
from stretto_shared.nn.lowbit import NativeKernel

_PLACE = struct.Struct("=QQQqqqd")  # as `native/drawing.hpp` lays it out


@runtime_checkable
class OnKernel(Protocol):
    """A model that runs on the native kernel, if there is one, which then draws its tokens as well."""

    @property
    def kernel(self) -> NativeKernel | None: ...


@dataclass(frozen=True, eq=False, slots=True)
class Rows:
    """Of one piece: its guided logits [K, V], the rows among them that are to be drawn, and the frame of each."""

    logits: Tensor
    codebooks: Sequence[int]
    frames: Sequence[int]
    sampling: Sampling
    seed: int


def can_draw(logits: Tensor, sampling: Sampling) -> bool:
    """Whether the kernel draws from such logits in such a way."""
    return (
        sampling.top_p == 1
        and sampling.temperature > 0
        and logits.dtype == torch.float32
        and logits.device.type == "cpu"
        and logits.is_contiguous()
    )


def sample_natively(kernel: NativeKernel, pieces: Sequence[Rows], stage: int) -> list[list[int]]:
    """Draw a token for each row of the pieces, all with as many entries; as `sample` does."""
    num_entries = pieces[0].logits.shape[-1]
    places = b"".join(_places(piece, stage, num_entries) for piece in pieces)
    tokens = iter(kernel.draw(places, len(places) // _PLACE.size, num_entries))
    drawn = [[next(tokens) for _ in piece.codebooks] for piece in pieces]
    for piece, own in zip(pieces, drawn, strict=True):
        for at in (at for at, token in enumerate(own) if token < 0):
            own[at] = _by_numpy(piece, at, stage)
    return drawn


def _places(piece: Rows, stage: int, num_entries: int) -> bytes:
    first, sampling = piece.logits.data_ptr(), piece.sampling
    num_kept = min(sampling.top_k or num_entries, num_entries)
    row_bytes = num_entries * piece.logits.itemsize
    return b"".join(
        _PLACE.pack(first + codebook * row_bytes, piece.seed, stage, frame, codebook, num_kept, sampling.temperature)
        for codebook, frame in zip(piece.codebooks, piece.frames, strict=True)
    )


def _by_numpy(piece: Rows, at: int, stage: int) -> int:
    codebook = piece.codebooks[at]
    return int(
        sample(
            piece.logits[codebook : codebook + 1],
            piece.sampling,
            seed=piece.seed,
            stage=stage,
            frames=np.array([piece.frames[at]]),
            codebooks=np.array([codebook]),
        )[0]
    )
