"""Scores: readers, keys, voices, and the splits that keep held-out pieces out of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import symusic
from stretto_shared.training.corpus import readers
from stretto_shared.training.corpus.accompaniment import accompany, voicing
from stretto_shared.training.corpus.debug import debug_library
from stretto_shared.training.corpus.library import ScoreLibrary
from stretto_shared.training.corpus.orchestration import arrange
from stretto_shared.training.corpus.scores import Chord, Key, bass_line, estimate_key, skyline, sorted_notes, window
from stretto_shared.training.corpus.splits import split_of


def scale(tonic: int, steps: tuple[int, ...]) -> np.ndarray:
    degrees = [*steps, 12, 7, 0, 4 if 4 in steps else 3, 0]
    return sorted_notes([(float(index), 1.0, 60.0 + tonic + step, 80.0) for index, step in enumerate(degrees)])


def test_keys_of_scales_are_found_and_follow_transposition() -> None:
    for tonic in range(12):
        assert estimate_key([scale(tonic, (0, 2, 4, 5, 7, 9, 11))]) == Key(tonic, "major")
    assert estimate_key([scale(9, (0, 2, 3, 5, 7, 8, 11))]) == Key(9, "minor")
    assert Key(9, "minor").transposed(4) == Key(1, "minor")


def test_unclear_keys_are_not_named() -> None:
    chromatic = sorted_notes([(float(step), 1.0, 60.0 + step, 80.0) for step in range(12)])
    assert estimate_key([chromatic]) is None


def test_outer_voices_are_single_lines() -> None:
    chords = sorted_notes([(float(beat), 2.0, pitch, 80.0) for beat in range(4) for pitch in (40.0, 60.0, 64.0, 67.0)])
    top, bottom = skyline(chords), bass_line(chords)
    assert top[:, 2].tolist() == [67.0] * 4
    assert bottom[:, 2].tolist() == [40.0] * 4
    assert top[:3, 1].tolist() == [1.0] * 3


def test_windows_start_at_zero_and_hold_only_their_beats() -> None:
    notes = sorted_notes([(float(beat), 1.0, 60.0, 80.0) for beat in range(16)])
    assert window(notes, 4.0, 8.0)[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_chord_labels_parse_to_pitch_classes() -> None:
    assert readers.parse_chord("C:maj") == (0, 4, 7)
    assert readers.parse_chord("Bb:min7/5") == (10, 1, 5, 8)
    assert readers.parse_chord("F#:sus4") == (6, 11, 1)
    assert readers.parse_chord("N") == ()


def test_accompaniments_hold_the_chord_and_its_length() -> None:
    chords = [Chord(0.0, 4.0, (0, 4, 7)), Chord(4.0, 8.0, (7, 11, 2))]
    for style in ("held", "struck", "broken", "offbeat"):
        notes = accompany(chords, style, 60.0, np.random.default_rng(0))
        for chord in chords:
            inside = window(notes, chord.start_beat, chord.end_beat)
            assert set(inside[:, 2].astype(int) % 12) == set(chord.pitch_classes)
    assert voicing((0, 4, 7), 60.0) == [55.0, 60.0, 64.0]


def test_chorales_read_with_their_published_split(tmp_path: Path) -> None:
    steps = [[72, 67, 64, 48]] * 4 + [[74, 67, 65, 47]] * 2 + [[76, 67, 60, 48]] * 2
    (tmp_path / "c.json").write_text(json.dumps({"train": [steps], "test": [steps]}), encoding="utf-8")
    (train_split, piece), (test_split, _) = readers.read_chorales(tmp_path / "c.json")
    assert (train_split, test_split) == ("train", "test")
    assert piece.parts["soprano"][:, :3].tolist() == [[0.0, 1.0, 72.0], [1.0, 0.5, 74.0], [1.5, 0.5, 76.0]]
    assert piece.parts["alto"][:, 1].tolist() == [1.0, 1.0]


def test_trios_read_in_beats(tmp_path: Path) -> None:
    score = symusic.Score(220)
    for program, is_drum, pitch in ((0, False, 72), (33, False, 40), (0, True, 36)):
        track = symusic.Track(program=program, is_drum=is_drum)
        for index in range(20):
            track.notes.append(symusic.Note(index * 220, 110, pitch, 80))
        score.tracks.append(track)
    score.dump_midi(str(tmp_path / "sample_1.mid"))
    piece = readers.read_schmubert(tmp_path / "sample_1.mid", "sample_1")
    assert piece is not None
    assert piece.parts["bass"][:3].tolist() == [[0.0, 0.5, 40.0, 80.0], [1.0, 0.5, 40.0, 80.0], [2.0, 0.5, 40.0, 80.0]]
    assert piece.bar_starts[:2].tolist() == [0.0, 4.0]


def test_splits_are_stable_and_mostly_train() -> None:
    splits = [split_of("pop909", f"{song:03d}") for song in range(1, 910)]
    assert splits == [split_of("pop909", f"{song:03d}") for song in range(1, 910)]
    assert 0.9 < splits.count("train") / len(splits) < 0.97
    assert splits.count("valid") > 10 and splits.count("test") > 10


def test_a_split_without_pieces_of_a_source_is_refused() -> None:
    with pytest.raises(ValueError, match="groove"):
        ScoreLibrary({"groove": []})


def test_a_piece_without_bar_starts_is_never_played() -> None:
    pieces = debug_library("train").pieces
    unused = [replace(piece, bar_starts=np.zeros(0)) for piece in pieces["pop909"][1:]]
    library = ScoreLibrary({"pop909": [pieces["pop909"][0], *unused], "groove": pieces["groove"]})
    rng = np.random.default_rng(0)
    played = {
        arrangement.piece
        for arrangement in (arrange(library, rng) for _ in range(20))
        if arrangement.source == "pop909"
    }
    assert played == {pieces["pop909"][0].name}
