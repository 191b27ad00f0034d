"""Parts to numerals and back: classes, the votes, the search, and the labels of a whole analysis."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_scores import chorale, random_score
from stretto_harmony.models.chordgnn.analyzer import ChordGnnAnalyzer, Heard
from stretto_harmony.models.chordgnn.batch import collate
from stretto_harmony.models.chordgnn.config import ChordGnnConfig
from stretto_harmony.models.chordgnn.decoding import DecodingOptions, NumeralDecoder, NumeralTable, moved_logs
from stretto_harmony.models.chordgnn.graph import build_graph
from stretto_harmony.models.chordgnn.network import ChordGnn
from stretto_harmony.models.chordgnn.parts import (
    NO_DEGREE,
    NO_LABEL,
    RelativeNumeral,
    count_numerals,
    degree_class,
    onset_parts,
    relative_numeral,
    rhythm_class,
)
from stretto_harmony.models.chordgnn.recurrence import MAX_ROWS
from stretto_harmony.scores.labels import NUM_KEYS, Analysis, ChordType, HarmonyLabel, Key
from stretto_harmony.scores.numerals import parse
from stretto_harmony.scores.pitch import NUM_SPELLINGS
from stretto_harmony.scores.score import TICKS_PER_QUARTER, TICKS_PER_WHOLE

FIGURES = ("I", "V65/V", "V", "vi", "viio7/ii", "IV6", "I64", "V7")
QUARTER = TICKS_PER_QUARTER


def labelled(figures: tuple[str, ...], key: Key) -> Analysis:
    labels = []
    for place, figure in enumerate(figures):
        chord = parse(figure, key)
        span = (place * QUARTER, (place + 1) * QUARTER)
        labels.append(HarmonyLabel(*span, key, figure, chord.tonicised, chord.root, chord.quality, chord.inversion))
    return Analysis(tuple(labels))


def sure_logs(analysis: Analysis, times: np.ndarray, numerals: list[RelativeNumeral]) -> dict[str, np.ndarray]:
    """What a network would tell that knows the analysis."""
    places = {numeral: place for place, numeral in enumerate(numerals)}
    heads = ChordGnnConfig(num_numerals=len(numerals) + 1).heads
    logs = {}
    for name, classes in onset_parts(analysis, times, places).items():
        chances = np.full((len(times), heads[name]), 0.1 / heads[name], np.float32)
        chances[np.arange(len(times)), classes] += 0.9
        logs[name] = np.log(chances)
    return logs


@pytest.mark.parametrize("key", [Key(0), Key(-4, True), Key(6), Key(9, True)])
def test_labels_come_back_from_their_parts(key: Key) -> None:
    figures = FIGURES if not key.is_minor else ("i", "V65/iv", "iv", "VI", "viio7", "iio6", "V7", "i64")
    analysis = labelled(figures, key)
    numerals = count_numerals([analysis], 99)
    network = ChordGnn(ChordGnnConfig(num_numerals=len(numerals) + 1, hidden_dim=4, onset_dim=4, recurrent_dim=4))
    network.numerals[:] = torch.tensor([[n.in_minor, n.of, n.of_minor, n.interval, n.quality] for n in numerals])
    times = np.arange(2 * len(figures)) * QUARTER // 2
    for shift in (0, -3):
        logs = sure_logs(analysis.transposed(shift), times, numerals)
        found = ChordGnnAnalyzer(network).labelled(Heard(times, logs, shift), len(figures) * QUARTER)
        assert [label.numeral for label in found] == list(figures)
        for label, expected in zip(found, analysis):
            assert (label.start, label.end, label.key) == (expected.start, expected.end, expected.key)
            assert (label.root, label.quality, label.inversion) == (expected.root, expected.quality, expected.inversion)
            assert label.tonicised == expected.tonicised and 0.5 < label.confidence <= 1


def test_parts_that_contradict_each_other_still_make_one_chord() -> None:
    analysis = labelled(("V7",), Key(0))
    numerals = count_numerals([labelled(FIGURES, Key(0))], 99)
    logs = sure_logs(analysis, np.array([0]), numerals)
    logs["root"] = logs["root"][:, ::-1].copy()  # one head for another root: the rest outvote it
    path = NumeralDecoder(NumeralTable(numerals)).decode(logs)
    assert numerals[int(path.numeral[0])] == relative_numeral(analysis.labels[0])


def test_an_inversion_that_a_triad_does_not_have_is_never_told() -> None:
    analysis = labelled(("I",), Key(0))
    numerals = count_numerals([analysis], 9)
    logs = sure_logs(analysis, np.array([0]), numerals)
    logs["inversion"] = np.log(np.array([[0.01, 0.01, 0.01, 0.97]], np.float32))
    assert NumeralDecoder(NumeralTable(numerals)).decode(logs).inversion[0] < 3


def test_a_change_that_costs_more_than_it_is_worth_is_not_made() -> None:
    analysis = labelled(("I", "V", "I", "I"), Key(0))
    numerals = count_numerals([labelled(FIGURES, Key(0))], 99)
    times = np.arange(4) * QUARTER
    logs = sure_logs(analysis, times, numerals)
    found = {}
    for change in (0.0, 50.0):
        path = NumeralDecoder(NumeralTable(numerals), DecodingOptions(change=change)).decode(logs)
        found[change] = len(set(path.numeral.tolist()))
    assert found == {0.0: 2, 50.0: 1}


def test_the_search_finds_the_best_of_all_paths() -> None:
    random = np.random.default_rng(0)
    numerals = count_numerals([labelled(("I", "V", "vi"), Key(0))], 9)
    heads = ChordGnnConfig(num_numerals=len(numerals) + 1).heads
    logs = {name: np.log(random.dirichlet(np.ones(size), 4)).astype(np.float32) for name, size in heads.items()}
    options = DecodingOptions(num_keys=2, num_chords=2, num_states=3)
    decoder = NumeralDecoder(NumeralTable(numerals), options)
    states, path = decoder.states(logs), decoder.decode(logs)

    def worth(choice: tuple[int, ...]) -> float:
        total = 0.0
        triples = [(states.key[o, s], states.numeral[o, s], states.inversion[o, s]) for o, s in enumerate(choice)]
        for onset, place in enumerate(choice):
            total += float(states.worth[onset, place])
            if not onset:
                continue
            begins = float(logs["rhythm"][onset, 0])
            if triples[onset] == triples[onset - 1]:
                total += options.rhythm * float(np.log1p(-np.exp(begins)))
            else:
                total += options.rhythm * begins - options.change
                total -= options.key_change * (triples[onset][0] != triples[onset - 1][0])
        return total

    choices = [tuple(choice) for choice in np.ndindex(3, 3, 3, 3)]
    best = max(choices, key=worth)
    found = [(int(k), int(n), int(i)) for k, n, i in zip(path.key, path.numeral, path.inversion)]
    assert found == [(states.key[o, s], states.numeral[o, s], states.inversion[o, s]) for o, s in enumerate(best)]


def test_what_is_heard_of_a_moved_score_is_brought_back() -> None:
    analysis, times = labelled(FIGURES, Key(1)), np.arange(len(FIGURES)) * QUARTER
    numerals = count_numerals([analysis], 99)
    plain, moved = (sure_logs(analysis.transposed(fifths), times, numerals) for fifths in (0, 2))
    back = moved_logs(moved, -2)
    assert all(np.array_equal(back[name], plain[name]) for name in plain)
    assert not np.array_equal(moved["key"], plain["key"])


def test_the_mean_is_heard_of_all_moves() -> None:
    torch.manual_seed(0)
    network = ChordGnn(ChordGnnConfig(num_numerals=5, hidden_dim=8, onset_dim=8, recurrent_dim=4, post_dim=4)).eval()
    analyzer, graphs = ChordGnnAnalyzer(network), [build_graph(random_score(seed)) for seed in (1, 2)]
    each = [analyzer.hear_graphs(graphs, [0, 1], DecodingOptions(moves=(move,))) for move in (-1, 1)]
    both = analyzer.hear_graphs(graphs, [0, 1], DecodingOptions(moves=(-1, 1)))
    for place, heard in enumerate(both):
        for name, logs in heard.items():
            mean = (each[0][place][name] + each[1][place][name]) / 2
            np.testing.assert_allclose(logs, mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moves", [(0, -1), (0, -1, 1)])
def test_scores_heard_in_several_moves_have_bytes_of_their_own(moves: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = ChordGnn(ChordGnnConfig(num_numerals=5, hidden_dim=8, onset_dim=8, recurrent_dim=4, post_dim=0)).eval()
    analyzer = ChordGnnAnalyzer(network, DecodingOptions(moves=moves))
    assert analyzer.num_together in (1, MAX_ROWS)
    scores = [random_score(seed, num_notes=20 + 9 * seed) for seed in range(6)]
    for score, heard in zip(scores, analyzer.hear(scores), strict=True):
        (alone,) = analyzer.hear([score])
        assert all(np.array_equal(alone.logs[name], heard.logs[name]) for name in alone.logs)


def test_what_is_heard_is_what_the_network_tells() -> None:
    torch.manual_seed(0)
    network = ChordGnn(ChordGnnConfig(num_numerals=5, hidden_dim=8, onset_dim=8, recurrent_dim=4, post_dim=4)).eval()
    analyzer, graph = ChordGnnAnalyzer(network), build_graph(random_score(3))
    with torch.inference_mode():
        stages = network.stages(collate([graph], [2]))
    for post, told in ((0.0, stages[0]), (1.0, stages[1])):
        (heard,) = analyzer.hear_graphs([graph], [2], DecodingOptions(moves=(0,), post=post))
        for name, logits in told.items():
            np.testing.assert_allclose(heard[name], logits.log_softmax(dim=1), rtol=1e-3, atol=1e-4)


def test_the_states_are_the_best_of_all_keys_numerals_and_inversions() -> None:
    random = np.random.default_rng(1)
    numerals = count_numerals([labelled(FIGURES, Key(0)), labelled(("i", "V7", "viio7/V"), Key(0, True))], 99)
    heads = ChordGnnConfig(num_numerals=len(numerals) + 1).heads
    logs = {name: np.log(random.dirichlet(np.ones(size), 3)).astype(np.float32) for name, size in heads.items()}
    weights = dict(zip(("tonicised", "root", "chord", "numeral", "inversion"), (0.3, 0.7, 1.1, 0.9, 0.6)))
    options = DecodingOptions(num_keys=NUM_KEYS, num_chords=10_000, num_states=5, **weights)
    table = NumeralTable(numerals)
    states = NumeralDecoder(table, options).states(logs)
    tonicised, root, chord, there = table.by_key
    for onset in range(3):
        worths = {}
        for key, numeral in zip(*np.nonzero(there)):
            for inversion in range(int(table.num_inversions[numeral])):
                bass = min(max(int(root[key, numeral] + table.tones[numeral, inversion]), 0), NUM_SPELLINGS - 1)
                classes = {"key": key, "tonicised": tonicised[key, numeral], "root": root[key, numeral]}
                classes |= {"chord": chord[key, numeral], "numeral": numeral, "inversion": inversion, "bass": bass}
                classes |= {name: getattr(table, name)[numeral] for name in ("degree", "of_degree", "quality")}
                worth = sum(getattr(options, name) * logs[name][onset, at] for name, at in classes.items())
                worths[int(key), int(numeral), inversion] = float(worth)
        best = sorted(worths.values(), reverse=True)[:5]
        np.testing.assert_allclose(states.worth[onset], best, rtol=1e-4)
        for place, worth in enumerate(best):
            at = states.key[onset, place], states.numeral[onset, place], states.inversion[onset, place]
            assert worths[tuple(map(int, at))] == pytest.approx(worth, rel=1e-4)


def test_degrees_and_rhythm_have_the_classes_that_they_say() -> None:
    assert degree_class(0) == 8 and degree_class(12) == 20
    assert {degree_class(-9), degree_class(13)} == {NO_DEGREE}
    steps = TICKS_PER_WHOLE // 32 * np.array([0, 1, 2, 3, 4, 8, 16, 32, 640])
    assert rhythm_class(steps).tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 6]


def test_onsets_in_a_gap_have_no_label() -> None:
    analysis = Analysis(labelled(FIGURES, Key(0)).labels[1:])
    parts = onset_parts(analysis, np.array([0, QUARTER]), {})
    assert all(values[0] == NO_LABEL != values[1] for values in parts.values())


def test_the_most_frequent_numerals_are_counted_first() -> None:
    numerals = count_numerals([labelled(("V", "V", "I", "V", "vi", "vi"), Key(0))], 2)
    assert [(n.interval, n.quality) for n in numerals] == [(1, 0), (3, 1)]


def test_an_analysis_covers_the_score_and_is_the_same_again() -> None:
    torch.manual_seed(0)
    network = ChordGnn(ChordGnnConfig(num_numerals=5, hidden_dim=8, onset_dim=8, recurrent_dim=4, post_dim=4))
    network.numerals[:] = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [1, 0, 1, 0, 1], [1, 0, 1, 1, 5]])
    analyzer, score = ChordGnnAnalyzer(network), random_score(1, num_notes=200)
    analysis = analyzer.analyze(score)
    assert analysis.labels[0].start == 0 and analysis.labels[-1].end == score.num_ticks
    assert all(before.end == after.start for before, after in zip(analysis.labels, analysis.labels[1:]))
    assert analyzer.analyze(score) == analysis
    analyzer = ChordGnnAnalyzer(network, DecodingOptions(moves=(0,)))
    analysis, moved = analyzer.analyze(score), analyzer.analyze(score.transposed(3))
    assert [label.numeral for label in moved] == [label.numeral for label in analysis]
    assert all((a.root - b.root - 3) % 12 == (a.key.tonic - b.key.tonic - 3) % 12 == 0 for a, b in zip(moved, analysis))


def test_a_chorale_has_the_parts_of_its_analysis() -> None:
    score, analysis = chorale(0)
    graph = build_graph(score)
    parts = onset_parts(analysis, graph.onset_time, {})
    assert (parts["bass"] - 15 == graph.fifths[graph.bass]).all()
    assert ChordType.MINOR in {label.quality for label in analysis}
