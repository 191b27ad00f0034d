"""What a listener hears of a stream: a play-out clock that starts at the first audio, and stops whenever none is left.

As vLLM-Omni's `audio_underrun_s` and `audio_continuity_ok`, it is an account of nothing but when each chunk came and
how long it is. A buffer may be filled before the first sample is played; after an underrun the music goes on as soon
as there is some. A stream that is cut off while its listener waits counts that wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ROUNDING_S = 1e-6  # sums of seconds are not exact; a millionth of one is no underrun


@dataclass(frozen=True)
class Arrival:
    """A chunk of audio: the second at which it came, on any clock, and the seconds that it lasts."""

    at_s: float
    duration_s: float


@dataclass(frozen=True, eq=False)
class Playout:
    """A stream as its listener heard it. Times are on the clock of the arrivals.

    Args:
        first_audio_s: When the first chunk came.
        played_out_s: When the last chunk that came had been played.
        audio_s: Seconds of audio.
        underrun_count: How often there was nothing to play before the end.
        underrun_s: Seconds of silence that came of it.
        gaps_s: Seconds between one chunk and the next, [chunks - 1].
        silences_s: Seconds without anything to play before each chunk, [chunks]; 0 before the first.
    """

    first_audio_s: float
    played_out_s: float
    audio_s: float
    underrun_count: int
    underrun_s: float
    gaps_s: NDArray[np.float64]
    silences_s: NDArray[np.float64]


def play_out(arrivals: Sequence[Arrival], *, buffer_s: float = 0.0, cut_at_s: float | None = None) -> Playout | None:
    """Play a stream.

    Args:
        arrivals: Its chunks, in the order in which they came.
        buffer_s: Seconds between the first audio and the start of the play-out clock.
        cut_at_s: When the stream failed; None for one that came whole.

    Returns:
        The account; None for a stream without audio.
    """
    if not arrivals:
        return None
    played_out_s = arrivals[0].at_s + buffer_s
    silences_s = []
    for arrival in arrivals:
        wait_s = arrival.at_s - played_out_s
        silences_s.append(wait_s if wait_s > ROUNDING_S else 0.0)
        played_out_s = max(played_out_s, arrival.at_s) + arrival.duration_s
    underrun_count, underrun_s = int(np.count_nonzero(silences_s)), float(sum(silences_s))
    if cut_at_s is not None and cut_at_s - played_out_s > ROUNDING_S:
        underrun_count += 1
        underrun_s += cut_at_s - played_out_s
    return Playout(
        first_audio_s=arrivals[0].at_s,
        played_out_s=played_out_s,
        audio_s=sum(arrival.duration_s for arrival in arrivals),
        underrun_count=underrun_count,
        underrun_s=underrun_s,
        gaps_s=np.diff([arrival.at_s for arrival in arrivals]),
        silences_s=np.array(silences_s),
    )
