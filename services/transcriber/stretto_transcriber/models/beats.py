"""`TrackedBeats`: when the beats and the onsets of a recording are; numpy only.

Legend: B beats, M onsets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TrackedBeats:
    """What was tracked in one recording; there may be no beats.

    Args:
        beat_s: float64 [B], rising.
        beat_in_bar: int32 [B], 1 on a downbeat; or empty, where no bars are told.
        tempo_bpm: float64 [B], beats a minute around each beat; 0 is unknown, of one beat alone.
        numerator: Beats of most bars; 0 where no bars are told.
        onset_s: float64 [M], rising.
    """

    beat_s: NDArray[np.float64]
    beat_in_bar: NDArray[np.int32]
    tempo_bpm: NDArray[np.float64]
    numerator: int
    onset_s: NDArray[np.float64]
