"""`MusicGenState`: what a MusicGen language model remembers between two steps."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Memory = tuple[Tensor, Tensor]  # keys and values


@dataclass
class MusicGenState:
    """Caches of one running batch; made by `MusicGenLM.init_state`, advanced in place by `MusicGenLM.step`.

    Legend: B rows, H heads, P prefix frames, S steps, L text tokens, E width of a head.
    """

    caches: list[Memory]  # keys and values [B, H, P + S, E] of what was read, for each layer
    memories: list[Memory]  # keys and values [B, H, L, E] of the text, for each layer; empty without cross-attention
    cross_bias: Tensor | None  # [B, 1, 1, L], 0 or -inf; None where every token counts
    prefix_bias: Tensor | None  # [B, 1, 1, P + S]; None where every row has the whole prefix
    prefix_length: int
    first_position: int
    num_steps: int = 0

    @property
    def max_steps(self) -> int:
        return int(self.caches[0][0].shape[2]) - self.prefix_length

    @property
    def batch_size(self) -> int:
        return int(self.caches[0][0].shape[0])
