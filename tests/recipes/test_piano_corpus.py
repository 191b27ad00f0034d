"""What the piano corpus is made of: splits, excerpts, ends under the pedal, targets, scores, a SoundFont of samples."""

import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import symusic
import torch
from stretto_shared.training import asap
from stretto_transcriber.models.notes import Notes
from stretto_transcriber.models.onsets_frames import OnsetsFramesConfig

sys.path.append(str(Path(__file__).parents[2] / "services/transcriber/recipes"))
import piano_performances
import render_piano
from note_scores import frame_f1, score_notes
from pack_piano import packed, write
from piano_clips import ClipMemory, list_clips, read_beginning, targets_of
from piano_performances import (
    Performance,
    excerpt,
    list_pieces,
    perturbed,
    read_performance,
    reproduced,
    sounding_ends,
    with_pedal,
)
from piano_recording import recorded
from render_piano import drawn_excerpt, of_held_out_piano, render_all, render_piece
from sampled_piano import Stroke, read_layers, soundfont

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


def test_the_sampled_pianos_of_maps_are_split_by_piano_and_what_the_test_plays_is_left_out(tmp_path):
    source, symbolic, rows = tmp_path / "maps", tmp_path / "symbolic", [(0.5, 1.0, 60, 80), (1.0, 1.5, 64, 90)]
    source.mkdir()
    (symbolic / "pianomidi").mkdir(parents=True)
    for title in ("chpn-p7", "chpn_op10_e01"):
        write_midi(symbolic / f"pianomidi/{title}.mid", rows)
        for piano in ("AkPnBcht", render_piano.HELD_OUT_PIANO):
            np.savetxt(source / f"MAPS_MUS-{title}_{piano}.tsv", rows)
            soundfile.write(source / f"MAPS_MUS-{title}_{piano}.flac", np.zeros(32_000), 16_000)
    hours = render_piano.convert_maps(source, symbolic, tmp_path / "out")

    assert hours == pytest.approx(4 / 3600)
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.npy"))
    assert found == ["train/MAPS_MUS-chpn-p7_AkPnBcht.npy", f"valid/MAPS_MUS-chpn-p7_{render_piano.HELD_OUT_PIANO}.npy"]


class Silent:
    """A synthesizer that keeps what it is to play."""

    def render(self, performance, length_s, cents):
        self.played = performance
        return np.full(round(length_s * 16_000), 0.5, np.float32)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_piece_is_rendered_whole_or_a_minute_or_two_of_it(tmp_path, is_whole):
    times = np.arange(0.0, 600.0, 0.5)
    write_midi(tmp_path / "a.mid", [(time, time + 0.4, 60 + number % 12, 80) for number, time in enumerate(times)])
    synth, piece = Silent(), piano_performances.Piece("a", tmp_path / "a.mid", "train")
    seconds = render_piece(synth, piece, np.random.default_rng(0), tmp_path, "clip", is_whole=is_whole, spread_s=0.0)

    count = len(synth.played.notes)
    assert count == len(np.load(tmp_path / "clip.npy")) and seconds == soundfile.info(tmp_path / "clip.wav").duration
    assert count == len(times) if is_whole else 120 <= count <= 240


