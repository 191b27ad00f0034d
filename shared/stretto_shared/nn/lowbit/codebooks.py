"""The codebooks of int4: eight sets of sixteen levels, of which each group of 32 weights takes the best for it.

Levels are integers of eight bits, so that a product with integer rows is exact; which set a group takes says both how
large its weights are and how they lie. The sets were fitted by Lloyd's algorithm (1982) to rows of Gaussian numbers of
320 to 4096 inputs, each in units of a 127th of its largest, with no weights of any model; `fit` does it again:

    python -m stretto_shared.nn.lowbit.codebooks

Levels that lie as the quantiles of a Gaussian are the idea of NF4 (Dettmers et al., "QLoRA", 2023); sets to choose from
take the place of its float scale per group.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn import functional as F

GROUP_SIZE = 32
NUM_CODEBOOKS, NUM_LEVELS = 8, 16
CODEBOOKS = (
    (-122, -88, -68, -51, -38, -25, -14, -3, 7, 18, 28, 40, 53, 69, 90, 122),
    (-108, -80, -62, -48, -37, -26, -16, -6, 4, 14, 24, 35, 48, 62, 80, 107),
    (-98, -73, -57, -43, -32, -22, -13, -4, 5, 14, 23, 33, 44, 56, 72, 97),
    (-90, -70, -55, -43, -33, -24, -15, -7, 2, 10, 19, 29, 39, 50, 64, 82),
    (-83, -63, -50, -38, -28, -19, -10, -2, 6, 15, 23, 32, 42, 54, 69, 89),
    (-77, -61, -49, -39, -30, -21, -13, -5, 2, 10, 19, 27, 37, 47, 59, 76),
    (-70, -56, -45, -35, -26, -17, -9, -2, 5, 13, 20, 27, 35, 45, 55, 70),
    (-64, -51, -41, -32, -25, -18, -11, -4, 3, 9, 16, 24, 32, 40, 50, 63),
)
MOST_LEVEL = 127
_ROWS_OF = ((320, 800), (1024, 500), (1280, 200), (2048, 200), (4096, 120))  # inputs, rows
_NARROWEST = 0.35  # of the first guess, in parts of the widest
_NUM_ROUNDS = 300


def choose(groups: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the codebook of each group [n, 32] of numbers in units of the levels, and the nearest level of each number.

    Returns:
        The codebook [n], the levels' places in it [n, 32], and the square error [n]. Of equals the first is taken.
    """
    best_error = torch.full((groups.shape[0],), torch.inf)
    best_book = torch.zeros(groups.shape[0], dtype=torch.int64)
    best_places = torch.zeros(groups.shape, dtype=torch.int64)
    for book, levels in enumerate(codebooks):
        places = torch.bucketize(groups, (levels[1:] + levels[:-1]) / 2)
        error = halving_sum((levels[places] - groups).square())
        is_better = error < best_error
        best_error = torch.where(is_better, error, best_error)
        best_book = torch.where(is_better, book, best_book)
        best_places = torch.where(is_better[:, None], places, best_places)
    return best_book, best_places, best_error


def halving_sum(x: Tensor) -> Tensor:
    """Sum [..., n] to [...]: padded to a power of two of at least 16, the upper half is added to the lower."""
    size = max(16, 1 << (x.shape[-1] - 1).bit_length())
    x = F.pad(x, (0, size - x.shape[-1]))
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        x = x[..., :half] + x[..., half:]
    return x[..., 0]


def gaussian_groups(seed: int) -> Tensor:
    """Groups [n, 32] of rows of Gaussian numbers, in units of a 127th of each row's largest."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn((count, inputs), generator=generator) for inputs, count in _ROWS_OF]
    return torch.cat([(each / (each.abs().amax(1, keepdim=True) / MOST_LEVEL)).view(-1, GROUP_SIZE) for each in rows])


def fit(seed: int = 0, num_rounds: int = _NUM_ROUNDS) -> Tensor:
    """Fit codebooks [8, 16], levels in rising order, as float32 integers."""
    groups = gaussian_groups(seed)
    quantiles = torch.special.ndtri((torch.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS)
    ratios = _NARROWEST ** (torch.arange(NUM_CODEBOOKS) / (NUM_CODEBOOKS - 1))
    codebooks = MOST_LEVEL * ratios[:, None] * quantiles / quantiles.max()
    for _ in range(num_rounds):
        books, places, _ = choose(groups, codebooks)
        entries = (books[:, None] * NUM_LEVELS + places).flatten()
        sums = torch.zeros(codebooks.numel()).index_add(0, entries, groups.flatten())
        counts = torch.bincount(entries, minlength=codebooks.numel())
        means = torch.where(counts > 0, sums / counts.clamp(min=1), codebooks.flatten())
        codebooks = means.view_as(codebooks).sort(1).values
    fitted: Tensor = codebooks.round().clamp(-MOST_LEVEL, MOST_LEVEL)
    return fitted


if __name__ == "__main__":
    sys.stdout.writelines(f"    ({', '.join(str(int(level)) for level in levels)}),\n" for levels in fit())
