"""Discriminators and losses of the adversarial codecs and vocoders.

Sources: the complex-STFT discriminators of Defossez et al., "High Fidelity Neural Audio Compression" (2022),
https://arxiv.org/abs/2210.13438, section 3.4, and the multi-scale wave discriminators of Kumar et al., "MelGAN" (2019),
https://arxiv.org/abs/1910.06711, which SoundStream uses. Hinge losses and relative feature matching as in both codecs.

Departure: narrower by default (16 channels), and bins fold 2:1 at the first layer, which a CPU can train.

Legend: B batch, S samples, F frames, N bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

Judgement = tuple[Tensor, list[Tensor]]  # logits, feature maps


class STFTDiscriminator(nn.Module):
    """Judges the complex spectrogram at one resolution."""

    window: Tensor

    def __init__(self, n_fft: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        layers = [nn.Conv2d(2, channels, (3, 9), stride=(1, 2), padding=(1, 4))]
        for dilation in (1, 2, 4):
            layers.append(
                nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            )
        layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.out = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, audio: Tensor) -> Judgement:
        """Audio [B, 1, S] to logits and feature maps."""
        spectrum = torch.stft(
            audio[:, 0].float(), self.n_fft, self.n_fft // 4, window=self.window, normalized=True, return_complex=True
        )
        hidden = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, F, N]
        features = []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return self.out(hidden), features


class WaveDiscriminator(nn.Module):
    """Judges the waveform at one scale, with grouped strided convolutions."""

    def __init__(self, channels: int, downsample: int) -> None:
        super().__init__()
        self.downsample = downsample
        widths = [channels * 4**i for i in range(4)]
        layers = [nn.Conv1d(1, channels, 15, padding=7)]
        for before, after in zip(widths, widths[1:], strict=False):
            layers.append(
                nn.Conv1d(before, min(after, 256), 41, stride=4, padding=20, groups=max(1, min(before, 256) // 4))
            )
            widths[widths.index(after)] = min(after, 256)
        layers.append(nn.Conv1d(widths[-1], widths[-1], 5, padding=2))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.out = weight_norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, audio: Tensor) -> Judgement:
        """Audio [B, 1, S] to logits and feature maps."""
        hidden = F.avg_pool1d(audio, self.downsample) if self.downsample > 1 else audio
        features = []
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
            features.append(hidden)
        return self.out(hidden), features


class Discriminators(nn.Module):
    """All judges together."""

    def __init__(self, *, stft_sizes: tuple[int, ...], stft_channels: int, wave_scales: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [STFTDiscriminator(size, stft_channels) for size in stft_sizes]
            + [WaveDiscriminator(16, scale) for scale in wave_scales]
        )

    def forward(self, audio: Tensor) -> list[Judgement]:
        """One judgement for each judge."""
        return [judge(audio) for judge in self.judges]


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Hinge loss, the mean over judges."""
    losses = [
        F.relu(1 - r[0].float()).mean() + F.relu(1 + f[0].float()).mean() for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_losses(real: list[Judgement], fake: list[Judgement]) -> tuple[Tensor, Tensor]:
    """The adversarial loss, and feature matching relative to the size of the real features; means over judges."""
    adversarial = torch.stack([F.relu(1 - f[0].float()).mean() for f in fake]).mean()
    distances = [
        (a.float() - b.detach().float()).abs().mean() / b.detach().float().abs().mean().clamp(min=1e-4)
        for (_, theirs), (_, mine) in zip(real, fake, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    return adversarial, torch.stack(distances).mean()
