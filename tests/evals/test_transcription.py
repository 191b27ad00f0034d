"""What the transcription eval makes of notes: each kind of end against its own labels, and of peers that heard less."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "evals/quality"))
import transcription
from transcription import Piece, partial_rows, peer_notes, piece_rows, rows_of, scores_of

LABELS = np.array([[0.5, 0.8, 60, 80], [1.0, 1.2, 64, 70], [3.0, 3.3, 67, 60]])
WITH_PEDAL = LABELS + np.array([0.0, 1.5, 0, 0])
PIECE = Piece(Path("MAPS_MUS-a_ENSTDkCl.opus"), LABELS, WITH_PEDAL, True)
ROW = dict.fromkeys((*transcription.COLUMNS, transcription.LATE), 0.5)


def test_releases_are_scored_against_the_labels_of_keys_and_sounds_against_those_with_the_pedal():
    keyed = np.column_stack([WITH_PEDAL, LABELS[:, 1]])
    scores = scores_of(keyed, PIECE)
    assert all(scores[column] == pytest.approx(1.0) for column in transcription.COLUMNS)
    assert scores[transcription.LATE] == 0.0

    swapped = scores_of(keyed[:, [0, 4, 2, 3, 1]], PIECE)
    assert swapped["note"] == 1.0
    assert swapped["offset"] == swapped["offset_pedal"] == 0.0
    assert swapped["frame"] < 0.5 and swapped["frame_pedal"] < 0.5


def test_a_transcriber_with_one_kind_of_end_is_scored_by_it_against_both():
    scores = scores_of(LABELS, PIECE)
    assert (scores["offset"], scores["frame"], scores["offset_pedal"]) == (1.0, 1.0, 0.0)


def test_labels_that_are_late_as_a_whole_cost_frames_and_shifted_ones_do_not():
    early = np.column_stack([WITH_PEDAL, LABELS[:, 1]]) - np.array([0.03, 0.03, 0, 0, 0.03])
    scores = scores_of(early, PIECE)
    assert scores[transcription.LATE] == pytest.approx(30.0)
    assert scores["note"] == 1.0 and scores["frame"] < 0.92
    assert scores["frame_shifted"] == pytest.approx(1.0, abs=0.02)
    assert scores["frame_pedal_shifted"] == pytest.approx(1.0, abs=0.02)


def test_a_peer_that_heard_some_pieces_is_compared_on_those_alone(tmp_path):
    better = dict.fromkeys(ROW, 0.9)
    found = {"ours": [ROW, better], "whole": [ROW, ROW], "part": [None, ROW]}
    partial = partial_rows(found)

    assert [row[:3] for row in partial[1:]] == [(1, "ours", 0.9), (1, "part", 0.5)]
    assert [row[0] for row in rows_of(found, dict.fromkeys(found, 1.0), 10.0)[1:]] == ["ours", "whole"]
    assert piece_rows(found, [PIECE, PIECE])[1][-2:] == ("", "")
    claimed = "note F1 is above that of madmom, on the 1 pieces that it was run on"
    held = [transcription.claims({"ours": [own, better], "madmom": [ROW, None]})[claimed] for own in (ROW, better)]
    assert held == [False, True]
    assert transcription.claims({"ours": [better, ROW], "madmom": [ROW, ROW]})["note F1 is above that of madmom"]
    assert not any("basic-pitch" in claim for claim in transcription.claims({"ours": [ROW, ROW], "madmom": [ROW, ROW]}))

    (tmp_path / "part").mkdir()
    np.save(tmp_path / "part" / "MAPS_MUS-a_ENSTDkCl.npy", LABELS)
    (tmp_path / "part" / "MAPS_MUS-a_ENSTDkCl.json").write_text('{"cpu_s": 2.5}')
    other = Piece(Path("other.opus"), LABELS, LABELS, False)
    heard, cost = peer_notes("part", "", tmp_path, [PIECE, other])
    assert heard[1] is None and np.array_equal(heard[0], LABELS) and cost == 2.5
