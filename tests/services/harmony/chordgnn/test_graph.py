"""The graph of a score: its edges by their definitions, note against note."""

from __future__ import annotations

import numpy as np
import pytest
from random_scores import made_score, random_score
from stretto_harmony.models.chordgnn.graph import RELATIONS, build_graph
from stretto_harmony.scores.score import TICKS_PER_QUARTER, Score


def edges_by_definition(score: Score) -> dict[str, set[tuple[int, int]]]:
    begin, end = score.onset.tolist(), score.offset.tolist()
    notes = range(score.num_notes)
    rests = {}
    for i in notes:
        later = [t for t in begin if t >= end[i]]
        rests[i] = min(later) if later and end[i] not in begin else None
    return {
        "onset": {(i, j) for i in notes for j in notes if i != j and begin[i] == begin[j]},
        "consecutive": {(i, j) for i in notes for j in notes if begin[j] == end[i]},
        "during": {(i, j) for i in notes for j in notes if begin[i] < begin[j] < end[i]},
        "rest": {(i, j) for i in notes for j in notes if begin[j] == rests[i]},
    }


@pytest.mark.parametrize("seed", range(6))
def test_edges_are_those_of_the_definition_each_once(seed: int) -> None:
    score = random_score(seed, num_notes=25 + 10 * seed)
    graph, expected = build_graph(score), edges_by_definition(score)
    for name in RELATIONS:
        found = list(map(tuple, graph.edges[name].T.tolist()))
        assert len(found) == len(set(found))
        assert set(found) == expected[name], name
        assert expected[name], f"no {name} edge in the score: the test says nothing"
        assert (np.diff(graph.edges[name][0]) >= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_sounding_pairs_and_the_bass_are_those_of_the_definition(seed: int) -> None:
    score = random_score(seed)
    graph = build_graph(score)
    times = sorted(set(score.onset.tolist()))
    assert graph.onset_time.tolist() == times
    assert [times[onset] for onset in graph.onset] == score.onset.tolist()
    expected = {
        (i, k)
        for k, time in enumerate(times)
        for i in range(score.num_notes)
        if score.onset[i] <= time < score.offset[i]
    }
    assert set(map(tuple, graph.sounding.T.tolist())) == expected
    for k, note in enumerate(graph.bass.tolist()):
        assert score.midi[note] == min(score.midi[i] for i, at in expected if at == k)


@pytest.mark.parametrize("seed", range(3))
def test_the_bass_of_a_span_is_the_lowest_of_the_basses_in_its_beat_or_measure(seed: int) -> None:
    score = random_score(seed, num_notes=60)
    graph = build_graph(score)
    measure = score.measure_of(graph.onset_time)
    beat = score.beat_position(graph.onset_time) // score.beat_length(measure)
    lowest = score.midi[graph.bass]
    for k in range(graph.num_onsets):
        in_measure = measure == measure[k]
        expected = [lowest[in_measure & (beat == beat[k])].min(), lowest[in_measure].min()]
        assert score.midi[graph.span_bass[:, k]].tolist() == expected
    differ = (score.midi[graph.span_bass] != lowest).sum(axis=1)
    assert 0 < differ[0] < differ[1], "no span tells more than its onsets: the test says nothing"


def test_spans_end_with_their_measure_though_the_beat_has_the_same_number() -> None:
    quarter = TICKS_PER_QUARTER
    onset = np.array([0, 4 * quarter])
    graph = build_graph(made_score(onset, np.full(2, quarter), np.array([40, 60]), np.array([4, 0])))
    assert graph.span_bass.tolist() == [[0, 1], [0, 1]]


def test_a_note_and_an_onset_know_their_place_in_the_measure() -> None:
    quarter = TICKS_PER_QUARTER
    onset = np.array([0, quarter, 4 * quarter, 5 * quarter + quarter // 2])
    graph = build_graph(made_score(onset, np.full(4, quarter), np.array([60, 62, 64, 65]), np.array([0, 2, 4, -1])))
    assert (graph.features[0, :9] == graph.features[2, :9]).all()
    assert not (graph.features[1, :9] == graph.features[3, :9]).all()
    assert (graph.onset_features[:, :9] == graph.features[:, :9]).all()


def test_a_score_without_notes_is_refused() -> None:
    score = random_score(0)
    with pytest.raises(ValueError, match="no notes"):
        build_graph(empty(score))


def empty(score: Score) -> Score:
    last = score.num_measures - 1
    kept = score.measures(0, last + 1)
    fields = {name: getattr(kept, name) for name in kept.__dataclass_fields__}
    fields |= {name: np.zeros(0, np.int64) for name in ("onset", "duration", "midi", "fifths", "staff", "voice")}
    return Score(**fields)
