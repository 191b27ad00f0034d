"""Triangular filters on the HTK mel scale, `mel = 2595 log10(1 + hz / 700)`. Legend: F bins of a spectrum, M bands."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mel_filter_bank(
    sample_rate_hz: int, n_fft: int, num_mels: int, *, min_hz: float = 0.0, max_hz: float | None = None
) -> Tensor:
    """Filters [n_fft / 2 + 1, M] of unit peak, their edges equally spaced in mel from `min_hz` to half the rate."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (min_hz, max_hz or sample_rate_hz / 2))
    edges_hz = 700 * (10 ** (torch.linspace(low, high, num_mels + 2, dtype=torch.float64) / 2595) - 1)
    bins_hz = torch.linspace(0, sample_rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    rising = (bins_hz[:, None] - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    falling = (edges_hz[2:] - bins_hz[:, None]) / (edges_hz[2:] - edges_hz[1:-1])
    return torch.minimum(rising, falling).clamp(min=0).float()
