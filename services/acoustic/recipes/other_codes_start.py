"""Start a language model from one that speaks another version of the codec's codes.

When a codec is trained on and its codebooks are placed anew, the numbers of the codes mean nothing any more, but the
vectors behind them do. Each new code takes the embedding and the head of the old codes of its level that lie nearest,
weighted by their distance; everything else of the model is taken over. Music, text and time need not be learned again.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from stretto_acoustic.models.musicgen import MusicGenLM
from torch import Tensor

NUM_NEAREST = 4


@torch.no_grad()
def start_from_other_codes(model: MusicGenLM, weights: Path, old_codec: Path, new_codec: Path) -> None:
    """Fill `model` from `weights`, a checkpoint of its sizes that speaks the codes of `old_codec`.

    Args:
        model: Of the new codes; its codebooks and cardinality are those of the checkpoint.
        weights: The checkpoint, a safetensors file.
        old_codec: The codec that the checkpoint speaks, a safetensors file.
        new_codec: The codec that `model` is to speak, a safetensors file.
    """
    model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    config, old, new = model.config, load_file(old_codec), load_file(new_codec)
    rows, size = config.cardinality + 1, config.cardinality
    heads = model.heads.weight.view(config.num_codebooks, size, config.dim)
    for k in range(config.num_codebooks):
        before, after = (codec[f"quantizer.codebooks.{k}.embed"].float()[:size] for codec in (old, new))
        shares = nearest_shares(after, before)
        table = model.embeddings.weight[k * rows : k * rows + size]
        for values in (table, heads[k]):
            mixed = shares @ values
            # A mean is shorter than what it is the mean of.
            values.copy_(mixed * (values.norm(dim=1).mean() / mixed.norm(dim=1).mean()))


def nearest_shares(vectors: Tensor, known: Tensor) -> Tensor:
    """What each of `vectors` [N, D] takes of each of `known` [M, D], rows that sum to 1 [N, M]."""
    distances = torch.cdist(vectors, known).square()
    near, places = distances.topk(min(NUM_NEAREST, len(known)), largest=False)
    scale = near.mean(1, keepdim=True).clamp(min=1e-9)
    shares = torch.softmax(-4 * near / scale, 1)
    return torch.zeros_like(distances).scatter_(1, places, shares)
