"""Direct supervision of FrameCodec's head: the magnitudes and frequencies that the recording itself has.

Through synthesis and analysis alone the head learns the spectral envelope in the first hour and partials much later;
told bin by bin, it learns both from the start.
"""

from __future__ import annotations

import torch
from stretto_codec.models.framecodec import MAGNITUDE_FLOOR, FrameCodec, Sinusoids
from torch import Tensor
from torch.nn import functional as F


def sinusoid_loss(codec: FrameCodec, sinusoids: Sinusoids, audio: Tensor) -> Tensor:
    """L1 of log10 magnitudes, plus how far frequencies are off (1 - cosine of the turn), where there is sound.

    Bins count less with frequency, as in hearing: half as much at 2 kHz as at 0.
    """
    config = codec.config
    num_frames = sinusoids.deviation.shape[1]
    length = (num_frames - 1) * config.stft_hop + config.n_fft
    padded = F.pad(audio[:, 0], (0, length - audio.shape[-1]))
    spectrum = torch.fft.rfft(padded.unfold(-1, config.n_fft, config.stft_hop) * codec.window)
    magnitude = spectrum.abs()
    freqs_hz = torch.arange(config.num_bins) * (config.sample_rate_hz / config.n_fft)
    weight = 1 / (1 + freqs_hz / 2000)
    weight = weight / weight.mean()
    theirs = (magnitude + MAGNITUDE_FLOOR).log10()
    mine = (sinusoids.log_magnitude.exp() + MAGNITUDE_FLOOR).log10()
    magnitude_loss = ((mine - theirs).abs() * weight).mean()
    turned = torch.angle(spectrum[:, 1:] * spectrum[:, :-1].conj())
    centre = codec.centre_phase[1] - codec.centre_phase[0]
    share = torch.sqrt(magnitude[:, 1:])
    share = share * weight / (share * weight).mean().clamp(min=1e-6)
    frequency_loss = ((1 - torch.cos(turned - centre - sinusoids.deviation[:, 1:])) * share).mean()
    return magnitude_loss + 0.2 * frequency_loss
