"""What a MusicGen language model is told beside tokens: text and melody, projected, and the absence of each.

Legend: B batch, L text tokens, P prefix entries, D width of the transformer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stretto_acoustic.models.musicgen.config import MusicGenConfig

MAX_PREFIX_TEXT_TOKENS = 512
_NULL_CHROMA_CLASS = 0  # what `transformers` takes for "no melody" in the published melody checkpoints


@dataclass(frozen=True, eq=False)
class Conditions:
    """Projected conditions of one batch."""

    text: Tensor | None = None  # [B, L, D] for cross-attention
    cross_bias: Tensor | None = None  # [B, 1, 1, L], 0 or -inf; None where every token counts
    prefix: Tensor | None = None  # [B, P, D], positions added
    is_prefix_heard: Tensor | None = None  # [B, P]; None where every row hears all of it
    first_position: int = 0  # of the first token column

    @property
    def prefix_length(self) -> int:
        return 0 if self.prefix is None else int(self.prefix.shape[1])


def sinusoidal_positions(positions: Tensor, dim: int) -> Tensor:
    """Embed positions [T] (may be fractional) as [T, D]: cosines, then sines, of log-spaced frequencies."""
    half = dim // 2
    frequencies = torch.exp(
        torch.arange(half, dtype=torch.float32, device=positions.device) * -(math.log(10_000) / (half - 1))
    )
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Conditioner(nn.Module):
    """Projects text states and melodies into the transformer's width; the rules are in `lm.py`'s docstring."""

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        self.config = config
        self.text_proj = nn.Linear(config.text_dim, config.dim)
        if config.melody_conditioning != "none":
            self.chroma_proj = nn.Linear(config.num_chroma, config.dim)

    def forward(
        self,
        text_states: Tensor | None,
        text_mask: Tensor | None,
        chroma: Tensor | None,
        first_frame: int = 0,
    ) -> Conditions:
        """Project what is there; the arguments are those of `MusicGenLM.forward`.

        Raises:
            ValueError: On a melody that the model cannot take or that is too long.
        """
        config = self.config
        if chroma is not None and config.melody_conditioning == "none":
            raise ValueError("this model has no melody conditioning; pass chroma=None.")
        if chroma is not None and not 1 <= chroma.shape[1] <= config.chroma_frames:
            raise ValueError(f"expected 1 to {config.chroma_frames} melody frames, got {chroma.shape[1]}.")
        text = None if text_states is None else self.text_proj(text_states)
        keep = None if text_mask is None else text_mask.bool()
        if text is not None and keep is not None:
            text = text * keep[..., None].to(text.dtype)
        if config.melody_conditioning == "prefix_only":
            return self._prefix_only(text, chroma)
        prefix, is_heard = (None, None) if chroma is None else self._aligned_prefix(chroma, first_frame)
        cross_bias = None if text is None else _cross_bias(keep, text.dtype)
        return Conditions(text, cross_bias, prefix, is_heard, first_frame)

    def _aligned_prefix(self, chroma: Tensor, first_frame: int) -> tuple[Tensor, Tensor | None]:
        moments_s = torch.arange(chroma.shape[1], device=chroma.device) / self.config.chroma_frame_rate_hz
        positions = sinusoidal_positions(first_frame + moments_s * self.config.frame_rate_hz, self.config.dim)
        projected = self._project_chroma(chroma)
        is_heard = (chroma >= 0).any(dim=1, keepdim=True).expand(chroma.shape)
        return projected + positions.to(projected.dtype), None if bool(is_heard.all()) else is_heard

    def _prefix_only(self, text: Tensor | None, chroma: Tensor | None) -> Conditions:
        config = self.config
        if chroma is None:
            num_rows = 1 if text is None else text.shape[0]
            chroma = torch.full((num_rows, 1), -1, dtype=torch.int64, device=self.text_proj.weight.device)
        is_null = (chroma < 0).all(dim=1, keepdim=True)
        chroma = chroma.masked_fill(is_null, _NULL_CHROMA_CLASS)
        repeats = math.ceil(config.chroma_frames / chroma.shape[1])
        prefix = self._project_chroma(chroma.repeat(1, repeats)[:, : config.chroma_frames])
        if text is not None:
            prefix = torch.cat([prefix, text.to(prefix.dtype)], dim=1)
        length = prefix.shape[1]
        if length > config.chroma_frames + MAX_PREFIX_TEXT_TOKENS:
            raise ValueError(f"expected at most {MAX_PREFIX_TEXT_TOKENS} text tokens.")
        positions = sinusoidal_positions(torch.arange(length, device=prefix.device), config.dim)
        return Conditions(prefix=prefix + positions.to(prefix.dtype), first_position=length)

    def _project_chroma(self, chroma: Tensor) -> Tensor:
        classes = torch.arange(self.config.num_chroma, device=chroma.device)
        one_hot = (chroma[..., None] == classes).to(self.chroma_proj.weight.dtype)
        projected: Tensor = self.chroma_proj(one_hot)
        return projected


def _cross_bias(keep: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Turn a text mask [B, L] into a bias; a row of nothing attends over its zeros, never over nothing."""
    if keep is None:
        return None
    keep = keep | ~keep.any(dim=1, keepdim=True)
    if bool(keep.all()):
        return None
    bias = torch.zeros(keep.shape, dtype=dtype, device=keep.device).masked_fill(~keep, -math.inf)
    return bias[:, None, None]
