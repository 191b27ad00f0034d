"""Start a language model with the geometry of its codec's codebooks.

Codes whose vectors lie close together sound alike, but a table drawn at random does not know that, and a short training
never finds out for the rare ones. Each codebook's vectors, turned into the model's width by a random rotation of their
own, become its embeddings; its head starts as the same vectors times the gain that predicts a few clips best. So the
first step already says "as the frame before, or like it". The architecture is unchanged.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from stretto_acoustic.models.musicgen import MusicGenLM
from stretto_shared.engine.delay import apply_delay, target_mask
from torch import Tensor
from torch.nn import functional as F

GAINS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)


@torch.no_grad()
def start_from_codebooks(model: MusicGenLM, codec_weights: Path, codes: Tensor) -> list[float]:
    """Set embeddings and heads of `model`; return the cross-entropy of each codebook on `codes` [B, K, T]."""
    config, tensors = model.config, load_file(codec_weights)
    rows, size = config.cardinality + 1, config.cardinality
    heads = model.heads.weight.view(config.num_codebooks, size, config.dim)
    for k in range(config.num_codebooks):
        vectors = tensors[f"quantizer.codebooks.{k}.embed"].float()[:size]
        vectors = vectors - vectors.mean(0)
        rotation = torch.linalg.qr(torch.randn(config.dim, vectors.shape[1]))[0]  # [D, code_dim]
        spread = vectors @ rotation.t()
        table = model.embeddings.weight[k * rows : k * rows + size]
        # Half of the energy tells codes apart that lie close together.
        table.copy_((spread / spread.std() + torch.randn_like(spread)) * (0.5 * table.std()) * 2**0.5)
        heads[k] = table
    delayed = apply_delay(codes, config.delays, config.special_token)
    logits = model(delayed[..., :-1])  # [B, K, T', V]
    targets = delayed[..., 1:].masked_fill(~target_mask(codes.shape[-1], config.delays), -100)
    best = []
    for k in range(config.num_codebooks):
        losses = [float(F.cross_entropy(gain * logits[:, k].flatten(0, 1), targets[:, k].flatten())) for gain in GAINS]
        best.append(min(losses))
        heads[k] *= GAINS[losses.index(best[-1])]
    return best
