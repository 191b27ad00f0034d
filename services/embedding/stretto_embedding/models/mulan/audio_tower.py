"""The audio tower: a small AST over a log-mel spectrogram (Gong et al., "AST", 2021, https://arxiv.org/abs/2104.01778).

Departures: patches come from two overlapping convolutions and a fold of all bands, so that a token is 160 ms of music
and a clip has 64 of them rather than 1,200; no learned positions but a depthwise convolution over time (as in wav2vec
2.0), so that any length can be heard; in place of a class token, a token of rhythm: the autocorrelation of the onsets
in four ranges of bands, which a tower of four layers would not learn to compute.

Legend: B batch, T frames, M mel bands, N tokens, D width, G ranges of bands. Knows nothing of texts.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stretto_embedding.models.mulan.config import MuLanConfig
from stretto_embedding.models.mulan.layers import Layer

FRAMES_PER_TOKEN = 16
MIN_FRAMES = 64
SILENCE = (math.log(1e-9) + 14.5) / 4.0  # what `log_mel` makes of nothing
_NUM_RANGES = 4
_POSITION_KERNEL = 9


class AudioTower(nn.Module):
    """Log-mel spectrograms to one vector each; `tests/services/embedding/test_mulan.py` holds it to its promises."""

    def __init__(self, config: MuLanConfig, dropout: float = 0.0) -> None:
        super().__init__()
        first, second = config.stem_channels
        dim = config.audio_dim
        self.num_lags = config.num_rhythm_lags
        self.convolve = nn.Conv2d(1, first, 7, stride=4, padding=2)
        self.convolve_again = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.fold = nn.Linear(second * (config.num_mel_bands // 8) * 2, dim)
        self.fold_norm = nn.LayerNorm(dim)
        self.positions = nn.Conv1d(dim, dim, _POSITION_KERNEL, padding=_POSITION_KERNEL // 2, groups=dim)
        self.rhythm = nn.Linear(max(1, _NUM_RANGES * self.num_lags), dim)
        inner = dim * config.feed_forward_ratio
        self.layers = nn.ModuleList(Layer(dim, config.audio_heads, inner, dropout) for _ in range(config.audio_layers))
        self.norm = nn.LayerNorm(dim)
        self.project = nn.Linear(2 * dim, config.embedding_dim)

    def forward(self, mel: Tensor) -> Tensor:
        """Spectrograms [B, T, M] -> [B, D], not of unit length. Silence fills up to whole tokens, and to .64 s."""
        mel = F.pad(mel, (0, 0, 0, max(MIN_FRAMES - mel.shape[1], -mel.shape[1] % FRAMES_PER_TOKEN)), value=SILENCE)
        x = torch.cat([self._rhythm_token(mel), self._tokens(mel)], 1)  # [B, 1 + N, D]
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        out: Tensor = self.project(torch.cat([x[:, 0], x[:, 1:].mean(1)], -1))
        return out

    def _tokens(self, mel: Tensor) -> Tensor:
        x = F.gelu(self.convolve(F.pad(mel[:, None], (0, 1, 0, 1), value=SILENCE)))  # [B, C, T / 4, M / 4]
        x = F.gelu(self.convolve_again(x))  # [B, C', T / 8, M / 8]
        x = x.permute(0, 2, 3, 1).reshape(len(x), x.shape[2] // 2, -1)  # [B, T / 16, 2 * M / 8 * C']
        x = self.fold_norm(self.fold(x))
        tokens: Tensor = x + F.gelu(self.positions(x.transpose(1, 2))).transpose(1, 2)
        return tokens

    def _rhythm_token(self, mel: Tensor) -> Tensor:
        if not self.num_lags:
            return cast(Tensor, self.rhythm(mel.new_zeros(len(mel), 1, 1)))
        return cast(Tensor, self.rhythm(onset_autocorrelation(mel, self.num_lags).flatten(1)[:, None]))


def onset_autocorrelation(mel: Tensor, num_lags: int) -> Tensor:
    """How like themselves the onsets of [B, T, M] are 1 to `num_lags` frames later: [B, G, lags], about -1 to 1."""
    with torch.autocast(mel.device.type, enabled=False):
        rises = mel.float().diff(dim=1).clamp(min=0)  # [B, T - 1, M]
        flux = rises.view(*rises.shape[:2], _NUM_RANGES, -1).mean(3).transpose(1, 2)  # [B, G, T - 1]
        flux = flux - flux.mean(2, keepdim=True)
        length = flux.shape[2]
        spectrum = torch.fft.rfft(flux, n=2 * length)
        lagged = torch.fft.irfft(spectrum.abs().square(), n=2 * length)[..., :length]
        lags = torch.arange(1, num_lags + 1, device=mel.device).clamp(max=length - 1)
        pairs = (length - lags) / length  # a mean over the pairs that there are, not a sum
        alike: Tensor = lagged[..., lags] / pairs / (lagged[..., :1] + 1e-4 * length)
        return alike
