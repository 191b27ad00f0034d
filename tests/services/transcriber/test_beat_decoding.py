"""Activations to beats, bars, tempo and onsets: pulses with a known answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from stretto_transcriber.models.beat_tracker.decoding import BeatOptions, detect_onsets, local_tempo, track_beats

RATE_HZ = 100.0
Floats = NDArray[np.float64]


def pulses(times_s: Floats, duration_s: float, height: float = 0.9, rate_hz: float = RATE_HZ) -> Floats:
    """A narrow bump at each time over a low floor."""
    frame = np.arange(round(duration_s * rate_hz))
    bumps = np.exp(-0.5 * (frame[:, None] - times_s * rate_hz) ** 2)
    return np.clip(0.02 + height * bumps.max(1, initial=0.0), 0, 1)


@pytest.mark.parametrize(
    ("tempo_bpm", "rate_hz"),
    [
        (62.0, 50.0),
        (90.0, 50.0),
        (120.0, 50.0),
        (173.0, 50.0),
        (205.0, 50.0),
        (62.0, 100.0),
        (107.0, 100.0),
        (205.0, 100.0),
    ],
)
def test_a_steady_pulse_is_found_at_its_tempo(tempo_bpm: float, rate_hz: float) -> None:
    true_s = np.arange(0.31, 20, 60 / tempo_bpm)
    found = track_beats(pulses(true_s, 20, rate_hz=rate_hz), None, rate_hz)
    assert found.beat_s == pytest.approx(true_s, abs=0.0075)
    assert np.median(found.tempo_bpm) == pytest.approx(tempo_bpm, rel=0.01)
    assert len(found.beat_in_bar) == 0 and found.numerator == 0 and len(found.downbeat_s) == 0


def test_a_missing_pulse_is_filled_in() -> None:
    true_s = np.arange(0.5, 20, 0.5)
    found = track_beats(pulses(np.delete(true_s, [11, 12, 25]), 20), None, RATE_HZ)
    assert found.beat_s == pytest.approx(true_s, abs=0.045)


def test_a_tempo_that_changes_is_followed() -> None:
    intervals = np.concatenate([np.full(20, 0.6), np.linspace(0.6, 0.42, 20), np.full(20, 0.42)])
    true_s = 0.4 + np.cumsum(intervals)
    found = track_beats(pulses(true_s, true_s[-1] + 1), None, RATE_HZ)
    assert found.beat_s == pytest.approx(true_s, abs=0.01)
    assert found.tempo_bpm[3] == pytest.approx(100, rel=0.02) and found.tempo_bpm[-3] == pytest.approx(143, rel=0.02)


@pytest.mark.parametrize("metre", [2, 3, 4, 5])
@pytest.mark.parametrize("pickup", [0, 1])
def test_bars_are_counted_from_their_downbeats(metre: int, pickup: int) -> None:
    true_s = np.arange(0.5, 30, 0.5)
    is_first = (np.arange(len(true_s)) - pickup) % metre == 0
    beat, downbeat = pulses(true_s, 30), pulses(true_s[is_first], 30, height=0.8)
    found = track_beats(beat, np.minimum(beat, downbeat), RATE_HZ, BeatOptions(beats_per_bar=(2, 3, 4, 5)))
    assert found.numerator == metre
    assert found.beat_in_bar.tolist() == ((np.arange(len(true_s)) - pickup) % metre + 1).tolist()
    assert found.downbeat_s == pytest.approx(true_s[is_first], abs=0.005)


def test_a_metre_that_changes_is_followed_and_the_longer_one_named() -> None:
    true_s = np.arange(0.5, 40, 0.5)
    places = np.concatenate([np.arange(32) % 4, np.arange(len(true_s) - 32) % 3]) + 1
    beat, downbeat = pulses(true_s, 40), pulses(true_s[places == 1], 40, height=0.8)
    found = track_beats(beat, np.minimum(beat, downbeat), RATE_HZ)
    assert found.beat_in_bar.tolist() == places.tolist()
    assert found.numerator == 3
    kept = track_beats(beat, np.minimum(beat, downbeat), RATE_HZ, BeatOptions(metre_change_log=-1e9))
    assert set(np.diff(np.flatnonzero(kept.beat_in_bar == 1))) == {kept.numerator}


def test_beats_without_activation_at_the_ends_are_not_made_up() -> None:
    true_s = np.arange(5.0, 15.0, 0.5)
    found = track_beats(pulses(true_s, 60), None, RATE_HZ)
    assert found.beat_s == pytest.approx(true_s, abs=0.005)


@pytest.mark.parametrize("num_frames", [0, 1, 700])
def test_silence_has_no_beats(num_frames: int) -> None:
    silence = np.zeros(num_frames)
    found = track_beats(silence, silence, 50.0)
    assert len(found.beat_s) == len(found.beat_in_bar) == len(found.tempo_bpm) == found.numerator == 0
    assert len(detect_onsets(silence, 50.0)) == 0


def test_one_loud_frame_is_one_beat() -> None:
    found = track_beats([0.9], [0.9], 50.0)
    assert found.beat_s.tolist() == [0.0] and found.beat_in_bar.tolist() == [1]


def test_a_prior_decides_between_a_tempo_and_its_double() -> None:
    frame_s = np.arange(0.5, 20, 0.35)
    weak = pulses(frame_s, 20, height=0.4)
    strong = pulses(frame_s[::2], 20, height=0.9)
    both = np.maximum(weak, strong)
    options = BeatOptions(tempo_octaves=0.3, tempo_weight=3.0)
    slow = track_beats(both, None, RATE_HZ, replace(options, usual_tempo_bpm=80))
    fast = track_beats(both, None, RATE_HZ, replace(options, usual_tempo_bpm=170))
    assert np.median(np.diff(slow.beat_s)) == pytest.approx(0.7, abs=0.01)
    assert np.median(np.diff(fast.beat_s)) == pytest.approx(0.35, abs=0.01)


def test_beats_lie_between_frames_where_the_activation_does() -> None:
    true_s = np.arange(0.507, 20, 0.5)
    fine = track_beats(pulses(true_s, 20, rate_hz=50), None, 50.0)
    coarse = track_beats(pulses(true_s, 20, rate_hz=50), None, 50.0, BeatOptions(peaks=False))
    assert np.abs(fine.beat_s - true_s).mean() < 0.002
    assert np.abs(coarse.beat_s - true_s).mean() > 0.004


def test_onsets_are_peaks_and_neighbours_are_one() -> None:
    onset_s = np.array([0.2, 0.5, 0.61, 1.304])
    heard = pulses(onset_s, 2.0)
    heard[150] = 0.45  # below the threshold
    assert detect_onsets(heard, RATE_HZ) == pytest.approx(onset_s, abs=0.003)
    flat = np.zeros(100)
    flat[40:43] = 0.8
    assert len(detect_onsets(flat, RATE_HZ)) == 1
    assert len(detect_onsets(heard, RATE_HZ, threshold=0.4)) == 5


def test_the_local_tempo_forgives_one_odd_interval() -> None:
    beat_s = np.delete(np.arange(0.0, 10.0, 0.5), 7)
    assert local_tempo(beat_s)[2:-2] == pytest.approx(np.full(len(beat_s) - 4, 120.0), rel=0.5)
    assert np.median(local_tempo(beat_s)) == pytest.approx(120.0)
    assert local_tempo(np.zeros(0)).tolist() == [] and local_tempo(np.array([1.0])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("beat", "downbeat", "message"),
    [
        (np.zeros((2, 5)), None, r"beat: expected activations \[T\]"),
        (np.full(5, 1.5), None, "beat: expected probabilities"),
        (np.full(5, np.nan), None, "beat: expected probabilities"),
        (np.zeros(5), np.zeros(4), "downbeat: expected 5 frames"),
        (np.zeros(5), np.full(5, -1.0), "downbeat: expected probabilities"),
    ],
)
def test_activations_that_are_none_are_refused(beat: Floats, downbeat: Floats | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        track_beats(beat, downbeat, 50.0)


def test_options_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="min_tempo_bpm, max_tempo_bpm"):
        BeatOptions(min_tempo_bpm=200, max_tempo_bpm=100)
    with pytest.raises(ValueError, match="beats_per_bar"):
        BeatOptions(beats_per_bar=())
