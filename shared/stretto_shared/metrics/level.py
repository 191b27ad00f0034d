"""How loud a signal is, and whether it is cut off."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from stretto_shared.metrics.validation import signal


def rms_dbfs(samples: ArrayLike) -> float:
    """Root mean square relative to full scale 1 in dB; -infinity for silence, -3 for a full sine."""
    rms = float(np.sqrt(np.mean(np.square(signal("samples", samples)))))
    return 20.0 * float(np.log10(rms)) if rms > 0 else -np.inf


def clipped_share(samples: ArrayLike, *, ceiling: float = 0.999) -> float:
    """Share of the samples at or above `ceiling` in magnitude, 0 to 1."""
    return float((np.abs(signal("samples", samples)) >= ceiling).mean())
