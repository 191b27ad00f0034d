"""The joint search against all readings of small pieces, scored from the definition; its beams and its spans."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.beam import Beam, Hypotheses, extended_history
from stretto_harmony.models.modular.config import PUBLISHED_FH, SearchConfig, search_of
from stretto_harmony.models.modular.search import JointSearch, Reading, Timeline
from stretto_harmony.models.modular.spans import SpanTable, candidate_spans
from stretto_harmony.models.modular.vectors import ChordColumns
from stretto_harmony.scores.labels import NUM_CHORDS, Key, chord_index, chord_of_index, key_of_index
from tiny_modules import tiny_modules

EXHAUSTIVE = SearchConfig(
    beam_size=100_000,
    chord_branches=2,
    chord_branch_mass=1.0,
    key_branches=1,
    key_branch_mass=1.0,
    hash_length=0,
    key_sequence_exponent=3.0,
    min_key_change=0.2,
    max_no_key_change=0.8,
)


SEEDS = [12, 15, 16]


@dataclass(frozen=True)
class Heard:
    """A chord of a reading: onsets, chord, key."""

    begin: int
    end: int
    chord: int
    key: Key


def timeline(num_onsets: int) -> Timeline:
    time = np.arange(num_onsets + 1) / 4.0
    return Timeline(time, np.array([3, 2, 1, 2, 3, 2, 1])[: num_onsets + 1], np.arange(num_onsets + 1) * 2)


def problem(num_onsets: int, seed: int, must: float = 0.9) -> tuple[Timeline, SpanTable, np.ndarray]:
    """Spans and chord probabilities in which a few chords near C are likely."""
    random = np.random.default_rng(seed)
    line = timeline(num_onsets)
    change = random.uniform(0.3, 0.8, num_onsets)
    config = replace(EXHAUSTIVE, max_no_chord_change=must)
    spans = candidate_spans(change, line.time[:-1], line.time[-1], config)
    logits = random.normal(size=(len(spans.begin), NUM_CHORDS))
    near = [chord_index(root, kind, 0) for root in (0, 1, 3) for kind in list(chord_kinds())[:2]]
    logits[:, near] += 12 + 4 * random.normal(size=(len(spans.begin), len(near)))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return line, spans, log_probs.astype(np.float32)


def chord_kinds():
    from stretto_harmony.scores.labels import VOCABULARY

    return VOCABULARY


def vector(line: Timeline, heard: Heard, key: Key, old: Key | None, reach: int) -> torch.Tensor:
    root, quality, inversion = chord_of_index(heard.chord)
    one = lambda value: np.array([value])  # noqa: E731
    is_change = old is not None and old != key
    columns = ChordColumns(
        root=one(root),
        inverted=one(vectors.inverted_of(quality, inversion)),
        tonic=one(key.tonic),
        is_minor=one(int(key.is_minor)),
        onset_level=line.level[[heard.begin]],
        offset_level=line.level[[heard.end]],
        duration=one(line.time[heard.end] - line.time[heard.begin]),
        old_tonic=one(old.tonic if is_change else key.tonic),
        is_change=one(is_change),
    )
    return torch.from_numpy(vectors.chord_vectors(columns, reach=reach))


class Exhaustive:
    """Every reading that the search may consider, one after another, each scored whole from its definition."""

    def __init__(self, modules, config, line, spans, log_probs):
        self.modules, self.config, self.line, self.spans, self.log_probs = modules, config, line, spans, log_probs
        self.said = {}
        self.by_begin = {}
        for number, begin in enumerate(spans.begin.tolist()):
            self.by_begin.setdefault(begin, []).append(number)

    def tried(self, span: int) -> list[int]:
        return np.argsort(-self.log_probs[span], kind="stable")[: self.config.chord_branches].tolist()

    def segmentations(self, onset: int = 0, last: int | None = None):
        """Ways to fill the piece: (chord, spans that it lasts) in order; a chord that follows itself goes on."""
        if onset == self.line.num_onsets:
            yield []
            return
        for span in self.by_begin.get(onset, []):
            for chord in self.tried(span):
                for rest in self.segmentations(int(self.spans.end[span]), chord):
                    yield [(chord, span), *rest]

    def best(self) -> tuple[float, list[Heard]]:
        found = (-np.inf, [])
        for segments in self.segmentations():
            chords = [(chord, [span for _, span in run]) for chord, run in itertools.groupby(segments, lambda s: s[0])]
            for first_key in range(70):
                found = max(found, self.scored(chords, [], key_of_index(first_key), 0.0), key=lambda f: f[0])
        return found

    def scored(self, chords, before, key, score):
        """The best way to give keys to the rest of `chords`, after `before`, when the key so far is `key`."""
        if not chords:
            return score, before
        (chord, spans), *rest = chords
        for size in range(1, len(spans)):  # every shorter form of the chord must have been possible, in some key
            if not self.readings(chord, spans[:size], before, key):
                return -np.inf, []
        found = (-np.inf, [])
        for heard, added in self.readings(chord, spans, before, key):
            found = max(found, self.scored(rest, [*before, heard], heard.key, score + added), key=lambda f: f[0])
        return found

    def readings(self, chord, spans, before, key):
        """The keys in which a chord may stand, with what each adds to the score."""
        begin, end = int(self.spans.begin[spans[0]]), int(self.spans.end[spans[-1]])
        notes = int(self.line.note[end] - self.line.note[begin])
        score = 0.0
        for number, span in enumerate(spans):
            length = int(self.line.note[self.spans.end[span]] - self.line.note[self.spans.begin[span]])
            score += self.spans.log_prob[span] + float(self.log_probs[span, chord]) * length
            score += self.spans.rejoin[span] if number else 0.0
        root, quality, inversion = chord_of_index(chord)
        place = (np.array([root]), np.array([vectors.inverted_of(quality, inversion)]), np.array([key.tonic]))
        heard = Heard(begin, end, chord, key)
        near = bool(vectors.within_reach(*place)[0])
        if not before:
            prior = (
                self.modules.icm.log_prior[int(key.is_minor), int(vectors.relative_chord(*place)[0])] if near else 0.0
            )
            return [(heard, score + float(prior) * self.config.chord_sequence_exponent * notes)] if near else []
        if not vectors.within_reach(*place, vectors.WIDE_REACH)[0]:
            return []
        asked = vector(self.line, heard, key, None, vectors.WIDE_REACH)
        change = float(torch.sigmoid(self.told("ktm", before, heard, key, asked))[0])
        out = []
        if near and change <= self.config.max_no_key_change:
            prior = torch.log_softmax(self.told("csm", before, None, None, None), -1)
            relative = vectors.relative_chord(*place, self.modules.csm.reduction)[0]
            said = float(prior[relative]) * self.config.chord_sequence_exponent
            out.append((heard, score + (said + np.log(1 - change) * self.config.key_transition_exponent) * notes))
        if change >= self.config.min_key_change:
            prior = torch.log_softmax(self.told("ksm", before, heard, key, asked), -1)
            for place_ in torch.argsort(-prior).tolist():
                tonic = key.tonic + place_ % 29 - 14
                if not -15 <= tonic <= 19 or not vectors.within_reach(place[0], place[1], np.array([tonic]))[0]:
                    continue
                new = Key(tonic, place_ >= 29)
                if new == key:
                    continue
                said = np.log(change) * self.config.key_transition_exponent
                said += float(prior[place_]) * self.config.key_sequence_exponent
                out.append((replace(heard, key=new), score + said * notes))
                break
        return out

    def told(self, module, before, heard, key, asked) -> torch.Tensor:
        """What a module says after the whole sequence, `asked` its last; each question is put once."""
        question = (module, tuple(before), heard, key)
        if question not in self.said:
            reach = vectors.REACH if module == "csm" else vectors.WIDE_REACH
            self.said[question] = getattr(self.modules, module)(self.sequence(before, asked, reach))[0, -1]
        return self.said[question]

    def sequence(self, before, last, reach) -> torch.Tensor:
        rows = [
            vector(self.line, heard, heard.key, before[n - 1].key if n else None, reach)
            for n, heard in enumerate(before)
        ]
        return torch.cat([*rows, *([] if last is None else [last])])[None]


def found_by(search: Reading) -> list[Heard]:
    return [
        Heard(int(begin), int(end), int(chord), key_of_index(int(key)))
        for begin, end, chord, key in zip(search.begin, search.end, search.chord, search.key)
    ]


@pytest.mark.parametrize(
    ("seed", "reduction", "must"),
    [(12, "triads", 0.9), (15, "none", 0.9), (5, "triads", 0.29), (9, "none", 0.29), (10, "triads", 0.29)],
)
def test_a_wide_beam_finds_the_best_of_all_readings(seed: int, reduction: str, must: float) -> None:
    modules = tiny_modules(seed, reduction=reduction)
    line, spans, log_probs = problem(3, seed, must)
    score, expected = Exhaustive(modules, EXHAUSTIVE, line, spans, log_probs).best()
    reading = JointSearch(modules, EXHAUSTIVE, line, spans, log_probs).run()
    assert found_by(reading) == expected
    assert reading.score == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("changes", [{"key_transition_exponent": 2.5}, {"chord_sequence_exponent": 0.4}])
@pytest.mark.parametrize("seed", [5, 9, 10])
def test_each_module_of_a_reading_has_its_exponent(seed: int, changes: dict[str, float]) -> None:
    modules, config = tiny_modules(seed), replace(EXHAUSTIVE, **changes)
    line, spans, log_probs = problem(3, seed, must=0.29)
    score, expected = Exhaustive(modules, config, line, spans, log_probs).best()
    reading = JointSearch(modules, config, line, spans, log_probs).run()
    assert found_by(reading) == expected
    assert reading.score == pytest.approx(score, abs=1e-3)
    assert JointSearch(modules, EXHAUSTIVE, line, spans, log_probs).run().score != pytest.approx(score, abs=1e-2)


def test_the_cases_against_all_readings_hold_keys_that_change_and_keys_that_stay() -> None:
    kinds = set()
    for seed in SEEDS:
        line, spans, log_probs = problem(3, seed)
        reading = found_by(JointSearch(tiny_modules(seed), EXHAUSTIVE, line, spans, log_probs).run())
        kinds |= {a.key == b.key for a, b in itertools.pairwise(reading)}
    assert kinds == {True, False}


@pytest.mark.parametrize("seed", SEEDS[1:])
def test_a_chord_that_comes_again_goes_on_and_is_scored_as_one(seed: int) -> None:
    modules = tiny_modules(seed)
    line, spans, log_probs = problem(3, seed, must=0.29)  # a span ends at every onset, so no span holds two
    log_probs[1] = log_probs[0]
    score, expected = Exhaustive(modules, EXHAUSTIVE, line, spans, log_probs).best()
    reading = JointSearch(modules, EXHAUSTIVE, line, spans, log_probs).run()
    assert expected[0].end == 2
    assert found_by(reading) == expected
    assert reading.score == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chord_that_goes_on_is_back_in_the_key_before_it(seed: int) -> None:
    line, spans, log_probs = problem(4, seed, must=0.29)
    log_probs[1:3] = log_probs[0]
    search = JointSearch(tiny_modules(seed), EXHAUSTIVE, line, spans, log_probs)
    search.run()
    gone_on = 0
    for onset, kept in search._trail.items():
        for slot in range(len(kept) if onset else 0):
            before = search._trail[int(kept.parent_onset[slot])]
            assert before.key[kept.parent_slot[slot]] == kept.parent_key[slot]
            gone_on += int(
                kept.begin[slot] > 0 and onset - kept.begin[slot] > 1 and kept.key[slot] != kept.parent_key[slot]
            )
    assert gone_on


def test_chords_fill_the_piece_and_do_not_repeat() -> None:
    line, spans, log_probs = problem(6, 5)
    reading = JointSearch(tiny_modules(5), SearchConfig(), line, spans, log_probs).run()
    assert reading.begin[0] == 0 and reading.end[-1] == line.num_onsets
    assert (reading.begin[1:] == reading.end[:-1]).all()
    assert (reading.chord[1:] != reading.chord[:-1]).all()


def test_a_chord_out_of_reach_of_the_key_changes_it() -> None:
    line = timeline(2)
    spans = candidate_spans(np.array([1.0, 1.0]), line.time[:-1], line.time[-1], SearchConfig())
    log_probs = np.full((2, NUM_CHORDS), -30.0, np.float32)
    far = Key(-9)
    kinds = chord_kinds()
    log_probs[0, chord_index(8, kinds[0], 0)] = 0.0
    log_probs[1, chord_index(far.tonic, kinds[0], 0)] = 0.0
    reading = JointSearch(tiny_modules(1), EXHAUSTIVE, line, spans, log_probs).run()
    assert reading.key[0] != reading.key[1]
    assert abs(key_of_index(int(reading.key[1])).tonic - far.tonic) <= vectors.REACH


def test_a_key_that_never_may_change_stays() -> None:
    line, spans, log_probs = problem(5, 3)
    config = replace(EXHAUSTIVE, beam_size=50, min_key_change=1.0, max_no_key_change=1.0)
    reading = JointSearch(tiny_modules(3), config, line, spans, log_probs).run()
    assert len(set(reading.key.tolist())) == 1


def hypotheses(scores: list[float], histories: list[list[int]]) -> Hypotheses:
    count = len(scores)
    zeros = np.zeros(count, np.int64)
    numbers = np.arange(count)
    return Hypotheses(
        np.array(scores), np.zeros(count), numbers, zeros, zeros, zeros, zeros, zeros, zeros, zeros, np.array(histories)
    )


def test_a_beam_keeps_the_better_of_two_that_are_alike() -> None:
    beam = Beam(3)
    beam.add(hypotheses([-5.0, -1.0, -3.0], [[7, 9], [7, 9], [9, 7]]))
    assert beam.kept is not None
    assert beam.kept.score.tolist() == [-1.0, -3.0]
    assert beam.kept.chord.tolist() == [1, 2]


def test_a_beam_holds_its_size_and_does_not_depend_on_the_order() -> None:
    random = np.random.default_rng(0)
    scores = random.permutation(60).astype(float)
    histories = random.integers(0, 20, (60, 5))
    histories[:, :4] = 1
    at_once, in_turn = Beam(6), Beam(6)
    at_once.add(hypotheses(scores.tolist(), histories.tolist()))
    for part in np.split(random.permutation(60), 6):
        in_turn.add(hypotheses(scores[part].tolist(), histories[part].tolist()))
    assert at_once.kept is not None and in_turn.kept is not None
    assert len(at_once.kept) == 6
    assert at_once.kept.score.tolist() == in_turn.kept.score.tolist()
    assert at_once.threshold == at_once.kept.score.min()


def test_histories_apart_in_their_oldest_chord_are_two() -> None:
    beam = Beam(5)
    beam.add(hypotheses([-1.0, -2.0], [[1, 5, 5, 5, 5], [2, 5, 5, 5, 5]]))
    assert beam.kept is not None and len(beam.kept) == 2


def test_a_history_forgets_its_oldest_chord() -> None:
    history = np.array([[1, 2, 3]])
    longer = extended_history(history, np.array([1]), np.array([0]))
    assert longer.tolist() == [[2, 3, NUM_CHORDS + 1]]


def test_pruning_alike_readings_leaves_room_for_others() -> None:
    line, spans, log_probs = problem(6, 11)
    modules = tiny_modules(11)
    narrow = replace(EXHAUSTIVE, beam_size=8)
    pruned = JointSearch(modules, replace(narrow, hash_length=2), line, spans, log_probs)
    plain = JointSearch(modules, narrow, line, spans, log_probs)
    pruned.run(), plain.run()

    def last_kinds(search: JointSearch) -> int:
        kept = search._trail[line.num_onsets]
        return len(set(zip(kept.chord.tolist(), kept.key.tolist())))

    assert last_kinds(pruned) > last_kinds(plain)


def test_spans_end_where_a_chord_must_begin_and_are_scored_as_said() -> None:
    config = SearchConfig(min_chord_change=0.3, max_no_chord_change=0.6, max_chord_length=8)
    change = np.array([0.0, 0.1, 0.5, 0.7])
    spans = candidate_spans(change, np.array([0.0, 1.0, 2.0, 3.0]), 4.0, config)
    assert list(zip(spans.begin.tolist(), spans.end.tolist())) == [(0, 2), (0, 3), (2, 3), (3, 4)]
    assert spans.log_prob[1] == pytest.approx(np.log(0.9) + np.log(0.5) + np.log(0.7))
    assert spans.log_prob[3] == 0.0
    assert spans.rejoin[2] == pytest.approx(np.log(0.5) - np.log(0.5))


def test_a_span_is_no_longer_than_the_longest_chord_and_there_is_always_a_way_on() -> None:
    onset = np.arange(40.0)
    spans = candidate_spans(np.full(40, 0.01), onset, 40.0, SearchConfig())
    ends = dict(zip(spans.begin.tolist(), spans.end.tolist()))
    assert max(end - begin for begin, end in ends.items()) <= 8
    place = 0
    while place < 40:
        place = ends[place]
    assert place == 40


def test_the_named_parameters_are_the_published_ones() -> None:
    default = SearchConfig()
    assert (default.beam_size, default.chord_branches, default.key_branches, default.hash_length) == (50, 5, 2, 5)
    assert (default.min_chord_change, default.max_no_chord_change) == (0.25, 0.45)
    assert (default.min_key_change, default.max_no_key_change) == (0.05, 0.75)
    assert (default.chord_branch_mass, default.key_branch_mass) == (0.5, 0.5)
    assert (default.max_chord_length, default.key_sequence_exponent) == (8.0, 50.0)
    assert (default.key_transition_exponent, default.chord_sequence_exponent) == (1.0, 1.0)
    fh = PUBLISHED_FH
    assert (fh.min_chord_change, fh.max_no_chord_change, fh.min_key_change, fh.max_no_key_change) == (
        0.3,
        0.4,
        0.1,
        0.7,
    )
    assert fh.key_sequence_exponent == 30.0
    assert search_of("published_fh", beam_size=9) == replace(fh, beam_size=9)
    with pytest.raises(ValueError, match="published_fh"):
        search_of("nothing")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("max_no_chord_change", {"min_chord_change": 0.5, "max_no_chord_change": 0.4}),
        ("max_no_key_change", {"min_key_change": 0.8}),
        ("beam_size", {"beam_size": 0}),
    ],
)
def test_parameters_that_leave_no_way_on_are_refused(field: str, changes: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=field):
        SearchConfig(**changes)  # type: ignore[arg-type]
