"""What the piano corpus is made of: splits, excerpts, ends under the pedal, targets, scores, a SoundFont of samples."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import symusic
from stretto_shared.training import asap
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import OnsetsFramesConfig

sys.path.append(str(Path(__file__).parents[2] / "services/transcriber/recipes"))
import piano_performances
from note_scores import score_notes
from piano_clips import Clip, list_clips, notes_within, read_window, recorded, retuned, targets_of
from piano_performances import (
    Performance,
    excerpt,
    list_pieces,
    perturbed,
    read_performance,
    sounding_ends,
    with_pedal,
)
from sampled_piano import read_samples, soundfont

CONFIG = OnsetsFramesConfig()


def test_a_composition_is_in_one_split_by_its_digest():
    assert asap.split_of("Bach/Fugue/bwv_846") == asap.split_of("Bach/Fugue/bwv_846")
    counts = [asap.split_of(f"Composer/Piece/{number}") for number in range(2000)]
    assert counts.count("test") == pytest.approx(200, abs=50)
    assert counts.count("valid") == pytest.approx(100, abs=40)


def test_what_the_recordings_of_maps_play_is_not_listed(tmp_path):
    kept = ["asap/Bach/Fugue/bwv_846/A.mid", "pianomidi/midis/Chopin/chpn-p7.mid"]
    left_out = [
        "asap/Liszt/Transcendental_Etudes/5/A.mid",
        "asap/Schumann/Kreisleriana/3/A.mid",
        "asap/Bach/Fugue/bwv_846/midi_score.mid",
        "pianomidi/midis/Debussy/deb_clai.mid",
    ]
    for name in kept + left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert sorted(str(piece.path.relative_to(tmp_path)) for piece in list_pieces(tmp_path)) == kept
    assert len(piano_performances.MAPS_TITLES) == 20


def test_no_work_is_trained_on_whose_other_repeats_are_held_out(tmp_path):
    numbers = [f"{number}{end}" for number in range(120) for end in ("", "_no_repeat", "_repeat")]
    for number in numbers:
        (tmp_path / "asap/Composer" / number).mkdir(parents=True)
        (tmp_path / "asap/Composer" / number / "A.mid").touch()
    works = {"train": set(), "valid": set(), "test": set()}
    for piece in list_pieces(tmp_path):
        works[piece.split].add(asap.work_of(str(piece.path.parent.relative_to(tmp_path / "asap"))))
    assert all(works.values()) and not works["train"] & (works["valid"] | works["test"])


def write_midi(path, notes, pedal=()):
    score = symusic.Score(480)
    track = symusic.Track()
    for onset, release, pitch, velocity in notes:
        track.notes.append(symusic.Note(round(onset * 960), round((release - onset) * 960), pitch, velocity))
    for time, value in pedal:
        track.controls.append(symusic.ControlChange(round(time * 960), 64, value))
    score.tracks.append(track)
    score.tempos.append(symusic.Tempo(0, 120.0))
    score.dump_midi(str(path))


def test_a_midi_file_is_read_in_seconds_with_its_pedal_on_one_keyboard(tmp_path):
    notes = [(0.5, 2.0, 60, 80), (1.0, 1.5, 60, 90), (1.0, 3.0, 64, 70)]
    write_midi(tmp_path / "a.mid", notes, [(0.25, 127), (1.25, 0)])
    performance = read_performance(tmp_path / "a.mid")

    assert performance.notes[:, 0].tolist() == pytest.approx([0.5, 1.0, 1.0])
    assert performance.notes[0, 1] <= 1.0
    assert performance.pedal.tolist() == [[0.25, 127.0], [1.25, 0.0]]


def test_an_excerpt_begins_with_the_pedal_as_it_stood():
    notes = np.array([[0.5, 1.0, 60, 80], [2.5, 3.0, 62, 80], [9.0, 9.5, 64, 80]])
    played = excerpt(Performance(notes, np.array([[1.0, 127.0], [3.0, 0.0], [8.0, 127.0]])), 2.0, 4.0)

    assert played.notes.tolist() == [[0.5, 1.0, 62.0, 80.0]]
    assert played.pedal.tolist() == [[0.0, 127.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("pedal", "expected"),
    [
        ([], [1.0, 2.0]),
        ([[0.5, 127], [1.5, 0]], [1.5, 2.0]),  # held beyond its release
        ([[0.5, 127]], [1.8, 9.0]),  # held to the next stroke of the key
        ([[0.5, 63], [1.5, 0]], [1.0, 2.0]),  # not far enough down
        ([[1.2, 127], [1.7, 0]], [1.0, 2.0]),  # too late
        ([[1.9, 64]], [1.0, 9.0]),  # never released: to the end
    ],
)
def test_notes_sound_until_key_and_pedal_are_up(pedal, expected):
    notes = np.array([[0.2, 1.0, 60, 80], [1.8, 2.0, 60, 80]])

    assert sounding_ends(Performance(notes, np.array(pedal, float).reshape(-1, 2)), 9.0).tolist() == expected


def test_perturbing_moves_all_notes_alike_and_keeps_them_on_the_keyboard():
    notes = np.array([[1.0, 2.0, 22, 60], [2.0, 4.0, 60, 90], [3.0, 4.0, 107, 127]])
    pedal = np.array([[1.0, 127.0]])
    shifts = set()
    for seed in range(40):
        other = perturbed(Performance(notes, pedal), np.random.default_rng(seed))
        stretch = other.pedal[0, 0]
        assert 0.9 <= stretch <= 1.1
        middle = other.notes[np.isclose(other.notes[:, 0], 2 * stretch)][0]
        assert middle[1] == pytest.approx(4 * stretch)
        shifts.add(int(middle[2]) - 60)
        assert other.notes[:, 2].min() >= 21 and other.notes[:, 2].max() <= 108
        assert other.notes[:, 3].min() >= 1 and other.notes[:, 3].max() <= 127
    assert shifts == {-2, -1, 0, 1, 2}
    assert notes[0, 2] == 22


def test_targets_peak_at_the_onset_between_frames_and_hold_while_it_sounds():
    notes = np.array([[0.433, 1.217, 60.0, 127.0]])
    targets = targets_of(notes, 100, CONFIG)
    column = targets.onset[:, 39].numpy()
    times = (np.arange(100) + 0.5) * 0.02

    assert np.allclose(column, np.maximum(0, 1 - np.abs(times - 0.433) / 0.05), atol=1e-5)
    assert np.array_equal(targets.frame[:, 39].numpy() > 0, (times >= 0.433) & (times < 1.217))
    assert targets.offset[:, 39].argmax() == 60
    assert (targets.velocity[targets.is_struck] == 1.0).all()
    assert targets.is_struck.sum() >= 3
    assert targets.onset.sum() == pytest.approx(column.sum())


def test_hard_targets_are_one_frame():
    config = OnsetsFramesConfig(regression_s=0.0)

    assert targets_of(np.array([[0.433, 1.217, 60.0, 90.0]]), 100, config).onset.sum() == 1.0


def test_a_window_reaches_beyond_its_clip_in_silence(tmp_path):
    audio = np.linspace(0.1, 0.5, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", audio, 16_000, subtype="PCM_16")
    np.save(tmp_path / "a.npy", np.array([[0.25, 0.5, 60, 80]], np.float32))
    (clip,) = list_clips(tmp_path)
    window = read_window(clip, -1600, 3200)

    assert not window[:1600].any()
    assert np.allclose(window[1600:], audio[:1600], atol=1e-4)
    assert not read_window(clip, 20_000, 100).any()
    assert notes_within(clip, -0.1, 0.5)[0, 0] == pytest.approx(0.35)
    assert len(notes_within(clip, 0.8, 0.2)) == 0


def test_another_room_moves_no_onset_and_keeps_the_level_in_bounds():
    click = np.zeros(16_000, np.float32)
    click[8_000:8_400] = np.sin(np.arange(400) * 0.3)
    for seed in range(20):
        heard = recorded(click, np.random.default_rng(seed))
        assert heard.shape == click.shape and np.isfinite(heard).all()
        assert np.abs(heard[8_000:8_400]).max() > 2 * np.abs(heard[:7_900]).max()


def test_retuning_moves_notes_with_the_sound():
    audio = np.zeros(16_000, np.float32)
    audio[8_000] = 1.0
    notes = np.array([[0.5, 0.6, 60.0, 80.0]])
    moved = retuned(audio, notes, np.random.default_rng(0), 2.0)

    assert abs(notes[0, 0] - 0.5) > 0.01
    assert abs(int(moved.argmax()) / 16_000 - notes[0, 0]) < 1e-3


def test_scores_count_pairs_within_the_tolerance_and_of_one_pitch():
    heard = Notes.sorted(
        np.array([0.0, 1.04, 2.0, 3.0]), np.array([0.5, 1.5, 2.9, 3.1]), np.array([60, 60, 61, 62]), np.array([64] * 4)
    )
    reference = np.array([[0.0, 0.5, 60, 64], [1.0, 1.5, 60, 74], [2.0, 2.2, 61, 64], [3.06, 3.1, 62, 64]])
    score = score_notes(heard, reference)

    assert score.f1 == pytest.approx(3 / 4)
    assert score.offset_f1 == pytest.approx(2 / 4)
    assert score.velocity_error == pytest.approx(10 / 3)
    assert sorted(score.onset_errors_s.tolist()) == pytest.approx([0.0, 0.0, 0.04])


def test_a_soundfont_of_samples_names_every_key_once(tmp_path):
    for name, hz in (("A3v10", 220.0), ("D#4v10", 311.1)):
        tone = np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000) * np.exp(-np.arange(48_000) / 9_000)
        audio = np.concatenate([np.zeros(960), tone])
        soundfile.write(tmp_path / f"{name}.ogg", np.stack([audio, audio], 1), 48_000)
    samples = read_samples(tmp_path)
    made = soundfont(samples, "Test")

    assert sorted(samples) == [57, 63]
    assert abs(len(samples[57][0]) - 48_000) < 200
    assert made[:4] == b"RIFF" and struct.unpack("<I", made[4:8])[0] == len(made) - 8
    at = made.index(b"igen") + 8
    ranges = [struct.unpack("<HBB", made[at + 16 * i : at + 16 * i + 4])[1:] for i in range(2)]
    assert ranges == [(0, 60), (61, 127)]


def test_clips_are_listed_only_once_they_have_labels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)

    assert list_clips(tmp_path) == []
    assert isinstance(Clip(tmp_path / "a.wav", 1600, np.zeros((0, 4), np.float32)), Clip)


def test_labels_of_released_keys_get_the_pedal_of_their_own_file():
    onsets = np.arange(0.0, 5.0, 0.5)
    notes = np.stack([onsets, onsets + 0.1, 60 + np.arange(10.0) % 3, np.full(10, 80.0)], 1)
    labels = notes + np.array([0.25, 0.25, 0, 0])
    extended = with_pedal(labels, Performance(notes, np.array([[0.55, 127.0], [1.3, 0.0]])))

    assert extended is not None
    assert np.allclose(extended[:, 0], labels[:, 0])
    assert extended[1, 1] == pytest.approx(1.3 + 0.25)
    assert extended[2, 1] == pytest.approx(1.3 + 0.25)
    assert np.allclose(extended[3:, 1], labels[3:, 1])
    assert with_pedal(labels + np.array([0, 0, 20, 0]), Performance(notes, np.zeros((0, 2)))) is None
    jumbled = labels.copy()
    jumbled[:, 0] += np.linspace(0, 9, 10)
    assert with_pedal(jumbled, Performance(notes, np.zeros((0, 2)))) is None
