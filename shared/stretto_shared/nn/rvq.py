"""Residual vector quantisation with exponential-moving-average codebooks.

Source: Zeghidour et al., "SoundStream: An End-to-End Neural Audio Codec" (2021), sections III-C and III-D,
https://arxiv.org/abs/2107.03312: k-means initialisation on the first batch, codebooks as moving averages of the
vectors assigned to them, codes that nobody uses replaced by vectors of the batch, and quantizer dropout.

Departures: an optional linear map into a narrower code space (`code_dim`) before the first quantizer and out of it
after the last, without which a wide latent wastes distance computations; none where `code_dim == dim`. A codebook may
be told to keep its codes at one norm while it learns (`equal_norm`), as in gain-shape quantisation (Sabin and Gray,
1984) with one gain: what is left after the first levels has no preferred direction, and among codes of unequal norm
the short ones win nearly everywhere in many dimensions, so that most of the others fall idle. Encoding and decoding
do not change.

Legend: B batch, T frames, D latent, K codebooks, V cardinality, N = B * T vectors. Knows nothing about audio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_LEARNING_ONLY = ("cluster_size", "embed_sum", "initialised")
"""Buffers of a `Codebook` that encoding and decoding never read."""


def without_learning_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `state_dict` without the buffers by which codebooks learn: what a servable checkpoint holds."""
    books = {name.removesuffix("embed") for name in state if f"{name.removesuffix('embed')}embed_sum" in state}
    return {
        name: value
        for name, value in state.items()
        if not any(name == f"{book}{buffer}" for book in books for buffer in _LEARNING_ONLY)
    }


