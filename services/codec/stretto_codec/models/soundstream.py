"""SoundStream: a streaming, fully convolutional neural audio codec.

Source: Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec" (2021), https://arxiv.org/abs/2107.03312:
causal convolutions, four encoder blocks of three dilated residual units (1, 3, 9) and a strided convolution
(2, 4, 5, 8), the mirrored decoder, ELU, and a residual vector quantizer with quantizer dropout. Defaults are the
published 2.4 M parameter size: C = 16 in encoder and decoder, 24 kHz, 75 frames a second, 8 x 1024 codes, 6 kb/s.

Departure: no denoising condition (FiLM).

Legend: B batch, C channels, S samples, T frames, K codebooks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from stretto_shared.nn.rvq import Quantized, ResidualVectorQuantizer
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SoundStreamConfig:
    """Sizes of a SoundStream; the defaults are the published 2.4 M version."""

    sample_rate_hz: int = 24_000
    num_channels: int = 1
    encoder_channels: int = 16
    decoder_channels: int = 16
    strides: tuple[int, ...] = (2, 4, 5, 8)
    dilations: tuple[int, ...] = (1, 3, 9)
    dim: int = 64
    num_codebooks: int = 8
    cardinality: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "strides", tuple(self.strides))
        object.__setattr__(self, "dilations", tuple(self.dilations))

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        product = 1
        for stride in self.strides:
            product *= stride
        return product

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.sample_rate_hz / self.hop_length


class CausalConv(nn.Module):
    """Convolution that hears only the past; its state is the input still in reach."""

    def __init__(self, inputs: int, outputs: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, width, stride=stride, dilation=dilation)
        self.reach = (width - 1) * dilation + 1 - stride

    def forward(self, hidden: Tensor, state: Tensor | None = None) -> Tensor:
        """[B, C, S] to [B, C', S / stride]; after `state` [B, C, reach] if given, else after silence."""
        padded = F.pad(hidden, (self.reach, 0)) if state is None else torch.cat([state, hidden], -1)
        out: Tensor = self.conv(padded)
        return out

    def step(self, hidden: Tensor, states: list[Tensor], following: list[Tensor]) -> Tensor:
        """Convolve after the first of `states`, which is taken; the next state is added to `following`."""
        state = states.pop(0)
        following.append(torch.cat([state, hidden], -1)[..., hidden.shape[-1] :])
        return self.forward(hidden, state)


class CausalTransposedConv(nn.Module):
    """Upsampling by `stride` with a kernel of twice that; the state is the half that reaches past the end."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride=stride)
        self.reach = stride

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, T] to [B, C', T * stride]."""
        out: Tensor = self.conv(hidden)
        return out[..., : -self.reach]

    def step(self, hidden: Tensor, states: list[Tensor], following: list[Tensor]) -> Tensor:
        """As `CausalConv.step`; the state is [B, C', stride], without the bias, which is added once."""
        state = states.pop(0)
        whole = F.conv_transpose1d(hidden, self.conv.weight, None, stride=self.conv.stride)
        whole = torch.cat([whole[..., : self.reach] + state, whole[..., self.reach :]], -1)
        following.append(whole[..., -self.reach :])
        assert self.conv.bias is not None
        return whole[..., : -self.reach] + self.conv.bias[:, None]


class ResidualUnit(nn.Module):
    """ELU, dilated convolution of 7, ELU, convolution of 1, added to the input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated = CausalConv(channels, channels, 7, dilation=dilation)
        self.pointwise = CausalConv(channels, channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, C, S] to [B, C, S]."""
        out: Tensor = hidden + self.pointwise(F.elu(self.dilated(F.elu(hidden))))
        return out

    def step(self, hidden: Tensor, states: list[Tensor], following: list[Tensor]) -> Tensor:
        """As `CausalConv.step`."""
        inner = self.dilated.step(F.elu(hidden), states, following)
        out: Tensor = hidden + self.pointwise(F.elu(inner))
        return out


@dataclass
class SoundStreamDecoderState:
    """One tensor for each layer of the decoder that remembers."""

    layers: list[Tensor] = field(default_factory=list)


class SoundStream(nn.Module):
    """The codec.

    Invariant: a stream of `decode_chunk` calls equals one `decode`, for any chunk sizes
    (`tests/services/codec/test_causal_codecs.py`).
    """

    def __init__(self, config: SoundStreamConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_channels
        encoder: list[nn.Module] = [CausalConv(config.num_channels, width, 7)]
        for stride in config.strides:
            encoder += [ResidualUnit(width, dilation) for dilation in config.dilations]
            encoder += [nn.ELU(), CausalConv(width, 2 * width, 2 * stride, stride=stride)]
            width *= 2
        self.encoder = nn.Sequential(*encoder, nn.ELU(), CausalConv(width, config.dim, 3))
        self.quantizer = ResidualVectorQuantizer(config.dim, config.num_codebooks, config.cardinality)
        width = config.decoder_channels * 2 ** len(config.strides)
        decoder: list[nn.Module] = [CausalConv(config.dim, width, 7)]
        for stride in reversed(config.strides):
            decoder += [nn.ELU(), CausalTransposedConv(width, width // 2, stride)]
            width //= 2
            decoder += [ResidualUnit(width, dilation) for dilation in config.dilations]
        self.decoder = nn.Sequential(*decoder, nn.ELU(), CausalConv(width, config.num_channels, 7))

    def encode_latents(self, audio: Tensor) -> Tensor:
        """[B, 1, S] to latents [B, T, D] before the quantizer, T = ceil(S / hop_length)."""
        padding = -audio.shape[-1] % self.config.hop_length
        out: Tensor = self.encoder(F.pad(audio, (0, padding))).transpose(1, 2)
        return out

    def encode(self, audio: Tensor) -> Tensor:
        """Audio [B, 1, S] to codes [B, K, T]."""
        return self.quantizer.encode(self.encode_latents(audio))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, k, T] to audio [B, 1, T * hop_length]; k may be fewer than K."""
        return self.decode_latents(self.quantizer.decode(codes))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Quantised latents [B, T, D] to audio [B, 1, T * hop_length]."""
        out: Tensor = self.decoder(latents.transpose(1, 2))
        return out

    def init_decoder_state(self, batch_size: int) -> SoundStreamDecoderState:
        """The state before the first frame."""
        layers = []
        for module in self.decoder.modules():
            if isinstance(module, CausalConv) and module.reach > 0:
                layers.append(module.conv.weight.new_zeros(batch_size, module.conv.in_channels, module.reach))
            elif isinstance(module, CausalTransposedConv):
                layers.append(module.conv.weight.new_zeros(batch_size, module.conv.out_channels, module.reach))
        return SoundStreamDecoderState(layers)

    def decode_chunk(self, codes: Tensor, state: SoundStreamDecoderState) -> tuple[Tensor, SoundStreamDecoderState]:
        """The next codes [B, k, t] to audio [B, 1, t * hop_length], and the state after them."""
        states, following = list(state.layers), []  # type: list[Tensor], list[Tensor]
        hidden = self.quantizer.decode(codes).transpose(1, 2)
        for module in self.decoder:
            if isinstance(module, (CausalConv, CausalTransposedConv, ResidualUnit)):
                hidden = module.step(hidden, states, following)
            else:
                hidden = module(hidden)
        return hidden, SoundStreamDecoderState(following)

    def forward(self, audio: Tensor, num_codebooks: Tensor | None = None) -> tuple[Tensor, Quantized]:
        """Reconstruct [B, 1, S], S a multiple of hop_length; row b keeps `num_codebooks[b]` codebooks."""
        quantized = self.quantizer(self.encode_latents(audio), num_codebooks)
        return self.decode_latents(quantized.latents.to(audio.dtype)), quantized
