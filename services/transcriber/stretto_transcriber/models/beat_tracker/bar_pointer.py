"""The likeliest beats of a bar pointer model, found exactly: a pointer runs through bars at a tempo that may change.

The model is that of "An Efficient State-Space Model for Joint Tempo and Meter Tracking" (Krebs, Böck, Widmer 2015) and
"Joint Beat and Downbeat Tracking with Recurrent Neural Networks" (Böck, Krebs, Widmer 2016): at one tempo a beat takes
a whole number of frames, the pointer advances by one position a frame, and it changes tempo only between two beats,
with log probability `-tempo_lambda * |ratio - 1|`. Departures:
    - The state space is never built. Since all that happens within a beat is that time passes, the recursion steps from
      beat to beat (as in an explicit-duration model) over sums of log likelihoods that are taken once. The optimum is
      the same to the bit of rounding (`tests/services/transcriber/test_beat_bar_pointer.py` asks a plain Viterbi).
    - No beat is shorter than the shortest, so that many frames are decided in one vector operation.
    - Metres are states of one model and may change at a barline, in place of one model for each, the best of them kept.
    - A tempo may have a prior, paid at each beat in proportion to the beat's length.

Back-pointers exist for possible beats only: a byte a frame for each tempo of each beat of each metre, and of each
barline where there are several metres.

Legend: T frames, I tempi, K beats of all metres one after another, M metres, Q frames of one block.
Knows nothing of seconds, networks and activations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NEVER = -1e30  # below every sum of log likelihoods, and finite, so that differences stay numbers


@dataclass(frozen=True)
class BarPointer:
    """The model.

    Args:
        intervals: int64 [I], frames of a beat at each tempo, rising, at least 2.
        beats_per_bar: M numbers of beats, each once.
        tempo_lambda: How unlikely a change of tempo is.
        metre_change_log: Log probability of another metre at a barline; that of staying is taken as 0.
        beat_share: The part of a beat at its start in which it is expected to be heard.
        free_frames: A change by so many frames is none: a beat need not take a whole number of them.
        tempo_log_prior: float64 [I], of a frame at each tempo.
        metre_log_prior: M numbers, of a frame in each metre; empty for 0.
    """

    intervals: NDArray[np.int64]
    beats_per_bar: tuple[int, ...] = (1,)
    tempo_lambda: float = 100.0
    metre_change_log: float = _NEVER
    beat_share: float = 1 / 16
    free_frames: float = 0.0
    tempo_log_prior: Floats | None = None
    metre_log_prior: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.intervals) == 0 or len(self.intervals) > 256 or self.intervals[0] < 2:
            raise ValueError(f"intervals: expected 1 to 256 of at least 2 frames, got {self.intervals}.")
        if np.any(np.diff(self.intervals) <= 0):
            raise ValueError(f"intervals: expected rising numbers of frames, got {self.intervals}.")
        if not self.beats_per_bar or len(set(self.beats_per_bar)) < len(self.beats_per_bar):
            raise ValueError(f"beats_per_bar: expected different numbers, got {self.beats_per_bar}.")

    @property
    def first_beats(self) -> NDArray[np.int64]:
        """Where each metre starts among the K beats: int64 [M]."""
        return np.concatenate([[0], np.cumsum(self.beats_per_bar)[:-1]]).astype(np.int64)

    @property
    def last_beats(self) -> NDArray[np.int64]:
        """Where each metre ends: int64 [M]."""
        ends: NDArray[np.int64] = np.cumsum(self.beats_per_bar) - 1
        return ends

    @property
    def num_beats(self) -> int:
        """K."""
        return sum(self.beats_per_bar)

    @property
    def heard_frames(self) -> NDArray[np.int64]:
        """Frames at the start of a beat in which it is expected: int64 [I]."""
        frames: NDArray[np.int64] = np.ceil(self.intervals * self.beat_share - 1e-9).astype(np.int64)
        return frames

    @property
    def tempo_change_log(self) -> Floats:
        """Log probability of each tempo [I, from] to follow another [to, I]; rows are the tempo that follows."""
        then, now = self.intervals[:, None], self.intervals[None, :]  # [to, from]
        weight = -self.tempo_lambda * np.maximum(np.abs(then - now) - self.free_frames, 0.0) / now
        normal = np.log(np.exp(weight).sum(0))
        change: Floats = weight - normal
        return change


@dataclass(frozen=True, eq=False)
class Pointing:
    """The likeliest path.

    Args:
        frame: int64 [N], the frames at which beats start; the first may be before frame 0, where the path begins
            within a beat.
        beat: int64 [N], which of the K beats.
        interval: int64 [N], the length that the path gives to each.
        log_likelihood: Of the path.
    """

    frame: NDArray[np.int64]
    beat: NDArray[np.int64]
    interval: NDArray[np.int64]
    log_likelihood: float


def find_beats(model: BarPointer, beat_log: Floats, downbeat_log: Floats, rest_log: Floats) -> Pointing:
    """The likeliest path through T frames, T > 0.

    Args:
        model: What may follow what.
        beat_log: float64 [T], log likelihood of each frame at the start of a beat.
        downbeat_log: The same, of the first beat of a bar.
        rest_log: The same, of what is between.
    """
    search = _Search(model, beat_log, downbeat_log, rest_log)
    search.run()
    return search.trace()


class _Search:
    """One pass over the frames. Time is counted from the longest beat before frame 0; what is before it costs nothing.

    `_arrivals[t % R, k, i]` is the best path that ends a beat k of tempo i just before t; it is written when the beat
    starts, since all that is heard in it is known, and R is just enough for the longest.
    """

    def __init__(self, model: BarPointer, beat_log: Floats, downbeat_log: Floats, rest_log: Floats) -> None:
        self.model = model
        self.lead = int(model.intervals[-1])
        self.num_frames = len(rest_log)
        self.block = int(model.intervals[0])
        self.sums = [self._summed(log) for log in (rest_log, beat_log, downbeat_log)]
        num_tempi, num_beats = len(model.intervals), model.num_beats
        self.change = model.tempo_change_log
        self.from_tempo = np.zeros((self.num_frames, num_beats, num_tempi), np.uint8)
        metres = len(model.beats_per_bar)
        self.from_metre = np.zeros((self.num_frames if metres > 1 else 0, metres, num_tempi), np.uint8)
        self._arrivals = np.full((self.lead + self.block, num_beats, num_tempi), _NEVER)
        self._last_starts = np.full((self.lead, num_beats, num_tempi), _NEVER)
        self._options = np.zeros((self.block, num_beats, num_tempi, num_tempi))
        self.follows = np.arange(num_beats) - 1  # the beat before, within a bar
        self.metre_change = np.where(np.eye(metres, dtype=bool), 0.0, model.metre_change_log)

    def _summed(self, log: Floats) -> Floats:
        """Running sums with nothing before frame 0 and nothing after the last."""
        sums = np.zeros(self.lead + self.num_frames + self.lead + 1)
        sums[self.lead + 1 : self.lead + 1 + self.num_frames] = np.cumsum(log)
        sums[self.lead + 1 + self.num_frames :] = sums[self.lead + self.num_frames]
        return sums

    def heard(self, start: NDArray[np.int64]) -> Floats:
        """Log likelihood of whole beats of every kind and tempo from each start [Q]: [Q, K, I]."""
        model = self.model
        rest, beat, downbeat = self.sums
        middle = start[:, None] + model.heard_frames
        end = start[:, None] + model.intervals
        between = rest[end] - rest[middle]
        if model.tempo_log_prior is not None:
            inside = np.minimum(end, self.lead + self.num_frames) - np.maximum(start[:, None], self.lead)
            between = between + inside * model.tempo_log_prior
        plain = between + beat[middle] - beat[start[:, None]]
        heard = np.repeat(plain[:, None, :], model.num_beats, axis=1)
        heard[:, model.first_beats] = (between + downbeat[middle] - downbeat[start[:, None]])[:, None]
        if model.metre_log_prior:
            inside = np.minimum(end, self.lead + self.num_frames) - np.maximum(start[:, None], self.lead)
            heard += inside[:, None] * np.repeat(model.metre_log_prior, model.beats_per_bar)[:, None]
        return heard

    def run(self) -> None:
        """Decide block by block which tempo, and at barlines which metre, comes before each possible beat."""
        intervals, ring = self.model.intervals, len(self._arrivals)
        starts = np.arange(1, self.lead + 1)  # a path may begin anywhere in a beat that frame 0 is part of
        begun = np.where(starts[:, None] + intervals > self.lead, 0.0, _NEVER)[:, None] + self.heard(starts)
        self._enter(starts, begun)
        self._keep_last(starts, begun - self.heard(starts))
        end = self.lead + self.num_frames
        for first in range(self.lead + 1, end, self.block):
            times = np.arange(first, min(first + self.block, end))
            arrived = self._arrivals[times % ring]  # [Q, K, I]
            self._arrivals[times % ring] = _NEVER
            started = self._start(times, arrived)
            self._enter(times, started + self.heard(times))
            self._keep_last(times, started)

    def _start(self, times: NDArray[np.int64], arrived: Floats) -> Floats:
        """The best path to the start of each beat at each tempo, [Q, K, I], from the ends of the beats before."""
        model = self.model
        before = arrived[:, self.follows]  # [Q, K, I]; the first beats' are replaced
        barlines = arrived[:, model.last_beats]  # [Q, M, I]
        if len(model.beats_per_bar) > 1:
            changed = barlines[:, None] + self.metre_change[None, :, :, None]  # [Q, to, from, I]
            self.from_metre[times - self.lead] = changed.argmax(2)
            barlines = changed.max(2)
        before[:, model.first_beats] = barlines
        options = np.add(before[:, :, None, :], self.change, out=self._options[: len(times)])  # [Q, K, to, from]
        best = options.argmax(3)
        self.from_tempo[times - self.lead] = best
        rows = options.reshape(-1, options.shape[3])
        chosen: Floats = rows[np.arange(len(rows)), best.reshape(-1)].reshape(best.shape)
        return chosen

    def _enter(self, starts: NDArray[np.int64], ended: Floats) -> None:
        """Note where beats that start at [Q] end."""
        rows = (starts[:, None] + self.model.intervals) % len(self._arrivals)  # [Q, I]
        self._arrivals[rows, :, np.arange(len(self.model.intervals))] = ended.transpose(0, 2, 1)

    def _keep_last(self, starts: NDArray[np.int64], started: Floats) -> None:
        self._last_starts[starts % self.lead] = started

    def trace(self) -> Pointing:
        """Follow the back-pointers from the best state at the last frame."""
        model, end = self.model, self.lead + self.num_frames
        starts = np.arange(end - self.lead, end)
        reaches = starts[:, None] + model.intervals >= end  # the last frame is within the beat
        scores = self._last_starts[starts % self.lead] + self.heard(starts)
        scores = np.where(reaches[:, None], scores, _NEVER)
        place, beat, tempo = (int(n) for n in np.unravel_index(scores.argmax(), scores.shape))
        log_likelihood = float(scores[place, beat, tempo])
        time, path = int(starts[place]), []
        while True:
            path.append((time - self.lead, beat, int(model.intervals[tempo])))
            if time <= self.lead:
                break
            row = time - self.lead
            earlier_tempo = int(self.from_tempo[row, beat, tempo])
            in_metre = np.flatnonzero(model.first_beats == beat)
            if len(in_metre):
                metre = int(self.from_metre[row, in_metre[0], earlier_tempo]) if len(model.beats_per_bar) > 1 else 0
                beat = int(model.last_beats[metre])
            else:
                beat -= 1
            tempo = earlier_tempo
            time -= int(model.intervals[tempo])
        frame, which, interval = (np.array(column, np.int64) for column in zip(*reversed(path)))
        return Pointing(frame, which, interval, log_likelihood)
