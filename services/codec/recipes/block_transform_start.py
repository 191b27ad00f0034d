"""Start SoundStream as a linear block-transform codec, in closed form.

From random weights the first thousands of steps find the spectral envelope and nothing of the waveform: a silent output
is a plateau of the loss. A cascade of strided convolutions can instead begin as a transform coder. Each stage hands on
the samples of a frame as so many channels, the last takes their cosine transform and principal components, and the
decoder is the way back. ELU is passed as a pair of a channel and its negative, whose difference is nearly linear at the
amplitudes kept here. Residual units begin as identities; channels not needed keep random weights that nothing reads
yet. The architecture is unchanged: training has to improve a codec that works instead of finding one.
"""

from __future__ import annotations

import math

import torch
from stretto_codec.models.soundstream import CausalConv, CausalTransposedConv, ResidualUnit, SoundStream
from torch import Tensor, nn

AMPLITUDE = 0.3  # of full scale inside the codec: the lower, the more linear
WEIGHTING = 0.5  # power of a coefficient's deviation by which it is turned down, as noise that music masks allows


@torch.no_grad()
def start_from_block_transform(codec: SoundStream, audio: Tensor) -> None:
    """Set the convolutions of `codec` from `audio` [B, 1, S], a sample of the training data.

    Raises:
        ValueError: If a stage has fewer channels than twice the samples that it is to hand on.
    """
    config, samples = codec.config, 1
    for stage, stride in enumerate(config.strides[:-1]):
        samples, width = samples * stride, min(config.encoder_channels, config.decoder_channels) * 2 ** (stage + 1)
        if width < 2 * samples:
            raise ValueError(f"stage {stage} has {width} channels, expected at least {2 * samples}: widen the codec.")
    hop, kept = config.hop_length, config.encoder_channels * 2 ** len(config.strides) // 2
    transform = _cosines(hop)[: min(kept, hop)]  # [C, hop]
    frames = audio[..., : audio.shape[-1] // hop * hop].reshape(-1, hop)
    coefficients = frames @ transform.T
    gain = coefficients.std(0).clamp(min=1e-5) ** -WEIGHTING
    basis = torch.linalg.eigh((coefficients * gain).T.cov())[1].flip(1)[:, : config.dim]  # [C, D]
    scale = (coefficients * gain @ basis).std() * AMPLITUDE
    into = (gain[:, None] * basis / scale).T  # [D, C]
    out_of = basis * scale / gain[:, None]  # [C, D]
    for unit in codec.modules():
        if isinstance(unit, ResidualUnit):
            nn.init.zeros_(unit.pointwise.conv.weight)
            nn.init.zeros_(unit.pointwise.conv.bias)
    _start_encoder(codec, transform, into)
    _start_decoder(codec, transform, out_of)


def _start_encoder(codec: SoundStream, transform: Tensor, into: Tensor) -> None:
    """Samples to channels, stage by stage, then to coefficients, each as a pair, then to latents."""
    first, *strided, last = (layer.conv for layer in codec.encoder if isinstance(layer, CausalConv))
    _clear(first, 2, 1)
    first.weight[0, 0, -1], first.weight[1, 0, -1] = AMPLITUDE, -AMPLITUDE
    samples = 1  # each channel pair holds one sample of a frame of this many
    for layer, stride in zip(strided, codec.config.strides, strict=True):
        phases = torch.eye(samples * stride).view(samples * stride, stride, samples).permute(0, 2, 1)
        if layer is strided[-1]:
            phases = torch.einsum("cn,nps->cps", transform, phases)
        _clear(layer, 2 * len(phases), 2 * samples)
        paired = _pairs(phases)
        layer.weight[: len(paired), : paired.shape[1], -stride:] = paired
        samples *= stride
    _clear(last, codec.config.dim, 2 * into.shape[1])
    difference = torch.stack([into, -into], 2).flatten(1) / 2
    last.weight[: len(into), : difference.shape[1], -1] = difference


def _start_decoder(codec: SoundStream, transform: Tensor, out_of: Tensor) -> None:
    """The way back: latents to pairs of coefficients, those to samples."""
    first, last = (layer.conv for layer in codec.decoder if isinstance(layer, CausalConv))
    upsampling = [layer for layer in codec.decoder if isinstance(layer, CausalTransposedConv)]
    _clear(first, 2 * len(out_of), codec.config.dim)
    first.weight[: 2 * len(out_of), :, -1] = torch.stack([out_of, -out_of], 1).flatten(0, 1)
    samples = codec.config.hop_length
    for layer, stride in zip(upsampling, reversed(codec.config.strides), strict=True):
        samples //= stride
        phases = torch.eye(samples * stride).view(samples * stride, stride, samples).permute(0, 2, 1)  # [in, out, S]
        if layer is upsampling[0]:
            phases = torch.einsum("cn,nps->cps", transform, phases)
        weight = layer.conv.weight
        paired = _pairs(phases.transpose(0, 1)).transpose(0, 1)
        weight[:, : paired.shape[1]] = 0
        weight[: len(paired), : paired.shape[1], :stride] = paired
        layer.conv.bias[: paired.shape[1]] = 0
    _clear(last, 1, 2)
    last.weight[0, 0, -1], last.weight[0, 1, -1] = 0.5 / AMPLITUDE, -0.5 / AMPLITUDE


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II [size, size]."""
    n = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (n + 0.5) * n[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def _pairs(weight: Tensor) -> Tensor:
    """Weights [O, I, S] between values as weights [2 * O, 2 * I, S] between pairs of a value and its negative."""
    rows = torch.stack([weight, -weight], 1).flatten(0, 1) / 2
    return torch.stack([rows, -rows], 2).flatten(1, 2)


def _clear(layer: nn.Conv1d, outputs: int, inputs: int) -> None:
    """Nothing reaches the first `outputs` channels."""
    layer.weight[:outputs] = 0
    if layer.bias is not None:
        layer.bias[:outputs] = 0
