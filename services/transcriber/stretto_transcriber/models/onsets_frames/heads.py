"""`Heads`: what is heard of every pitch in every frame, as logits or as probabilities.

Legend: B batch, T frames; 88 pitches, the first one A0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_RARE = -4.0  # a logit of one cell in fifty


@dataclass(frozen=True, eq=False)
class Heads:
    """Each [B, T, 88]; `offset` and `key` are None of a network without that head. Velocity is a share of 127."""

    onset: Tensor
    offset: Tensor | None
    frame: Tensor
    velocity: Tensor
    key: Tensor | None = None

    def probabilities(self) -> Heads:
        """Of logits: all between 0 and 1, float32."""
        offset, key = (None if x is None else torch.sigmoid(x.float()) for x in (self.offset, self.key))
        onset, frame, velocity = (torch.sigmoid(x.float()) for x in (self.onset, self.frame, self.velocity))
        return Heads(onset, offset, frame, velocity, key)

    def inner(self, first: int, count: int) -> Heads:
        """`count` frames from `first` on."""
        parts = (self.onset, self.offset, self.frame, self.velocity, self.key)
        cut = [None if part is None else part[:, first : first + count] for part in parts]
        assert cut[0] is not None and cut[2] is not None and cut[3] is not None
        return Heads(cut[0], cut[1], cut[2], cut[3], cut[4])

    def stacked(self) -> Tensor:
        """[B, T, 4 * 88], or 5 * 88 with keys, in the order of the fields; an offset head that is missing is zeros."""
        offset = torch.zeros_like(self.onset) if self.offset is None else self.offset
        keys = [] if self.key is None else [self.key]
        return torch.cat([self.onset, offset, self.frame, self.velocity, *keys], -1)


def begin_rare(layer: nn.Module) -> None:
    """Let a linear layer that gives logits begin as seldom on, as pitches are: learning that takes steps."""
    assert isinstance(layer, nn.Linear)
    nn.init.constant_(layer.bias, _RARE)
