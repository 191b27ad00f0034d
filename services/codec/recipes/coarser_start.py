"""Start a FrameCodec of a coarser stride from a trained one of a finer stride, in closed form.

Everything at the STFT's rate is taken over as it is: features, fine blocks, head. What the trained decoder feeds to its
fine blocks is projected, a token frame at a time, onto its principal components; those are the new latents, `up` leads
back from them, and `down` is the ridge regression onto them from what the trained encoder's fine blocks give. Blocks at
the token rate start near the identity. So the first step of training already sounds like the finer codec, less the
quantizer, and what is left to learn is to spend fewer bits.
"""

from __future__ import annotations

import torch
from stretto_codec.models.framecodec import FrameCodec
from torch import Tensor, nn

RIDGE = 1e-3  # beside the mean variance of a regressor


@torch.no_grad()
def start_from_finer(codec: FrameCodec, finer: FrameCodec, audio: Tensor) -> None:
    """Set the maps of `codec` from `finer` and `audio` [B, 1, S], a sample of the training data.

    Raises:
        ValueError: If the two differ in more than stride, code space and token rate blocks.
    """
    config, fine = codec.config, finer.config
    for name in ("sample_rate_hz", "n_fft", "stft_hop", "analysis_window", "dim", "num_encoder_blocks"):
        if getattr(config, name) != getattr(fine, name):
            raise ValueError(f"{name} must be that of the finer codec, {getattr(fine, name)}.")
    if config.stride % fine.stride or config.num_decoder_blocks != fine.num_decoder_blocks:
        raise ValueError(f"stride must be a multiple of {fine.stride}, with {fine.num_decoder_blocks} decoder blocks.")
    for name in ("features_in", "encoder_fine", "decoder_fine", "head"):
        getattr(codec, name).load_state_dict(getattr(finer, name).state_dict())
    heard, fed = [], []
    for part in audio.split(8):
        usable = part[..., : part.shape[-1] // config.hop_length * config.hop_length]
        heard.append(_stacked(finer.encoder_fine(finer.features_in(finer.features(usable))), config.stride))
        latents = finer.quantizer.bypass(finer.encode_latents(usable))
        fed.append(_stacked(finer._upsample(finer.decoder_latent(latents)), config.stride))
    inputs, outputs = torch.cat(heard).double(), torch.cat(fed).double()
    mean = outputs.mean(0)
    values, vectors = torch.linalg.eigh((outputs - mean).t() @ (outputs - mean) / len(outputs))
    basis = vectors.flip(1)[:, : config.dim]
    scale = values[-1].sqrt()
    _set(codec.up, basis * scale, mean)
    targets = (outputs - mean) @ basis / scale
    centre = inputs.mean(0)
    gram = (inputs - centre).t() @ (inputs - centre) / len(inputs)
    gram.diagonal().add_(RIDGE * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, (inputs - centre).t() @ targets / len(inputs)).t()
    _set(codec.down, weight, -(weight @ centre))
    _set(codec.quantizer.project_in, torch.eye(config.code_dim, config.dim))
    _set(codec.quantizer.project_out, torch.eye(config.dim, config.code_dim))


def _stacked(frames: Tensor, stride: int) -> Tensor:
    """Frames [B, F, D] as rows [B * F / stride, stride * D]."""
    return frames.reshape(-1, stride * frames.shape[-1])


def _set(linear: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    assert isinstance(linear, nn.Linear)
    linear.weight.copy_(weight)
    linear.bias.zero_() if bias is None else linear.bias.copy_(bias)
