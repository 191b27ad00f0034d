"""Spectral distances that train codecs and vocoders.

Source: the multi-scale log-mel L1 of Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (2023),
https://arxiv.org/abs/2306.06546, section 3.5, whose windows and bands these are, less the three smallest. Beside it, at
the two largest windows, the L1 of every bin: mel bands alone hide the partials above 2 kHz.

Legend: B batch, S samples, W window, F frames, M mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stretto_shared.dsp.mel_filters import mel_filter_bank

WINDOWS = (2048, 1024, 512, 256)
NUM_MELS = (160, 80, 40, 20)
NUM_LINEAR = 2


class MultiScaleMelLoss(nn.Module):
    """Mean over the scales of the L1 between log10 mel magnitudes, floored at 1e-5; with `linear`, of bins too.

    Args:
        sample_rate_hz: Of the audio.
        linear: Whether single bins count beside mel bands.
        soft_floor: Added to every magnitude. The slope of a logarithm grows without bound towards silence: a decoder
            that writes samples directly hears little but the quietest frames of a batch unless they count less. White
            noise at -60 dB of full scale has magnitude 0.03.
    """

    def __init__(self, sample_rate_hz: int, *, linear: bool = True, soft_floor: float = 0.0) -> None:
        super().__init__()
        self.linear = linear
        self.soft_floor = soft_floor
        for index, (window, num_mels) in enumerate(zip(WINDOWS, NUM_MELS, strict=True)):
            self.register_buffer(f"window_{index}", torch.hann_window(window), persistent=False)
            bank = mel_filter_bank(sample_rate_hz, window, num_mels)
            # Bands narrower than a bin are empty at small windows; they carry nothing.
            self.register_buffer(f"bank_{index}", bank[:, bank.sum(0) > 0], persistent=False)

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Distance between two batches of audio [B, 1, S]."""
        both = torch.cat([estimate[:, 0], target[:, 0]])
        losses = []
        for index, size in enumerate(WINDOWS):
            window, bank = getattr(self, f"window_{index}"), getattr(self, f"bank_{index}")
            spectrum = torch.stft(both, size, size // 4, window=window, return_complex=True)
            power = torch.view_as_real(spectrum).square().sum(-1)
            magnitude = (power + 1e-10).sqrt()
            mine, theirs = ((magnitude.transpose(1, 2) @ bank).clamp(min=1e-5) + self.soft_floor).log10().chunk(2)
            losses.append((mine - theirs).abs().mean())
            if index < NUM_LINEAR and self.linear:
                mine, theirs = (magnitude + max(1e-3, self.soft_floor)).log10().chunk(2)
                losses.append((mine - theirs).abs().mean())
        return torch.stack(losses).mean()