class Codebook(nn.Module):
    """V vectors of one quantizer, learned as moving averages; a code rarely used is redrawn from the batch."""

    embed: Tensor
    cluster_size: Tensor
    embed_sum: Tensor
    initialised: Tensor

    def __init__(
        self, cardinality: int, dim: int, *, decay: float = 0.98, min_usage: float = 0.5, equal_norm: bool = False
    ) -> None:
        super().__init__()
        self.decay = decay
        self.min_usage = min_usage
        self.equal_norm = equal_norm  # of learning only
        self.register_buffer("embed", torch.zeros(cardinality, dim))
        self.register_buffer("cluster_size", torch.ones(cardinality))
        self.register_buffer("embed_sum", torch.zeros(cardinality, dim))
        self.register_buffer("initialised", torch.zeros(1))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Codes of a servable checkpoint are placed; each counts as one vector until learning goes on."""
        embed = state_dict.get(f"{prefix}embed")
        if embed is not None and not any(f"{prefix}{buffer}" in state_dict for buffer in _LEARNING_ONLY):
            state_dict[f"{prefix}cluster_size"] = embed.new_ones(len(embed))
            state_dict[f"{prefix}embed_sum"] = embed.clone()
            state_dict[f"{prefix}initialised"] = embed.new_ones(1)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices [N] of the codes nearest to `vectors` [N, D] in Euclidean distance."""
        # |x - e|^2 = |x|^2 - 2 x.e + |e|^2; the first term does not change the order.
        return torch.addmm(self.embed.square().sum(1), vectors, self.embed.t(), alpha=-2).argmin(1)

    @torch.no_grad()
    def initialise(self, vectors: Tensor, *, num_iterations: int = 10) -> None:
        """Place the codes by k-means on `vectors` [N, D]."""
        num_codes = self.embed.shape[0]
        picks = torch.randperm(len(vectors))[:num_codes]
        if len(picks) < num_codes:
            picks = torch.cat([picks, torch.randint(len(vectors), (num_codes - len(picks),))])
        self.embed.copy_(vectors[picks])
        if self.equal_norm:
            self._equalise(float(vectors.norm(dim=1).mean()))
        for _ in range(num_iterations):
            codes = self.nearest(vectors)
            counts, sums = self._assign(vectors, codes)
            filled = counts > 0
            self.embed[filled] = sums[filled] / counts[filled, None]
            if self.equal_norm:
                self._equalise(self._mean_projection(vectors, codes))
        self.cluster_size.copy_(counts.clamp(min=1))
        self.embed_sum.copy_(self.embed * self.cluster_size[:, None])
        self.initialised.fill_(1)

    @torch.no_grad()
    def forget(self, num_vectors: int) -> None:
        """Let the averages weigh as after many updates of `num_vectors` each, however many placed the codes.

        Codes placed on many vectors would otherwise stand still for as many updates, while the latents move on.
        """
        scale = num_vectors / self.cluster_size.sum()
        self.cluster_size.mul_(scale)
        self.embed_sum.mul_(scale)

    def _assign(self, vectors: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Counts [V] and sums [V, D] of the vectors that fell on each code."""
        counts = torch.bincount(codes, minlength=self.embed.shape[0]).to(vectors.dtype)
        return counts, torch.zeros_like(self.embed).index_add_(0, codes, vectors)

    def _equalise(self, norm: float) -> None:
        """Give every code this norm."""
        self.embed.copy_(F.normalize(self.embed, dim=1) * norm)

    def _mean_projection(self, vectors: Tensor, codes: Tensor) -> float:
        """How far `vectors` reach in the directions of their `codes` on average: the one norm that errs least."""
        directions = F.normalize(self.embed, dim=1)[codes]
        return float((vectors * directions).sum(1).mean())

    @torch.no_grad()
    def update(self, vectors: Tensor, codes: Tensor) -> None:
        """Move the averages towards `vectors` [N, D] assigned to `codes` [N]; redraw the codes that fell idle."""
        counts, sums = self._assign(vectors, codes)
        self.cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.embed_sum.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + 1e-5) / (total + len(self.cluster_size) * 1e-5) * total
        norm = float(self.embed[0].norm())
        self.embed.copy_(self.embed_sum / smoothed[:, None])
        if self.equal_norm:
            projection = self._mean_projection(vectors, codes)
            self._equalise(self.decay * norm + (1 - self.decay) * projection)
        # A code is idle when it gets less than `min_usage` of an equal share of the vectors.
        share = self.min_usage * min(1.0, len(vectors) / len(self.cluster_size)) * 0.5
        idle = self.cluster_size < share
        num_idle = int(idle.sum())
        if num_idle:
            drawn = vectors[torch.randint(len(vectors), (num_idle,))]
            if self.equal_norm:
                drawn = F.normalize(drawn, dim=1) * self.embed[0].norm()
            self.embed[idle] = drawn
            start = max(share * 2, 1e-3)
            self.cluster_size[idle] = start
            self.embed_sum[idle] = drawn * start


@dataclass
class Quantized:
    """What a quantizer makes of latents [B, T, D]."""

    latents: Tensor  # [B, T, D], straight-through
    codes: Tensor  # [B, K, T]
    commitment_loss: Tensor  # scalar


class ResidualVectorQuantizer(nn.Module):
    """K codebooks, each quantising what those before it left over.

    Invariant: `decode(encode(x))` equals the quantised latents of `forward(x)` in evaluation mode
    (`tests/shared/nn/test_rvq.py`).
    """

    def __init__(self, dim: int, num_codebooks: int, cardinality: int, *, code_dim: int | None = None) -> None:
        super().__init__()
        code_dim = code_dim or dim
        self.project_in = nn.Linear(dim, code_dim) if code_dim != dim else nn.Identity()
        self.project_out = nn.Linear(code_dim, dim) if code_dim != dim else nn.Identity()
        self.codebooks = nn.ModuleList(Codebook(cardinality, code_dim) for _ in range(num_codebooks))

    @property
    def _levels(self) -> Sequence[Codebook]:
        """The codebooks, coarsest first, by their type."""
        return cast(Sequence[Codebook], self.codebooks)

    def forward(self, latents: Tensor, num_codebooks: Tensor | None = None) -> Quantized:
        """Quantise `latents` [B, T, D]; row b keeps its first `num_codebooks[b]` codebooks (all by default)."""
        projected = self.project_in(latents).float()
        # Distances in half precision choose wrong codes, and their averages then all drift to the mean.
        with torch.autocast(projected.device.type, enabled=False):
            total, codes, loss = self._quantize(projected, num_codebooks)
        straight = projected + (total - projected).detach()
        return Quantized(self.project_out(straight), codes, loss)

    def _quantize(self, projected: Tensor, num_codebooks: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The sum of the kept codes [B, T, D], all codes [B, K, T], and the commitment loss."""
        batch, frames, dim = projected.shape
        keep = num_codebooks if num_codebooks is not None else torch.full((batch,), len(self.codebooks))
        residual, total = projected, torch.zeros_like(projected)
        codes, losses = [], []
        for k, codebook in enumerate(self._levels):
            flat = residual.detach().reshape(-1, dim)
            if self.training and not bool(codebook.initialised):
                codebook.initialise(flat)
            indices = codebook.nearest(flat)
            quantized = F.embedding(indices, codebook.embed).view(batch, frames, dim)
            if self.training:
                codebook.update(flat, indices)
            active = (keep > k).to(projected.dtype)[:, None, None]
            losses.append(((residual - quantized.detach()).square() * active).mean())
            residual = residual - quantized.detach()
            total = total + quantized * active
            codes.append(indices.view(batch, frames))
        return total, torch.stack(codes, 1), torch.stack(losses).mean()

    def bypass(self, latents: Tensor) -> Tensor:
        """`latents` [B, T, D] through the code space, not quantised: for the first steps of training."""
        out: Tensor = self.project_out(self.project_in(latents))
        return out

    @torch.no_grad()
    def initialise(self, latents: Tensor) -> None:
        """Place every codebook by k-means on `latents` [B, T, D], each on what those before it leave over."""
        with torch.autocast(latents.device.type, enabled=False):
            projected = self.project_in(latents.float())
            residual = projected.reshape(-1, projected.shape[-1])
            for codebook in self._levels:
                codebook.initialise(residual)
                residual = residual - F.embedding(codebook.nearest(residual), codebook.embed)

    def encode(self, latents: Tensor) -> Tensor:
        """Codes [B, K, T] of `latents` [B, T, D]."""
        residual = self.project_in(latents)
        batch, frames, dim = residual.shape
        codes = []
        for codebook in self._levels:
            indices = codebook.nearest(residual.reshape(-1, dim))
            residual = residual - F.embedding(indices, codebook.embed).view(batch, frames, dim)
            codes.append(indices.view(batch, frames))
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, T, D] of `codes` [B, k, T], for any k up to K."""
        total = F.embedding(codes[:, 0], self._levels[0].embed)
        for k in range(1, codes.shape[1]):
            total = total + F.embedding(codes[:, k], self._levels[k].embed)
        out: Tensor = self.project_out(total)
        return out
