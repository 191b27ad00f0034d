"""What an unmasked frame is called: the targets of w2v-BERT's two losses. Only training needs them.

Departure: a quantizer reads the log-mel of the frame, not the subsampled features, which move while they are learnt: on
them, with and without gradient, most frames fell to a few codes within the first hundred steps.


- `GumbelQuantizer`: the paper's, as wav2vec 2.0 (Baevski et al., 2020, https://arxiv.org/abs/2006.11477) has it: one
  softmax a group over learned codes, drawn with Gumbel noise, straight through. Departure: it does not begin at random,
  where a few codes take nearly all frames, but at the k-means cells of principal components (`start`).
- `RandomProjectionQuantizer`: BEST-RQ (Chiu et al., 2022, https://arxiv.org/abs/2202.01855): frozen random projections
  and codes, no diversity to lose. A choice of the recipe's `quantizer`.

Legend: B batch, N frames of a row, D numbers of a frame, G groups, V codes of a group, Q width of quantised
vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import kmeans
import torch
from torch import Tensor, nn
from torch.nn import functional as F

COMPONENTS = 32  # principal ones, that the groups share out at the start
SHARPNESS = 5.0  # of the first probabilities: of what a squared distance from a centroid is worth


@dataclass(frozen=True)
class Targets:
    """What a quantizer made of features [B, N, D].

    Args:
        vectors: [B, N, Q], what the contrastive loss looks for.
        ids: int64 [B, N, G], what masked prediction predicts.
        diversity_loss: 0 where all codes are equally probable in the mean, near 1 where one is certain.
    """

    vectors: Tensor
    ids: Tensor
    diversity_loss: Tensor


class GumbelQuantizer(nn.Module):
    """Learned product quantizer."""

    def __init__(self, dim: int, num_groups: int, num_codes: int, code_dim: int) -> None:
        super().__init__()
        self.num_groups, self.num_codes = num_groups, num_codes
        self.logits = nn.Linear(dim, num_groups * num_codes)
        self.codes = nn.Parameter(torch.randn(num_groups, num_codes, code_dim // num_groups))
        self.project = nn.Linear(code_dim, code_dim)

    @torch.no_grad()
    def start(self, features: Tensor, seed: int) -> None:
        """Make the most probable code of each group the nearest of k-means' centroids of features [N, D].

        The groups take turns in choosing from the principal components, whitened. As the distance to a centroid is
        linear in the features, but for a term that all centroids share, this is exact.
        """
        mean = features.mean(0)
        _, spreads, axes = torch.linalg.svd(features - mean, full_matrices=False)
        whiten = axes[:COMPONENTS].T / (spreads[:COMPONENTS] / len(features) ** 0.5).clamp(min=1e-4)  # [D, P]
        for group in range(self.num_groups):
            own = whiten[:, group :: self.num_groups]
            centroids = SHARPNESS * kmeans.fit((features - mean) @ own, self.num_codes, 10, seed + group)
            rows = slice(group * self.num_codes, (group + 1) * self.num_codes)
            weight = centroids @ own.T  # [V, D]
            self.logits.weight[rows] = weight
            self.logits.bias[rows] = -weight @ mean - centroids.square().sum(1) / (2 * SHARPNESS)

    def forward(self, features: Tensor, temperature: float) -> Targets:
        """Features [B, N, D] at a Gumbel temperature; without noise in evaluation."""
        logits = self.logits(features).float().unflatten(-1, (self.num_groups, self.num_codes))
        if self.training:
            chosen = F.gumbel_softmax(logits, temperature, hard=True)
        else:
            chosen = F.one_hot(logits.argmax(-1), self.num_codes).to(logits)
        vectors = torch.einsum("bngv,gvq->bngq", chosen, self.codes).flatten(2)
        mean = logits.softmax(-1).mean((0, 1))  # [G, V]
        perplexity = torch.exp(-(mean * torch.log(mean + 1e-7)).sum(-1))
        return Targets(self.project(vectors), logits.argmax(-1), (1 - perplexity / self.num_codes).mean())


class RandomProjectionQuantizer(nn.Module):
    """Frozen: nearest of random codes to a random projection, both of unit length; learns only the vectors."""

    directions: Tensor
    anchors: Tensor

    def __init__(self, dim: int, num_groups: int, num_codes: int, code_dim: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(num_groups, dim, 16) * dim**-0.5)
        self.register_buffer("anchors", F.normalize(torch.randn(num_groups, num_codes, 16), dim=-1))
        self.codes = nn.Parameter(torch.randn(num_groups, num_codes, code_dim // num_groups))
        self.project = nn.Linear(code_dim, code_dim)

    def start(self, features: Tensor, seed: int) -> None:
        """Nothing: what is random stays so."""

    def forward(self, features: Tensor, temperature: float) -> Targets:
        """Features [B, N, D]; the temperature has no meaning here."""
        projected = torch.einsum("bnd,gdp->bngp", features.detach(), self.directions)
        ids = torch.einsum("bngp,gvp->bngv", projected, self.anchors).argmax(-1)  # [B, N, G]
        vectors = torch.stack([codes[ids[..., g]] for g, codes in enumerate(self.codes)], -2).flatten(2)
        return Targets(self.project(vectors), ids, features.new_zeros(()))


QUANTIZERS = {"gumbel": GumbelQuantizer, "random": RandomProjectionQuantizer}


def usage(ids: Tensor, num_codes: int) -> float:
    """Perplexity of codes [..., G] as a share of their number, mean of the groups: 1 where all are equally frequent."""
    shares = [torch.bincount(group, minlength=num_codes) / len(group) for group in ids.flatten(0, -2).unbind(-1)]
    entropies = [-(share * torch.log(share.clamp(min=1e-12))).sum() for share in shares]
    return float(torch.stack(entropies).exp().mean() / num_codes)
