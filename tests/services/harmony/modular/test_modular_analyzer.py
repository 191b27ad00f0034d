"""The analyzer: a score to labels that fill it, applied chords, and each module's question by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stretto_harmony.models.modular.analyzer import ModularAnalyzer, columns_of, labels_of, local_keys
from stretto_harmony.models.modular.config import SearchConfig
from stretto_harmony.models.modular.search import Reading
from stretto_harmony.models.modular.weights import ARCHITECTURE, load_modular
from stretto_harmony.scores.labels import ChordType, HarmonyLabel, Key, chord_index
from stretto_harmony.scores.numerals import parse
from stretto_harmony.scores.score import TICKS_PER_QUARTER
from stretto_shared import weights
from tiny_modules import TINY, tiny_modules, tiny_score


@pytest.fixture(scope="module")
def analyzer() -> ModularAnalyzer:
    return ModularAnalyzer(tiny_modules(3), SearchConfig(beam_size=8))


def label(start: int, end: int, root: int, key: Key, quality: ChordType = ChordType.MAJOR) -> HarmonyLabel:
    quarter = TICKS_PER_QUARTER
    return HarmonyLabel(start * quarter, end * quarter, key, "I", key, root, quality, 0)


def test_labels_fill_the_score_and_their_numerals_are_their_chords(analyzer: ModularAnalyzer) -> None:
    score = tiny_score(16)
    labels = analyzer.analyze(score).labels
    assert labels[0].start == 0 and labels[-1].end == score.num_ticks
    assert all(a.end == b.start for a, b in zip(labels, labels[1:]))
    for each in labels:
        chord = parse(each.numeral, each.key)
        assert (chord.root, chord.inversion) == (each.root, each.inversion)
        assert 0.0 <= each.confidence <= 1.0


def test_the_same_score_has_the_same_labels(analyzer: ModularAnalyzer) -> None:
    assert analyzer.analyze(tiny_score(12)) == analyzer.analyze(tiny_score(12))


def test_a_score_without_notes_has_no_labels(analyzer: ModularAnalyzer) -> None:
    score = tiny_score(4)
    empty = replace(
        score, **{name: np.zeros(0, np.int64) for name in ("onset", "duration", "midi", "fifths", "staff", "voice")}
    )
    assert len(analyzer.analyze(empty)) == 0
    assert analyzer.chord_changes(empty).shape == (0,)


def test_a_score_of_one_chord_has_one_label(analyzer: ModularAnalyzer) -> None:
    labels = analyzer.analyze(tiny_score(1)).labels
    assert [(each.start, each.end) for each in labels] == [(0, 4 * TICKS_PER_QUARTER)]


@pytest.mark.parametrize(
    ("keys", "local"),
    [
        ([0, 1, 0, 0], [0, 0, 0, 0]),
        ([0, 1, 1, 0], [0, 0, 0, 0]),
        ([0, 1, 1, 1, 0], [0, 1, 1, 1, 0]),
        ([0, 1, 2, 0], [0, 0, 0, 0]),
        ([0, 1, 1], [0, 1, 1]),
        ([0, 1, 0, 2, 2, 2, 3, 2], [0, 0, 0, 2, 2, 2, 2, 2]),
    ],
)
def test_a_short_way_out_and_back_is_a_tonicisation(keys: list[int], local: list[int]) -> None:
    assert local_keys(keys) == local


def test_an_applied_chord_is_a_change_of_key_that_its_label_tells_as_a_tonicisation() -> None:
    major, dominant = ChordType.MAJOR, ChordType.DOMINANT_SEVENTH
    chords = [chord_index(0, major, 0), chord_index(2, dominant, 1), chord_index(1, major, 0), chord_index(0, major, 0)]
    keys = [Key(0), Key(1), Key(0), Key(0)]
    places = np.arange(4)
    reading = Reading(places, places + 1, np.array(chords), np.array([key.index for key in keys]), 0.0)
    labels = labels_of(reading, np.array([0.9, 0.8, 0.7, 0.6]), np.arange(5) * TICKS_PER_QUARTER)
    assert [each.numeral for each in labels] == ["I", "V65/V", "V", "I"]
    assert [each.key for each in labels] == [Key(0)] * 4
    assert [each.tonicised for each in labels] == keys
    assert [each.confidence for each in labels] == [0.9, 0.8, 0.7, 0.6]
    assert [each.start for each in labels] == (np.arange(4) * TICKS_PER_QUARTER).tolist()


def test_where_chords_begin_is_one_probability_an_onset(analyzer: ModularAnalyzer) -> None:
    score = tiny_score(8)
    changes = analyzer.chord_changes(score)
    assert changes.shape == (score.num_notes,)
    assert (changes.reshape(8, 3) == changes.reshape(8, 3)[:, :1]).all()
    assert ((changes >= 0) & (changes <= 1)).all() and len(set(changes)) > 1


def test_spans_are_classified_by_the_notes_in_them(analyzer: ModularAnalyzer) -> None:
    score = tiny_score(8)
    quarter = TICKS_PER_QUARTER
    chords = analyzer.classify_chords(score, [(0, quarter), (0, 2 * quarter), (4 * quarter, 8 * quarter), (0, quarter)])
    np.testing.assert_allclose(chords.sum(1), 1.0, rtol=1e-5)
    assert (chords[0] == chords[3]).all()
    assert not np.allclose(chords[0], chords[1]) and not np.allclose(chords[0], chords[2])
    assert analyzer.classify_chords(score, []).shape == (0, 1540)


def test_the_next_chord_hangs_on_all_before_and_on_the_key(analyzer: ModularAnalyzer) -> None:
    score, c = tiny_score(8), Key(0)
    first = analyzer.next_chords(score, [label(0, 1, 0, c), label(1, 2, 1, c)])
    assert first.shape == (1540,) and first.sum() == pytest.approx(1.0)
    assert not np.allclose(first, analyzer.next_chords(score, [label(0, 1, 3, c), label(1, 2, 1, c)]))
    moved = analyzer.next_chords(score, [label(0, 1, 2, Key(2)), label(1, 2, 3, Key(2))])
    np.testing.assert_allclose(moved.reshape(35, 44)[4:30], first.reshape(35, 44)[2:28], rtol=0.2, atol=1e-3)
    with pytest.raises(ValueError, match="labels"):
        analyzer.next_chords(score, [])


def test_a_change_of_key_is_asked_in_the_key_before(analyzer: ModularAnalyzer) -> None:
    score, c, g = tiny_score(8), Key(0), Key(1)
    stays = analyzer.key_changes(score, [label(0, 1, 0, c), label(1, 2, 2, c)])
    changes = analyzer.key_changes(score, [label(0, 1, 0, c), label(1, 2, 2, g)])
    assert stays[0] == 0.0
    assert stays[1] == changes[1]  # what the answer is does not help to ask
    later = analyzer.key_changes(score, [label(0, 1, 0, c), label(1, 2, 2, g), label(2, 3, 1, g)])
    assert later[:2].tolist() == changes.tolist()


def test_the_next_key_is_another_one(analyzer: ModularAnalyzer) -> None:
    score, c = tiny_score(8), Key(0)
    keys = analyzer.next_keys(score, [label(0, 1, 0, c), label(1, 2, 2, c)])
    assert keys.shape == (70,) and keys.sum() == pytest.approx(1.0)
    assert keys[c.index] == 0.0
    with pytest.raises(ValueError, match="labels"):
        analyzer.next_keys(score, [label(0, 1, 0, c)])


def test_the_first_chord_hangs_on_the_mode_and_moves_with_the_tonic(analyzer: ModularAnalyzer) -> None:
    major, minor = analyzer.initial_chords(Key(0)), analyzer.initial_chords(Key(0, True))
    assert not np.allclose(major, minor)
    moved = analyzer.initial_chords(Key(3)).reshape(35, 44)
    assert moved.argmax() == major.reshape(35, 44).argmax() + 3 * 44


def test_a_chord_out_of_reach_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"labels\[1\].root: .* C## in F"):
        columns_of(tiny_score(4), [label(0, 1, 0, Key(-1)), label(1, 2, 14, Key(-1))])


def test_an_exported_analyzer_reads_as_the_one_that_was_written(analyzer: ModularAnalyzer, tmp_path) -> None:
    weights.write(
        tmp_path / "modular",
        analyzer.modules.state_dict(),
        name="modular",
        architecture=ARCHITECTURE,
        config={"modules": vars(TINY), "search": vars(analyzer.config)},
        licence="MIT",
        score="",
        training={},
    )
    assert load_modular(tmp_path / "modular").analyze(tiny_score(12)) == analyzer.analyze(tiny_score(12))
