"""SEANet: the convolutional encoder and decoder of EnCodec, with an LSTM beside the latent.

Layers are numbered as in both published layouts, so that keys map one to one; see `layouts.py`. A trained weight
norm is folded into plain weights before it comes here.

Legend: B batch, C channels, S samples, T frames, D latent.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from stretto_codec.models.encodec.config import EncodecConfig

LstmState = tuple[Tensor, Tensor]


class Conv(nn.Module):
    """A convolution whose output has ceil(length / stride) steps; only the clip's ends are padded."""

    def __init__(
        self,
        config: EncodecConfig,
        num_inputs: int,
        num_outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(num_inputs, num_outputs, kernel_size, stride, dilation=dilation)
        self.norm = nn.GroupNorm(1, num_outputs) if config.norm == "time_group_norm" else None
        self.pad_mode = config.pad_mode
        self.stride = stride
        padding = (kernel_size - 1) * dilation + 1 - stride
        self.pad_right = 0 if config.causal else padding // 2
        self.pad_left = padding - self.pad_right

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, S] to [B, C', ceil(S / stride)]."""
        missing = -x.shape[-1] % self.stride
        y = self.conv(pad(x, self.pad_left, self.pad_right + missing, self.pad_mode))
        return cast(Tensor, y if self.norm is None else self.norm(y))


class ConvTranspose(nn.Module):
    """A transposed convolution with a kernel of two strides, trimmed to length * stride steps."""

    def __init__(self, config: EncodecConfig, num_inputs: int, num_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(num_inputs, num_outputs, 2 * stride, stride)
        self.norm = nn.GroupNorm(1, num_outputs) if config.norm == "time_group_norm" else None
        self.trim_right = stride if config.causal else stride // 2
        self.trim_left = stride - self.trim_right

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T * stride]."""
        y = self.conv(x)
        if self.norm is not None:  # over the untrimmed output, as published
            y = self.norm(y)
        return cast(Tensor, y[..., self.trim_left : y.shape[-1] - self.trim_right])


class ResidualUnit(nn.Module):
    """ELU, a dilated convolution into a narrower space, ELU, a pointwise convolution back; plus the skip."""

    def __init__(self, config: EncodecConfig, width: int, dilation: int) -> None:
        super().__init__()
        hidden = width // config.compress
        self.block = nn.Sequential(
            nn.ELU(),
            Conv(config, width, hidden, config.residual_kernel_size, dilation=dilation),
            nn.ELU(),
            Conv(config, hidden, width, 1),
        )
        self.shortcut = Conv(config, width, width, 1) if config.conv_shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, S] to [B, C, S]."""
        return cast(Tensor, self.shortcut(x) + self.block(x))


class Lstm(nn.Module):
    """A causal LSTM with a skip, in the layout of convolutions."""

    def __init__(self, config: EncodecConfig, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, config.num_lstm_layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to [B, C, T], from rest."""
        return self.advance(x, None)[0]

    def advance(self, x: Tensor, state: LstmState | None) -> tuple[Tensor, LstmState]:
        """Continue from `state`: [B, C, T] to [B, C, T] and the next state."""
        steps = x.permute(2, 0, 1)
        y, state = self.lstm(steps, state)
        return (y + steps).permute(1, 2, 0), cast(LstmState, state)


class Encoder(nn.Module):
    """Audio to latents: [B, C, S] to [B, D, ceil(S / hop)]."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        width = config.num_filters
        layers: list[nn.Module] = [Conv(config, config.num_channels, width, config.kernel_size)]
        for ratio in reversed(config.ratios):
            layers += _residual_units(config, width)
            layers += [nn.ELU(), Conv(config, width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        layers += [Lstm(config, width), nn.ELU(), Conv(config, width, config.hidden_size, config.last_kernel_size)]
        self.layers = nn.Sequential(*layers)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, C, S] to [B, D, T]."""
        return cast(Tensor, self.layers(audio))


class Decoder(nn.Module):
    """Latents to audio: [B, D, T] to [B, C, T * hop]; `streaming.py` does the same chunk by chunk."""

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        width = config.num_filters * 2 ** len(config.ratios)
        layers: list[nn.Module] = [Conv(config, config.hidden_size, width, config.kernel_size), Lstm(config, width)]
        for ratio in config.ratios:
            layers += [nn.ELU(), ConvTranspose(config, width, width // 2, ratio)]
            width //= 2
            layers += _residual_units(config, width)
        layers += [nn.ELU(), Conv(config, width, config.num_channels, config.last_kernel_size)]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        """[B, D, T] to [B, C, T * hop]."""
        return cast(Tensor, self.layers(latents))


def _residual_units(config: EncodecConfig, width: int) -> list[nn.Module]:
    return [ResidualUnit(config, width, config.dilation_base**j) for j in range(config.num_residual_layers)]


def pad(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad the ends; a clip too short to be reflected gets zeros on its right first, as published."""
    if mode != "reflect":
        return F.pad(x, (left, right), mode)
    lacking = max(left, right) - x.shape[-1] + 1
    if lacking <= 0:
        return F.pad(x, (left, right), mode)
    padded = F.pad(F.pad(x, (0, lacking)), (left, right), mode)
    return padded[..., : padded.shape[-1] - lacking]
