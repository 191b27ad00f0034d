"""EnCodec with segments (48 kHz), chunk by chunk: a chunk is a segment, decoded alone and mixed with its neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stretto_codec.models.encodec.model import Encodec, SegmentMixer


class SegmentDecoder:
    """A `StreamDecoder` for overlapping segments; a clip's state is its mixer, which goes on changing.

    Clips do not share a step here: a segment is a second long, so there is little to win.
    """

    can_join = False
    joins_any = False

    def __init__(self, model: Encodec) -> None:
        self._model = model

    def open(self) -> SegmentMixer:
        return SegmentMixer(self._model.config)

    def step(self, codes: Tensor, state: SegmentMixer, scale: float | None) -> tuple[Tensor, SegmentMixer]:
        segment = self._model.decode_segment(codes, None if scale is None else torch.tensor([scale]))
        return state.add(segment), state

    def finish(self, state: SegmentMixer) -> Tensor | None:
        return state.finish()

    def try_layers(self, max_clips: int, chunk_sizes: Sequence[int]) -> None:
        """There is nothing to try."""
