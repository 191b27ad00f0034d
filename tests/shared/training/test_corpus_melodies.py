"""The melody of a clip, and performances of it alone."""

from __future__ import annotations

import numpy as np
import pytest
from stretto_shared.training.corpus.clips import arrangement_of, draw_arrangement, make_clip
from stretto_shared.training.corpus.debug import debug_library
from stretto_shared.training.corpus.melodies import hum, melody_of, perform, pitch_classes
from stretto_shared.training.corpus.plans import BALANCED
from stretto_shared.training.corpus.records import CLIP_SAMPLES, SAMPLE_RATE_HZ
from stretto_shared.training.corpus.render import SymusicSynthesizer, bundled_soundfont
from stretto_shared.training.corpus.scores import PITCH

TUNE = np.array([[0.0, 1.0, 60, 90], [1.0, 1.0, 64, 90], [2.0, 0.5, 67, 90], [3.0, 1.0, 72, 90]])


def loudest_hz(samples: np.ndarray, start_s: float, duration_s: float = 0.5) -> float:
    part = samples[round(start_s * 24_000) : round((start_s + duration_s) * 24_000)]
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 17))
    return float(spectrum.argmax() * 24_000 / (1 << 17))


def test_the_arrangement_of_a_record_is_what_was_drawn() -> None:
    library = debug_library("train")
    synthesizers = {"timgm6mb": SymusicSynthesizer(bundled_soundfont(), SAMPLE_RATE_HZ)}
    for index in range(6):
        record = make_clip(library, synthesizers, "train", 0, index).record
        again = arrangement_of(library, record, 0)
        assert (again.piece, again.plan, again.tempo_bpm) == (record.piece, record.texture, record.tempo_bpm)
    with pytest.raises(ValueError, match="is not what the arranger draws now"):
        arrangement_of(library, record, 1)


def test_the_melody_is_the_part_that_has_it_or_the_highest_line() -> None:
    library, seen = debug_library("train"), set()
    for index in range(40):
        _, arrangement = draw_arrangement(library, "train", 0, index, 0, BALANCED)
        melody = melody_of(arrangement)
        roles = [use.role for use in arrangement.instruments]
        if "melody" in roles:
            own = arrangement.parts[roles.index("melody")].notes
            assert set(melody[:, PITCH]) <= set(own[:, PITCH])
            seen.add("melody")
        elif all(part.is_drum for part in arrangement.parts):
            assert melody.shape == (0, 4)
            seen.add("drums")
        else:
            pitched = np.concatenate([part.notes for part in arrangement.parts if not part.is_drum])
            assert melody[:, PITCH].max() == pitched[:, PITCH].max()
            seen.add("line")
        assert (np.diff(melody[:, 0]) > 0).all()
    assert {"melody", "drums"} <= seen


def test_pitch_classes_are_those_at_the_middle_of_frames() -> None:
    assert pitch_classes(TUNE, 8, 2.0).tolist() == [0, 0, 4, 4, 7, -1, 0, 0]


@pytest.mark.parametrize("whistled", [False, True])
def test_a_hum_has_the_melody_s_pitches_within_half_a_semitone_in_a_reachable_octave(whistled: bool) -> None:
    samples = hum(TUNE, 4 * 24_000, np.random.default_rng(3), whistled=whistled)
    assert samples.dtype == np.float32 and np.abs(samples).max() <= 0.3 + 1e-6
    heard = [69 + 12 * np.log2(loudest_hz(samples, start_s + 0.2) / 440) for start_s in (0.0, 1.0, 3.0)]
    intervals = np.diff(heard)
    assert intervals == pytest.approx([4, 8], abs=0.35)
    away = (heard[0] - 60 + 6) % 12 - 6
    assert abs(away) <= 0.65
    low, high = (69, 96) if whistled else (45, 76)
    assert low - 6 <= heard[1] <= high + 6


def test_a_hum_rests_where_the_melody_does() -> None:
    samples = hum(TUNE, 4 * 24_000, np.random.default_rng(0))
    power = [float(np.mean(samples[round(at * 24_000) :][:6_000] ** 2)) for at in (0.3, 2.7)]
    assert power[1] < 0.02 * power[0]


def test_a_performance_is_drawn_and_of_no_melody_is_silent() -> None:
    synthesizer = SymusicSynthesizer(bundled_soundfont(), SAMPLE_RATE_HZ)
    takes = [perform(TUNE, synthesizer, CLIP_SAMPLES, np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]
    assert all(take.shape == (CLIP_SAMPLES,) and take.any() for take in takes)
    assert np.array_equal(takes[0], takes[1])
    assert len({float(take.std()) for take in takes}) == 4
    assert not perform(TUNE[:0], synthesizer, CLIP_SAMPLES, np.random.default_rng(0)).any()
