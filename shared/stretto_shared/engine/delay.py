"""The delay pattern of MusicGen (Copet et al., "Simple and Controllable Music Generation", 2023, arXiv:2306.05284).

A frame holds K codes. Codebook k is shifted right by `delays[k]` steps, so that one step of the language model emits
codebook 0 of frame s, codebook 1 of frame s - 1, and so on. Entries that no code fills hold the special token.

    frames        delayed, delays [0, 1, 2], "." is the special token
    a b c         . a b c . .
    d e f         . . d e f .
    g h i         . . . g h i

Column 0 is always special: it is what the model reads first. The model reads columns [0, n) and predicts columns
[1, n + 1). Legend: B batch, K codebooks, T frames, `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def delays_for(num_codebooks: int, num_channels: int = 1) -> tuple[int, ...]:
    """Return [0, 1, 2, ...] for mono; [0, 0, 1, 1, ...] for stereo, whose streams are L0, R0, L1, R1, and so on."""
    if num_channels not in (1, 2) or num_codebooks < 1 or num_codebooks % num_channels:
        raise ValueError(f"expected 1 or 2 channels that divide the codebooks, got {num_channels} and {num_codebooks}.")
    return tuple(k // num_channels for k in range(num_codebooks))


def apply_delay(codes: Tensor, delays: Sequence[int], special_token: int) -> Tensor:
    """Delay codes [..., K, T] into columns [..., K, 1 + T + max(delays)], the special token where no code is."""
    num_frames = codes.shape[-1]
    delayed = codes.new_full((*codes.shape[:-1], num_columns(num_frames, delays)), special_token)
    return delayed.scatter(-1, _columns(codes.shape, delays, codes.device), codes)


def revert_delay(delayed: Tensor, delays: Sequence[int]) -> Tensor:
    """Read the frames [..., K, T] back from columns [..., K, 1 + T + max(delays)]."""
    num_frames = delayed.shape[-1] - 1 - max(delays)
    if num_frames < 0:
        raise ValueError(f"expected at least {1 + max(delays)} columns, got {delayed.shape[-1]}.")
    shape = (*delayed.shape[:-1], num_frames)
    return delayed.gather(-1, _columns(shape, delays, delayed.device))


def num_columns(num_frames: int, delays: Sequence[int]) -> int:
    """Columns of `num_frames` delayed frames, the first, special one included."""
    return 1 + num_frames + max(delays)


def target_mask(num_frames: int, delays: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Tell which of the predicted columns [1, n) hold a code: bool [K, T + max(delays)], False at special tokens.

    The loss counts the True entries only, averaged per codebook.
    """
    steps = torch.arange(num_frames + max(delays), device=device)
    frames = steps - torch.tensor(list(delays), device=device)[:, None]  # [K, T + max(delays)]
    return (frames >= 0) & (frames < num_frames)


def _columns(shape: Sequence[int], delays: Sequence[int], device: torch.device) -> Tensor:
    if shape[-2] != len(delays):
        raise ValueError(f"expected one delay for each of the {shape[-2]} codebooks, got {len(delays)}.")
    columns = 1 + torch.arange(shape[-1], device=device) + torch.tensor(list(delays), device=device)[:, None]
    return columns.expand(shape)
