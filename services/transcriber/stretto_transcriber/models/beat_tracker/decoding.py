"""Activations to beats, bars, tempo, metre and onsets; the activations may be this tracker's or anybody's.

`track_beats` asks `bar_pointer.py` for the likeliest path and puts each beat where its activation peaks. Two functions
besides: `local_tempo` smooths the distances of beats, `detect_onsets` picks peaks.

Departures from madmom's DBN trackers:
    - One model of all metres, in which the metre may change at a barline; the numerator is that of most of the time.
    - A prior on the tempo, since a tracker that must guess between a tempo and its double should know which is common.
    - Times between frames, from the parabola through an activation's peak.

Legend: T frames, N beats, M onsets, W frames of a peak's neighbourhood. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stretto_transcriber.models.beat_tracker.bar_pointer import BarPointer, find_beats

Floats = NDArray[np.float64]
_FLOOR = 1e-5  # no activation is sure
_COARSE_HZ = 75.0
_FREE_FRAMES = 0.5  # where frames are coarse; at 100 a second it does harm
_COARSE_LAMBDA, _FINE_LAMBDA = 20.0, 115.0


@dataclass(frozen=True)
class BeatOptions:
    """What the decoder takes for likely.

    Args:
        min_tempo_bpm: The slowest beat.
        max_tempo_bpm: The fastest beat.
        max_tempi: Where whole frames allow more tempi than this, so many are taken, spaced by ratio.
        tempo_lambda: How steady the tempo is: the log probability of a change by the ratio r is about
            `-tempo_lambda * |r - 1|`. None takes 115, or 20 below 75 frames a second, where a step to the next whole
            number of frames is already a change of some percent.
        beats_per_bar: Metres to choose from where downbeats are given.
        metre_change_log: Log probability of another metre at a barline.
        beat_share: The part of a beat at its start in which it is expected.
        threshold: Nothing is tracked before the first activation of at least this, and after the last.
        usual_tempo_bpm: The middle of the prior on tempo.
        tempo_octaves: Its standard deviation in octaves; 0 for no prior.
        tempo_weight: The prior's weight for each second.
        peaks: Whether beats move to the peak of the activation where they are expected.
        climb_s: How far they may go on from there to a peak beside it, below 75 frames a second.
    """

    min_tempo_bpm: float = 50.0
    max_tempo_bpm: float = 240.0
    max_tempi: int = 100
    tempo_lambda: float | None = None
    beats_per_bar: tuple[int, ...] = (2, 3, 4)
    metre_change_log: float = -12.0
    beat_share: float = 1 / 16
    threshold: float = 0.05
    usual_tempo_bpm: float = 110.0
    tempo_octaves: float = 0.0
    tempo_weight: float = 1.0
    peaks: bool = True
    climb_s: float = 0.04

    def __post_init__(self) -> None:
        if not 10 <= self.min_tempo_bpm < self.max_tempo_bpm <= 600:
            raise ValueError(
                f"min_tempo_bpm, max_tempo_bpm: expected 10 <= slowest < fastest <= 600, got {self.min_tempo_bpm:g} "
                f"and {self.max_tempo_bpm:g}. Widen the range."
            )
        if not self.beats_per_bar or min(self.beats_per_bar) < 1:
            raise ValueError(f"beats_per_bar: expected numbers of at least 1, got {self.beats_per_bar}. Name a metre.")


@dataclass(frozen=True, eq=False)
class Beats:
    """Where the beats are.

    Args:
        beat_s: float64 [N], rising.
        beat_in_bar: int32 [N], 1 on a downbeat; empty where no downbeats were given.
        tempo_bpm: float64 [N], the tempo around each beat; 0 is unknown, of one beat alone.
        numerator: Beats of most bars; 0 where no downbeats were given or nothing was found.
    """

    beat_s: Floats = field(default_factory=lambda: np.zeros(0))
    beat_in_bar: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    tempo_bpm: Floats = field(default_factory=lambda: np.zeros(0))
    numerator: int = 0

    @property
    def downbeat_s(self) -> Floats:
        """The first beats of bars."""
        return self.beat_s[self.beat_in_bar == 1] if len(self.beat_in_bar) else np.zeros(0)


def track_beats(
    beat: ArrayLike, downbeat: ArrayLike | None, frame_rate_hz: float, options: BeatOptions | None = None
) -> Beats:
    """The likeliest beats of activations [T], probabilities of frames that are centred on t / frame_rate_hz.

    Args:
        beat: Of a beat, downbeats among them.
        downbeat: Of a downbeat, or None to track beats without bars.
        frame_rate_hz: Frames a second.
        options: What is likely.

    Raises:
        ValueError: On activations that are not one-dimensional, of different lengths or outside 0 to 1.
    """
    options = options or BeatOptions()
    heard = _checked("beat", beat)
    bars = None if downbeat is None else _checked("downbeat", downbeat)
    if bars is not None and len(bars) != len(heard):
        raise ValueError(f"downbeat: expected {len(heard)} frames like beat, got {len(bars)}.")
    loud = np.flatnonzero(heard >= options.threshold)
    if not len(loud):
        return Beats()
    first, stop = int(loud[0]), int(loud[-1]) + 1
    model = _model(frame_rate_hz, options, with_bars=bars is not None)
    path = find_beats(model, *_log_likelihoods(heard[first:stop], None if bars is None else bars[first:stop], options))
    widths = model.heard_frames[np.searchsorted(model.intervals, path.interval)]
    inside = path.frame >= 0
    # A path may begin within the frames in which a beat is expected, and the beat among them.
    inside[0] |= bool(heard[first : first + max(0, path.frame[0] + widths[0])].max(initial=0.0) >= options.threshold)
    stops = path.frame[inside] + widths[inside] + first
    starts = np.maximum(path.frame[inside], 0) + first
    frames = starts.astype(np.float64)
    if options.peaks:
        reach_s = options.climb_s if frame_rate_hz < _COARSE_HZ else 0.0
        climb = min(round(reach_s * frame_rate_hz), int(model.intervals[0]) // 4)  # never to the beat beside
        frames = np.array([_place(heard, int(a), int(b), climb, options) for a, b in zip(starts, stops)])
    beat_s = frames / frame_rate_hz
    if bars is None:
        return Beats(beat_s, tempo_bpm=local_tempo(beat_s))
    ends = np.cumsum(model.beats_per_bar)
    metre = np.searchsorted(ends, path.beat[inside], side="right")
    places = path.beat[inside] - model.first_beats[metre] + 1
    spent = np.bincount(metre, weights=path.interval[inside], minlength=len(ends))
    numerator = model.beats_per_bar[int(spent.argmax())] if len(metre) else 0
    return Beats(beat_s, places.astype(np.int32), local_tempo(beat_s), numerator)


def local_tempo(beat_s: Floats, num_intervals: int = 4) -> Floats:
    """The tempo around each of N beats: of the median of the intervals nearest to it; 0 of one alone."""
    if len(beat_s) < 2:
        return np.zeros(0) if len(beat_s) == 0 else np.zeros(1)
    intervals = np.diff(beat_s)
    half = num_intervals // 2
    around = [intervals[max(0, n - half) : n + half] for n in range(len(beat_s))]
    return np.array([60.0 / float(np.median(near)) for near in around])


def detect_onsets(onset: ArrayLike, frame_rate_hz: float, *, threshold: float = 0.5, min_gap_s: float = 0.04) -> Floats:
    """When onsets are, in seconds [M]: the highest of activations [T] within `min_gap_s` that reach the threshold."""
    heard = _checked("onset", onset)
    reach = max(1, round(min_gap_s * frame_rate_hz))
    padded = np.pad(heard, reach, constant_values=-1.0)
    around = np.stack([padded[shift : shift + len(heard)] for shift in range(2 * reach + 1)])
    is_peak = (heard >= threshold) & (around.argmax(0) == reach)  # of equal neighbours the first
    return np.array([_peak(heard, int(f), int(f) + 1) for f in np.flatnonzero(is_peak)]) / frame_rate_hz


def _checked(name: str, values: ArrayLike) -> Floats:
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected activations [T], got shape {array.shape}.")
    if not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"{name}: expected probabilities from 0 to 1. Put logits through a sigmoid.")
    return array


def _model(frame_rate_hz: float, options: BeatOptions, *, with_bars: bool) -> BarPointer:
    shortest = max(2, round(60 * frame_rate_hz / options.max_tempo_bpm))
    longest = max(shortest, round(60 * frame_rate_hz / options.min_tempo_bpm))
    intervals = np.arange(shortest, longest + 1)
    if len(intervals) > options.max_tempi:
        intervals = np.unique(np.rint(np.geomspace(shortest, longest, options.max_tempi)).astype(np.int64))
    prior = None
    if options.tempo_octaves:
        octaves = np.log2(60 * frame_rate_hz / intervals / options.usual_tempo_bpm)
        prior = -0.5 * (octaves / options.tempo_octaves) ** 2 * (options.tempo_weight / frame_rate_hz)
    return BarPointer(
        intervals,
        beats_per_bar=options.beats_per_bar if with_bars else (1,),
        tempo_lambda=_tempo_lambda(frame_rate_hz) if options.tempo_lambda is None else options.tempo_lambda,
        metre_change_log=options.metre_change_log,
        beat_share=options.beat_share,
        free_frames=_FREE_FRAMES if frame_rate_hz < _COARSE_HZ else 0.0,
        tempo_log_prior=prior,
    )


def _tempo_lambda(frame_rate_hz: float) -> float:
    return _COARSE_LAMBDA if frame_rate_hz < _COARSE_HZ else _FINE_LAMBDA


def _log_likelihoods(beat: Floats, downbeat: Floats | None, options: BeatOptions) -> Sequence[Floats]:
    """Of a beat, a downbeat and what is between, [T] each; what is no beat shares its probability among positions."""
    rest = np.log(np.maximum(1 - beat, _FLOOR) / (1 / options.beat_share - 1))
    if downbeat is None:
        plain = np.log(np.maximum(beat, _FLOOR))
        return plain, plain, rest
    return np.log(np.maximum(beat - downbeat, _FLOOR)), np.log(np.maximum(downbeat, _FLOOR)), rest


def _place(heard: Floats, start: int, stop: int, climb: int, options: BeatOptions) -> float:
    """Where in the frames from `start` to before `stop` a beat is: at a peak, or in their middle if there is none."""
    if heard[start:stop].max() < options.threshold:
        return (start + stop - 1) / 2
    return _peak(heard, start, stop, climb)


def _peak(heard: Floats, start: int, stop: int, climb: int = 0) -> float:
    """The place of the peak at the highest of the frames from `start` to before `stop`, or close beside it."""
    frame = start + int(heard[start:stop].argmax())
    for _ in range(climb):
        around = heard[max(0, frame - 1) : frame + 2]
        frame = max(0, frame - 1) + int(around.argmax())
    if not 0 < frame < len(heard) - 1:
        return float(frame)
    before, at, after = heard[frame - 1 : frame + 2]
    bend = before - 2 * at + after
    if at < before or at < after or bend >= 0:
        return float(frame)
    return frame + float(0.5 * (before - after) / bend)
