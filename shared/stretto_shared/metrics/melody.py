"""Whether music follows a melody.

`chroma_cosine` is the melody score of Copet et al., "Simple and Controllable Music Generation" (2023),
https://arxiv.org/abs/2306.05284: the cosine similarity of two quantized chromagrams, frame by frame, averaged. With one
pitch class a frame it is the share of frames that agree.

Departure: frames in which the reference is silent (-1) do not count, since no pitch is asked there.

Legend: T frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def chroma_cosine(reference: ArrayLike, estimate: ArrayLike) -> float:
    """Mean cosine of two sequences [T] of pitch classes (0 to 11, -1 for silence), 0 to 1; the longer one is cut.

    Raises:
        ValueError: If a sequence is malformed, or the reference is silent throughout.
    """
    asked, heard = _classes("reference", reference), _classes("estimate", estimate)
    length = min(asked.shape[0], heard.shape[0])
    asked, heard = asked[:length], heard[:length]
    sounding = asked >= 0
    if not sounding.any():
        raise ValueError("reference must sound in at least one shared frame.")
    return float((asked == heard)[sounding].mean())


def _classes(name: str, classes: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(classes)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers [T] with at least one frame, got {array.dtype} {array.shape}.")
    if int(array.min()) < -1 or int(array.max()) > 11:
        raise ValueError(f"{name} must lie in [-1, 11], got {int(array.min())} to {int(array.max())}.")
    return array.astype(np.int64)
