"""Start FrameCodec as the linear codec that principal components give, in closed form.

The residual blocks start near the identity, so the linear maps around them can be set to project log spectra onto their
principal components, four frames of those onto theirs, and back. What training would first have to find, the shapes of
spectra, is there from the first step; what is left to it is everything that is not linear.
"""

from __future__ import annotations

import torch
from stretto_codec.models.framecodec import FrameCodec
from torch import Tensor, nn


@torch.no_grad()
def start_from_principal_components(codec: FrameCodec, audio: Tensor) -> None:
    """Set the linear maps of `codec` from `audio` [B, 1, S], a sample of the training data."""
    config, dim = codec.config, codec.config.dim
    spectra = torch.cat([codec.log_magnitudes(part) for part in audio.split(16)])  # [B, F, N]
    num_frames = spectra.shape[1]
    flat = spectra.reshape(-1, config.num_bins)
    mean = flat.mean(0)
    basis, scale = _components(flat - mean, dim)  # [N, D], [D]
    # Half-whitened: partials are small beside the envelope, and as audible.
    gain = (scale / scale[0]).clamp(min=1e-3).sqrt() * scale[0]
    nn.init.normal_(codec.features_in.weight, std=2e-3)
    codec.features_in.weight[:, : config.num_bins] = (basis / gain).t()
    codec.features_in.bias.copy_(-(mean @ basis) / gain)
    codec.head.weight[: config.num_bins] = basis * gain * torch.log(torch.tensor(10.0))
    codec.head.bias[: config.num_bins] = mean * torch.log(torch.tensor(10.0))
    codec.head.weight[config.num_bins :] *= 0.1
    codec.head.bias[config.num_bins :] = 0
    hidden = ((flat - mean) @ basis / gain).view(len(spectra), num_frames // config.stride, config.stride * dim)
    latent_basis, latent_scale = _components(hidden.reshape(-1, config.stride * dim), dim)
    codec.down.weight.copy_(latent_basis.t() / latent_scale[0])
    codec.up.weight.copy_(latent_basis * latent_scale[0])
    for linear in (codec.down, codec.up, codec.quantizer.project_in, codec.quantizer.project_out):
        linear.bias.zero_()
    codec.quantizer.project_in.weight.copy_(torch.eye(config.code_dim, dim))
    codec.quantizer.project_out.weight.copy_(torch.eye(dim, config.code_dim))


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` principal directions of centred rows [M, W] as columns [W, count], and their deviations."""
    values, vectors = torch.linalg.eigh((rows.t() @ rows / len(rows)).double())
    order = values.argsort(descending=True)[:count]
    return vectors[:, order].float(), values[order].clamp(min=1e-12).sqrt().float()