def test_a_piano_with_solenoids_strikes_chords_less_exactly_and_keeps_one_stroke_of_a_key_at_a_time():
    times = np.repeat(np.arange(0.0, 200.0, 0.5), 2)
    pitches = np.tile([60.0, 64.0], len(times) // 2)
    whole = Performance(
        np.column_stack([times, times + 0.5, pitches, np.full_like(times, 80)]), np.array([[1.0, 127.0]])
    )
    played = reproduced(whole, np.random.default_rng(2), 0.007)

    assert len(played.notes) == len(whole.notes) and played.notes[0, 0] == 0.0, "the first stroke was early"
    assert 1.0 < played.pedal[0, 0] < 1.03 and played.pedal[0, 1] == 127.0, "the pedal is put off with the notes"
    lower, upper = (played.notes[played.notes[:, 2] == pitch] for pitch in (60, 64))
    assert np.abs(lower[:, 0] - upper[:, 0]).mean() == pytest.approx(1.13 * 0.007, rel=0.1)
    assert (lower[1:, 0] >= lower[:-1, 1]).all() and (lower[:, 1] > lower[:, 0]).all()
    assert (np.diff(played.notes[:, 0]) >= 0.0).all()


def test_what_the_held_out_piano_plays_is_for_validation_but_not_what_the_recordings_play(tmp_path):
    for title in ("chpn-p7", "chpn_op10_e01"):
        (tmp_path / f"MAPS_MUS-{title}_{render_piano.HELD_OUT_PIANO}.tsv").touch()
    (tmp_path / "MAPS_MUS-bach_846_AkPnBcht.tsv").touch()
    names = ("pianomidi_chpn-p7", "pianomidi_chpn_op10_e01", "pianomidi_bach_846", "asap_chpn-p7")
    found = of_held_out_piano([piano_performances.Piece(name, tmp_path, "train") for name in names], tmp_path)
    assert [(piece.name, piece.split) for piece in found] == [("pianomidi_chpn-p7", "valid")]


def test_rendering_ends_when_there_is_nothing_more_to_validate_on(tmp_path, monkeypatch):
    write_midi(tmp_path / "a.mid", [(time, time + 0.4, 60, 80) for time in np.arange(0.0, 30.0, 0.5)])
    monkeypatch.setattr(render_piano, "PianoSynthesizer", lambda soundfont, program: Silent())
    piece = piano_performances.Piece("a", tmp_path / "a.mid", "valid")
    render_all([piece], [render_piano.Voice(Path("font.sf2"), 0, 1.0)], tmp_path / "out", 9.0, 0, is_whole=True)
    assert [path.name for path in (tmp_path / "out/valid").glob("*.npy")] == ["00001_font0_a.npy"]


def test_some_excerpts_begin_with_the_piece():
    times = np.arange(0.0, 600.0, 0.5)
    whole = Performance(np.column_stack([times, times + 0.4, np.full_like(times, 60), times + 1]), np.zeros((0, 2)))
    random = np.random.default_rng(1)
    firsts = [drawn_excerpt(whole, random).notes[0, 3] for _ in range(100)]
    assert 10 <= sum(first == 1 for first in firsts) <= 30 and max(firsts) > 300


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


def windows_of(*notes: list[tuple[float, ...]]) -> torch.Tensor:
    """Notes of windows as one table [B, M, 5], filled up with notes that never sound."""
    most = max(len(rows) for rows in notes)
    table = np.full((len(notes), most, 5), -1e6, np.float32)
    for row, rows in zip(table, notes, strict=True):
        row[: len(rows)] = np.array(rows).reshape(-1, 5)
    return torch.from_numpy(table)


def test_targets_peak_at_the_onset_between_frames_and_hold_while_it_sounds():
    other = [(0.2, 0.6, 60.0, 64.0, 0.3), (0.6, 1.0, 60.0, 64.0, 0.8), (0.3, 9.0, 20.0, 64.0, 9.0)]
    targets = targets_of(windows_of([(0.433, 1.217, 60.0, 127.0, 0.9)], other), 100, CONFIG)
    column = targets.onset[0, :, 39].numpy()
    times = (np.arange(100) + 0.5) * 0.02

    assert np.allclose(column, np.maximum(0, 1 - np.abs(times - 0.433) / 0.05), atol=1e-5)
    assert np.array_equal(targets.frame[0, :, 39].numpy() > 0, (times >= 0.433) & (times < 1.217))
    assert np.array_equal(targets.key[0, :, 39].numpy() > 0, (times >= 0.433) & (times < 0.9))
    assert targets.offset[0, :, 39].argmax() == 60
    assert (targets.velocity[0][targets.is_struck[0]] == 1.0).all()
    assert targets.is_struck[0].sum() >= 3
    assert targets.onset[0].sum() == pytest.approx(column.sum())
    held = ((times >= 0.2) & (times < 0.3)) | ((times >= 0.6) & (times < 0.8))
    assert np.array_equal(targets.key[1, :, 39].numpy() > 0, held)
    assert np.array_equal(targets.frame[1, :, 39].numpy() > 0, (times >= 0.2) & (times < 1.0))
    assert targets.frame[1].sum() == 40  # what is not on the keyboard is nowhere


def test_what_lies_outside_a_window_is_not_in_its_targets():
    targets = targets_of(windows_of([(-0.5, 5.0, 60.0, 64.0, 0.4), (7.0, 8.0, 62.0, 64.0, 8.0)]), 100, CONFIG)

    assert targets.onset.sum() == 0 and targets.offset.sum() == 0
    assert targets.frame[0].sum(0).nonzero().flatten().tolist() == [39]
    assert targets.frame.sum() == 100 and targets.key.sum() == 20


def test_hard_targets_are_one_frame():
    config = OnsetsFramesConfig(regression_s=0.0)

    assert targets_of(windows_of([(0.433, 1.217, 60.0, 90.0, 1.0)]), 100, config).onset.sum() == 1.0


def write_clip(folder: Path, name: str, audio: np.ndarray, notes: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{name}.wav", audio, 16_000, subtype="PCM_16")
    np.save(folder / f"{name}.npy", notes.astype(np.float32))


def remembered(folder: Path) -> ClipMemory:
    return ClipMemory(list_clips(folder), torch.device("cpu"))


def test_a_window_reaches_beyond_its_clip_in_silence_and_not_into_the_next(tmp_path):
    audio = np.linspace(0.1, 0.5, 16_000).astype(np.float32)
    write_clip(tmp_path, "a", audio, np.array([[0.25, 0.5, 60, 80, 0.3]]))
    write_clip(tmp_path, "b", np.full(8_000, 0.25), np.zeros((0, 5)))
    memory, ones = remembered(tmp_path), torch.ones(3)
    chosen, first = torch.tensor([0, 0, 1]), torch.tensor([-1600.0, 15_000.0, 7_900.0])
    windows = memory.windows(chosen, first.double(), ones, 3200).numpy()
    notes = memory.notes_within(chosen, first, ones)

    assert not windows[0, :1600].any()
    assert np.allclose(windows[0, 1600:], audio[:1600], atol=1e-4)
    assert np.allclose(windows[1, :1000], audio[15_000:], atol=1e-4) and not windows[1, 1000:].any()
    assert np.allclose(windows[2, :100], 0.25, atol=1e-4) and not windows[2, 100:].any()
    assert notes[0, 0, [0, 1, 4]].tolist() == pytest.approx([0.35, 0.6, 0.4])
    assert not targets_of(notes[2:], 10, CONFIG).frame.any()


def test_labels_without_releases_are_refused(tmp_path):
    write_clip(tmp_path, "a", np.zeros(1600), np.zeros((3, 4)))

    with pytest.raises(ValueError, match="Render the corpus again"):
        list_clips(tmp_path)


def test_another_room_moves_no_onset_and_keeps_the_level_in_bounds():
    clicks = torch.zeros(40, 16_000)
    clicks[:, 8_000:8_400] = torch.sin(torch.arange(400) * 0.3)
    heard = recorded(clicks, torch.Generator().manual_seed(0)).abs()

    assert heard.shape == clicks.shape and torch.isfinite(heard).all()
    assert (heard[:, 8_000:8_400].amax(1) > 2 * heard[:, :7_900].amax(1)).all()
    assert heard.square().mean(1).sqrt().max() < 0.5
    assert len({round(float(level), 6) for level in heard.amax(1)}) == 40  # each in its own way
    rings = heard[:, 10_000:12_000].square().mean(1) / heard[:, 8_000:8_400].square().mean(1)
    assert (rings > 1e-4).any() and (rings < 1e-4).any()  # some rooms, and some none


def test_retuning_moves_notes_with_the_sound(tmp_path):
    audio = np.zeros(16_000, np.float32)
    audio[8_000] = 1.0
    write_clip(tmp_path, "a", audio, np.array([[0.5, 0.6, 60.0, 80.0, 0.55]]))
    memory, zero = remembered(tmp_path), torch.zeros(2, dtype=torch.long)
    speed, first = torch.tensor([1.1, 0.9]), torch.tensor([1000.0, 1000.0])
    moved = memory.windows(zero, first.double(), speed, 16_000)
    notes = memory.notes_within(zero, first, speed)

    assert notes[0, 0, 0] == pytest.approx(7_000 / 16_000 / 1.1)
    assert notes[0, 0, 4] - notes[0, 0, 0] == pytest.approx(0.05 / 1.1)
    for window, row in zip(moved, notes, strict=True):
        assert abs(int(window.argmax()) / 16_000 - float(row[0, 0])) < 1e-3


def test_a_packed_corpus_is_read_like_the_one_it_was_made_of(tmp_path):
    random = np.random.default_rng(0)
    tone = 0.3 * np.sin(np.arange(48_000) * 0.2) + 0.01 * random.standard_normal(48_000)
    notes = np.array([[0.5, 0.9, 60.0, 80.0, 0.7], [2.5, 2.9, 62.0, 80.0, 2.7]])
    for split, name in (("train", "00001_a"), ("train", "00002_a"), ("train", "MAPS_b"), ("valid", "c")):
        write_clip(tmp_path / "corpus" / split, name, tone, notes)
    originals = tmp_path / "maps"
    originals.mkdir()
    soundfile.write(originals / "MAPS_b.flac", tone, 16_000)
    parts = [tmp_path / "1.tar", tmp_path / "2.tar"]
    first = 20_480 + 4 * 512 + sum(len(data) for data in (b"x" * 10_000, (originals / "MAPS_b.flac").read_bytes()))
    count = write(parts, [first + 10_000, 10**6], packed(tmp_path / "corpus", originals, 0.2, 2.0))
    for part in parts:
        assert part.stat().st_size <= 10**6
        with tarfile.open(part) as archive:
            archive.extractall(tmp_path / "again", filter="data")

    assert count == 4
    again = {clip.path.name: clip for split in ("train", "valid") for clip in list_clips(tmp_path / "again" / split)}
    assert sorted(again) == ["00001_a.ogg", "00002_a.ogg", "MAPS_b.flac", "c.ogg"]
    assert again["c.ogg"].num_samples == 32_000 and len(again["c.ogg"].notes) == 1
    assert again["00002_a.ogg"].num_samples == 48_000 and len(again["00002_a.ogg"].notes) == 2
    heard = read_beginning(again["00001_a.ogg"], 50_000)
    assert np.corrcoef(heard[:48_000], tone)[0, 1] > 0.98 and not heard[48_000:].any()


def test_an_archive_takes_what_there_is_room_for(tmp_path):
    groups = [[(f"{number}.ogg", b"x" * 40_000), (f"{number}.npy", b"y")] for number in range(5)]
    parts = [tmp_path / "1.tar", tmp_path / "2.tar"]

    assert write(parts, [110_000, 70_000], iter(groups)) == 3
    assert [path.stat().st_size <= size for path, size in zip(parts, (110_000, 70_000), strict=True)] == [True, True]


def test_scores_count_pairs_within_the_tolerance_and_of_one_pitch():
    heard = Notes.sorted(
        np.array([0.0, 1.04, 2.0, 3.0]), np.array([0.5, 1.5, 2.9, 3.1]), np.array([60, 60, 61, 62]), np.array([64] * 4)
    )
    reference = np.array([[0.0, 0.5, 60, 64], [1.0, 1.5, 60, 74], [2.0, 2.2, 61, 64], [3.06, 3.1, 62, 64]])
    score = score_notes(heard, reference)

    assert score.f1 == pytest.approx(3 / 4)
    assert score.offset_f1 == pytest.approx(2 / 4)
    assert score.velocity_error == pytest.approx(10 / 3)
    assert score.frame_f1 == pytest.approx(2 * (50 + 46 + 20 + 4) / (50 + 46 + 90 + 10 + 50 + 50 + 20 + 4))
    assert sorted(score.onset_errors_s.tolist()) == pytest.approx([0.0, 0.0, 0.04])


def test_frames_are_pitches_that_sound_and_not_notes():
    whole = np.array([[0.0, 1.0, 60, 64]])
    halves = np.array([[0.0, 0.5, 60, 64], [0.5, 1.0, 60, 64]])

    assert frame_f1(halves, whole) == 1.0
    assert frame_f1(whole, np.array([[0.0, 0.5, 60, 64]])) == pytest.approx(2 * 50 / 150)
    assert frame_f1(whole, np.array([[0.0, 1.0, 61, 64]])) == 0.0
    assert frame_f1(whole, np.zeros((0, 4))) == 0.0


def test_a_soundfont_of_samples_names_every_key_once(tmp_path):
    for name, hz in (("A3v10", 220.0), ("D#4v10", 311.1)):
        tone = np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000) * np.exp(-np.arange(48_000) / 9_000)
        audio = np.concatenate([np.zeros(960), tone])
        soundfile.write(tmp_path / f"{name}.ogg", np.stack([audio, audio], 1), 48_000)
    layers = read_layers(tmp_path)
    made = soundfont(layers, "Test")

    assert list(layers) == [10] and sorted(layers[10]) == [57, 63]
    assert abs(len(layers[10][57].samples) - 48_000) < 200
    assert made[:4] == b"RIFF" and struct.unpack("<I", made[4:8])[0] == len(made) - 8
    at = made.index(b"igen") + 8
    ranges = [struct.unpack("<HBB", made[at + 20 * i : at + 20 * i + 4])[1:] for i in range(2)]
    assert ranges == [(0, 60), (61, 127)]


def test_strokes_of_several_strengths_share_the_velocities_and_keep_their_loudness():
    layers = {
        strength: {pitch: Stroke(np.full(1000, strength, np.int16), 22_050) for pitch in (60, 72)}
        for strength in (3, 9, 12)
    }
    made = soundfont(layers, "Test")

    at = made.index(b"igen") + 8
    zones = [struct.unpack("<HBBHBBHhHHHH", made[at + 20 * i : at + 20 * i + 20]) for i in range(6)]
    assert [zone[1:3] + zone[4:6] for zone in zones] == [
        (low, high, *velocities) for velocities in ((0, 42), (43, 84), (85, 127)) for low, high in ((0, 66), (67, 127))
    ]
    assert [zone[-1] for zone in zones] == list(range(6))
    at = made.index(b"imod") + 8
    assert struct.unpack("<HHhHH", made[at : at + 10]) == (0x0502, 48, 0, 0, 0)  # velocity does not attenuate
    bags = made[made.index(b"ibag") + 8 :][: 4 * 8]
    assert struct.unpack("<16H", bags) == (0, 0, *(x for i in range(7) for x in (5 * i, 1)))
    assert b"EOI" + bytes(17) + struct.pack("<H", 7) in made
    one = soundfont({9: layers[9]}, "Test")
    assert one[one.index(b"imod") + 8 :][:10] == bytes(10)


def test_a_folder_of_other_samples_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected samples such as"):
        read_layers(tmp_path)
    soundfile.write(tmp_path / "piano.ogg", np.zeros(100), 48_000)
    with pytest.raises(ValueError, match=r"piano\.ogg: expected a name"):
        read_layers(tmp_path)


def test_clips_are_listed_only_once_they_have_labels(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    assert list_clips(tmp_path) == []

    np.save(tmp_path / "a.npy", np.zeros((0, 5), np.float32))
    assert [clip.num_samples for clip in list_clips(tmp_path)] == [1600]


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
