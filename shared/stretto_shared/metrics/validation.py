"""What every metric checks before it computes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def signal(name: str, samples: ArrayLike, *, min_samples: int = 1) -> FloatArray:
    """Check a mono signal and return it as float64 [S].

    Raises:
        ValueError: If it is not [S] with enough samples, or not finite.
    """
    array = np.asarray(samples, dtype=np.float64)
    if array.ndim != 1 or array.shape[0] < min_samples:
        raise ValueError(f"{name} must be [S] with at least {min_samples} samples, got shape {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity.")
    return array


def signal_pair(reference: ArrayLike, estimate: ArrayLike, *, min_samples: int = 1) -> tuple[FloatArray, FloatArray]:
    """Check two signals of one length.

    Raises:
        ValueError: If one is malformed or their lengths differ.
    """
    first, second = signal("reference", reference, min_samples=min_samples), signal("estimate", estimate)
    if first.shape != second.shape:
        raise ValueError(f"reference and estimate must be equally long, got {first.shape[0]} and {second.shape[0]}.")
    return first, second
