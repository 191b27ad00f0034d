"""Where a stage starts: tables of the codecs' own vectors, frequencies in the biases, and eyes on the moment itself.

A table of random vectors has to find out by itself which of its tokens are alike; those who made the tokens know.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from stretto_shared.nn.rvq import ResidualVectorQuantizer
from stretto_shared.nn.stage_lm import StageLM, relative_bucket
from stretto_shared.nn.stage_lm.model import TokenTable


def id_of(folder: Path) -> str:
    """`{name}@{12 digits of the weights' sha256}` of an exported model."""
    config = json.loads((folder / "config.json").read_text())
    return f"{config['name']}@{config['weights_sha256'][:12]}"


def code_vectors(folder: Path, first_codebook: int, num_codebooks: int) -> Tensor | None:
    """What the codes of an exported model stand for [n, V, d]; None if it holds neither codebooks nor centroids."""
    tensors = load_file(folder / "model.safetensors")
    if "centroids" in tensors and num_codebooks == 1:
        return tensors["centroids"].float()[None]
    names = [f"quantizer.codebooks.{first_codebook + k}.embed" for k in range(num_codebooks)]
    if any(name not in tensors for name in names):
        return None
    return torch.stack([tensors[name].float() for name in names])


def quantizer_of(folder: Path, num_codebooks: int) -> ResidualVectorQuantizer:
    """The residual quantizer of an exported joint encoder, its first codebooks."""
    vectors = code_vectors(folder, 0, num_codebooks)
    if vectors is None:
        raise SystemExit(f"{folder} holds no {num_codebooks} codebooks of a quantizer. Name another joint encoder.")
    quantizer = ResidualVectorQuantizer(vectors.shape[2], num_codebooks, vectors.shape[1])
    for level, own in zip(quantizer._levels, vectors, strict=True):
        level.embed.copy_(own)
    return quantizer.eval()


@torch.no_grad()
def start_table(table: TokenTable, vectors: Tensor | None) -> None:
    """Let a table begin with what its codes stand for, on their principal axes, each codebook at unit scale."""
    if vectors is None:
        return
    centred = vectors - vectors.mean(1, keepdim=True)
    centred = centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-8)
    flat = centred.flatten(0, 1)
    _, _, axes = torch.linalg.svd(flat, full_matrices=False)
    width = min(table.weight.shape[1], axes.shape[0])
    own = flat @ axes[:width].T
    own = own / own.square().mean().sqrt()
    table.weight[:, :width] = 0.9 * own + 0.3 * table.weight[:, :width]


@torch.no_grad()
def start_frequencies(model: StageLM, own: NDArray[np.int16]) -> None:
    """Let the predictions begin with how often each token occurs in clips [N, K, T]."""
    for bias, tokens in zip(model.token_bias, own.swapaxes(0, 1), strict=True):
        counts = torch.from_numpy(np.bincount(tokens.ravel().astype(np.int64), minlength=len(bias))).float() + 1.0
        logs = counts.log()
        bias.copy_(logs - logs.mean())


@torch.no_grad()
def start_nearness(model: StageLM) -> None:
    """Let the heads begin by looking at what is near, in tokens and in time: one most, the next half as much."""
    config = model.config
    distances = torch.arange(-4 * config.max_distance, 4 * config.max_distance + 1)
    for number in range(len(model.bias) // config.num_buckets):
        buckets = relative_bucket(
            distances, num_buckets=config.num_buckets, max_distance=config.max_distance, is_causal=number == 0
        )
        nearest = torch.full((config.num_buckets,), 4.0 * config.max_distance)
        nearest = nearest.scatter_reduce(0, buckets, distances.abs().float(), "amin")
        slopes = 2.0 * 0.5 ** torch.arange(config.num_heads)
        first = number * config.num_buckets
        model.bias[first : first + config.num_buckets] = -torch.log2(1 + nearest)[:, None] * slopes
