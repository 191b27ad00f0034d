"""A packed piece comes back as it was, and needs no pickle."""

from dataclasses import fields
from pathlib import Path

import numpy as np
from stretto_harmony.scores.labels import Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.packed import read_piece, write_piece
from stretto_harmony.scores.score import Score
from written import score_of


def test_a_piece_comes_back_as_it_was(tmp_path: Path) -> None:
    score = score_of([(0, 1, "C", 4), (1.5, 1 / 3, "Eb", 5)], pickup_quarters=1)
    analysis = Analysis(
        (
            HarmonyLabel(0, 5, Key(0), "I", Key(0), 0, ChordType.MAJOR, 0),
            HarmonyLabel(7, 9, Key(0), "viiø7/vi", Key(3, True), 8, ChordType.HALF_DIMINISHED_SEVENTH, 3, 0.25),
        )
    )
    meta = {"name": "Träumerei", "may_train": False}
    write_piece(tmp_path / "piece.npz", score, analysis, meta)
    read_score, read_analysis, read_meta = read_piece(tmp_path / "piece.npz")
    for field in fields(Score):
        assert np.array_equal(getattr(read_score, field.name), getattr(score, field.name)), field.name
    assert read_analysis == analysis
    assert read_meta == meta


def test_a_piece_may_have_no_labels(tmp_path: Path) -> None:
    write_piece(tmp_path / "piece.npz", score_of([]), Analysis(()), {})
    assert read_piece(tmp_path / "piece.npz")[1] == Analysis(())
