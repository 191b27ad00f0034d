"""How much of its codebooks a codec uses.

Use counts codes that occur at all; perplexity is 2 to the entropy of their distribution in bits, so it also sees codes
that occur but rarely. Both are relative to one body of audio: more audio can only raise use.

Legend: K codebooks, T frames (of all clips together), V cardinality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stretto_shared.metrics.validation import FloatArray


def code_counts(codes: ArrayLike, cardinality: int) -> NDArray[np.int64]:
    """Occurrences [K, V] of each code in codes [K, T].

    Raises:
        ValueError: On another shape or a code outside [0, cardinality).
    """
    matrix = np.asarray(codes)
    if matrix.ndim != 2 or matrix.size == 0 or not np.issubdtype(matrix.dtype, np.integer):
        raise ValueError(f"codes must be integers [K, T] with at least one frame, got {matrix.dtype} {matrix.shape}.")
    if int(matrix.min()) < 0 or int(matrix.max()) >= cardinality:
        raise ValueError(f"codes must lie in [0, {cardinality}), got {int(matrix.min())} to {int(matrix.max())}.")
    return np.stack([np.bincount(row, minlength=cardinality) for row in matrix])


def codebook_use(codes: ArrayLike, cardinality: int) -> FloatArray:
    """Share [K] of each codebook's entries that occur at least once, 0 to 1."""
    use: FloatArray = (code_counts(codes, cardinality) > 0).mean(axis=1)
    return use


def codebook_perplexity(codes: ArrayLike, cardinality: int) -> FloatArray:
    """Effective number [K] of codes of each codebook, 1 to V."""
    counts = code_counts(codes, cardinality)
    shares = counts / counts.sum(axis=1, keepdims=True)
    bits = -(shares * np.log2(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    perplexity: FloatArray = np.exp2(bits)
    return perplexity
