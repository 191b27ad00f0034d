"""The analyzer `modular`: the six modules and their joint search over a score. Runs on a model thread; knows no files.

A label's chord and key are the search's. The search has an applied chord in a key of its own; where a few chords lead
away and the music goes on in the key before, that is told as a tonicisation: the label's `key` stays, its `tonicised`
is the search's key, and its numeral is `V65/V`.

The same score gets the same labels. Legend: N notes, O onsets, S spans, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stretto_harmony.models.modular import vectors
from stretto_harmony.models.modular.config import SearchConfig
from stretto_harmony.models.modular.networks import CausalModule, CausalState, Modules
from stretto_harmony.models.modular.search import JointSearch, Reading, Timeline
from stretto_harmony.models.modular.spans import SpanTable, candidate_spans, onset_changes
from stretto_harmony.models.modular.vectors import ChordColumns, NoteTable, note_table
from stretto_harmony.scores import pitch
from stretto_harmony.scores.labels import (
    NUM_CHORDS,
    NUM_KEYS,
    Analysis,
    HarmonyLabel,
    Key,
    chord_of_index,
    key_of_index,
)
from stretto_harmony.scores.numerals import figure_of
from stretto_harmony.scores.score import TICKS_PER_WHOLE, Score

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MAX_APPLIED = 2
"""Chords in a row that may be a tonicisation; more are a modulation."""
_SPANS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Heard:
    """The onsets of a piece, its candidate spans, and the log-probabilities [S, 1540] of their chords."""

    timeline: Timeline
    spans: SpanTable
    log_probs: NDArray[np.float32]


class ModularAnalyzer:
    """Analyses scores with one set of modules, and answers each module's question by itself.

    Args:
        modules: The six, in evaluation mode.
        config: Parameters of the search.
    """

    name = "modular"

    def __init__(self, modules: Modules, config: SearchConfig | None = None) -> None:
        self.modules = modules.eval().requires_grad_(False)
        self.config = config or SearchConfig()

    def analyze(self, score: Score) -> Analysis:
        """The labels of a score from its start to its end; none where it has no notes."""
        if not score.num_notes:
            return Analysis(())
        return self.labelled(score, *self.read(note_table(score)))

    def labelled(self, score: Score, reading: Reading, confidence: Floats) -> Analysis:
        """A reading of the score's notes as labels."""
        ticks = np.append(np.unique(score.onset), max(score.num_ticks, int(score.onset[-1]) + 1))
        ticks[0] = 0
        return Analysis(tuple(labels_of(reading, confidence, ticks)))

    def read(self, notes: NoteTable) -> tuple[Reading, Floats]:
        """The best reading of a piece's notes, and of each of its chords the classifier's probability."""
        heard = self.hear(notes)
        reading = self.search(heard)
        of_chords = self._classify(notes, vectors.note_vectors(notes), heard.timeline, reading.begin, reading.end)
        confidence = np.exp(of_chords[np.arange(len(reading.chord)), reading.chord]).astype(np.float64)
        return reading, np.clip(confidence, 0.0, 1.0)

    def hear(self, notes: NoteTable) -> Heard:
        """Where chords may begin and end, and which they may be: all that the search is told of the notes."""
        note_vectors, timeline = vectors.note_vectors(notes), timeline_of(notes)
        change = onset_changes(self._changes(note_vectors), notes.first)
        spans = candidate_spans(change, timeline.time[:-1], notes.end, self.config)
        return Heard(timeline, spans, self._classify(notes, note_vectors, timeline, spans.begin, spans.end))

    def search(self, heard: Heard) -> Reading:
        """The best reading of what was heard."""
        return JointSearch(self.modules, self.config, heard.timeline, heard.spans, heard.log_probs).run()

    @torch.inference_mode()
    def _changes(self, note_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: Tensor = self.modules.ctm(torch.from_numpy(note_vectors)[None])[0]
        return torch.sigmoid(logits).numpy()

    @torch.inference_mode()
    def _classify(
        self, notes: NoteTable, note_vectors: NDArray[np.float32], timeline: Timeline, begin: Ints, end: Ints
    ) -> NDArray[np.float32]:
        """Log-probabilities [S, 1540] of the spans between onsets; spans of one length go together."""
        windows = [
            vectors.span_vectors(notes, note_vectors, timeline.note[a], timeline.note[b], timeline.time[b])
            for a, b in zip(begin, end)
        ]
        lengths = np.array([len(window) for window in windows])
        log_probs = np.empty((len(windows), NUM_CHORDS), np.float32)
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for chunk in np.split(places, range(_SPANS_AT_ONCE, len(places), _SPANS_AT_ONCE)):
                batch = torch.from_numpy(np.stack([windows[place] for place in chunk]))
                log_probs[chunk] = self.modules.ccm.classify_equal(batch).numpy()
        return log_probs

    def chord_changes(self, score: Score) -> Floats:
        """CTM: that a chord begins with each note [N]; the first note of an onset speaks for all of them."""
        if not score.num_notes:
            return np.zeros(0)
        notes = note_table(score)
        first = notes.first
        change = onset_changes(self._changes(vectors.note_vectors(notes)), first)
        return np.repeat(change, np.diff(np.append(first, score.num_notes)))

    def classify_chords(self, score: Score, spans: Sequence[tuple[int, int]]) -> Floats:
        """CCM: of each chord in each span of ticks [S, 1540]; a span in which no note begins is as the next one."""
        if not score.num_notes or not spans:
            return np.full((len(spans), NUM_CHORDS), 1.0 / NUM_CHORDS)
        notes = note_table(score)
        timeline = timeline_of(notes)
        start, end = np.array(spans, np.int64).T / TICKS_PER_WHOLE
        begins = np.clip(np.searchsorted(timeline.time[:-1], start - 1e-9), 0, timeline.num_onsets - 1)
        ends = np.maximum(np.searchsorted(timeline.time[:-1], end - 1e-9), begins + 1)
        return np.exp(self._classify(notes, vectors.note_vectors(notes), timeline, begins, ends)).astype(np.float64)

    @torch.inference_mode()
    def next_chords(self, score: Score, labels: Sequence[HarmonyLabel]) -> Floats:
        """CSM: of each chord after these, in the key of the last [1540]; what it does not tell apart shares alike."""
        if not labels:
            raise ValueError("labels: expected at least one; initial_chords says what comes first")
        state = self._after(self.modules.csm, score, labels, vectors.REACH)
        log_prior = self.modules.csm.log_prior(state)[-1].numpy()
        key = labels[-1].tonicised
        return _absolute(np.exp(log_prior), key.tonic, self.modules.csm.reduction)

    @torch.inference_mode()
    def key_changes(self, score: Score, labels: Sequence[HarmonyLabel]) -> Floats:
        """KTM: that the key changes with each label [L], 0 at the first."""
        if len(labels) < 2:
            return np.zeros(len(labels))
        seen = self._asked(self.modules.ktm, score, labels)
        return np.append(0.0, torch.sigmoid(self.modules.ktm.logit(seen)).numpy().astype(np.float64))

    @torch.inference_mode()
    def next_keys(self, score: Score, labels: Sequence[HarmonyLabel]) -> Floats:
        """KSM: of each key with the last of these labels, if the key changes there [70]; 0 for the key before."""
        if len(labels) < 2:
            raise ValueError("labels: expected at least two; at the first there is no key to change from")
        seen = self._asked(self.modules.ksm, score, labels)
        prior = np.exp(self.modules.ksm.log_prior(seen)[-1].numpy().astype(np.float64))
        before = labels[-2].tonicised
        keys = np.zeros(NUM_KEYS)
        for place, probability in enumerate(prior):
            is_minor, interval = divmod(place, vectors.NUM_RELATIVE)
            tonic = before.tonic + interval - vectors.REACH
            if pitch.in_range(tonic) and Key(tonic, bool(is_minor)) != before:
                keys[Key(tonic, bool(is_minor)).index] = probability
        return np.asarray(keys / max(keys.sum(), 1e-12))

    def initial_chords(self, key: Key) -> Floats:
        """ICM: of each chord at the beginning of a piece in a key [1540]."""
        return _absolute(np.exp(self.modules.icm.log_prior[int(key.is_minor)].numpy()), key.tonic, "none")

    def _after(self, module: CausalModule, score: Score, labels: Sequence[HarmonyLabel], reach: int) -> CausalState:
        """The states [L, H] after each label in its key."""
        chords = torch.from_numpy(vectors.chord_vectors(columns_of(score, labels), reach=reach))[None]
        states = module.states(chords)
        return CausalState(states.hidden[0], states.cell[0])

    def _asked(self, module: CausalModule, score: Score, labels: Sequence[HarmonyLabel]) -> CausalState:
        """The states [L - 1, H] after each label but the first in the key before it, after the others in theirs."""
        before = self._after(module, score, labels[:-1], vectors.WIDE_REACH)
        in_old = [replace(label, tonicised=old.tonicised) for label, old in zip(labels[1:], labels)]
        columns = columns_of(score, in_old)
        same = ChordColumns(**{**vars(columns), "is_change": np.zeros(len(in_old), bool)})
        chords = torch.from_numpy(vectors.chord_vectors(same, reach=vectors.WIDE_REACH))
        return module.step(chords, before)


def timeline_of(notes: NoteTable) -> Timeline:
    """The onsets of a piece, and its end as one more."""
    first = notes.first
    last = np.argmax(notes.onset + notes.duration)
    return Timeline(
        time=np.append(notes.onset[first], notes.end),
        level=np.append(notes.onset_level[first], notes.offset_level[last]),
        note=np.append(first, len(notes.onset)),
    )


def columns_of(score: Score, labels: Sequence[HarmonyLabel]) -> ChordColumns:
    """Labels as columns, each in the key that it tonicises.

    Raises:
        ValueError: On a chord whose root or bass is out of the modules' reach from its tonic; the field says which.
    """
    start = np.array([label.start for label in labels])
    end = np.array([label.end for label in labels])
    tonic = np.array([label.tonicised.tonic for label in labels])
    is_minor = np.array([int(label.tonicised.is_minor) for label in labels])
    root = np.array([label.root for label in labels])
    inverted = np.array([vectors.inverted_of(label.quality, label.inversion) for label in labels])
    far = np.flatnonzero(~vectors.within_reach(root, inverted, tonic))
    if len(far):
        label = labels[int(far[0])]
        raise ValueError(
            f"labels[{far[0]}].root: expected root and bass at most {vectors.REACH} fifths from the tonic, got "
            f"{pitch.spelled_name(label.root)} in {label.tonicised.name}. Respell one of them."
        )
    old_tonic, old_minor = np.roll(tonic, 1), np.roll(is_minor, 1)
    is_change = (old_tonic != tonic) | (old_minor != is_minor)
    is_change[:1] = False
    return ChordColumns(
        root=root,
        inverted=inverted,
        tonic=tonic,
        is_minor=is_minor,
        onset_level=score.metrical_level(start),
        offset_level=score.metrical_level(end),
        duration=(end - start) / TICKS_PER_WHOLE,
        old_tonic=np.where(is_change, old_tonic, tonic),
        is_change=is_change,
    )


def local_keys(keys: Sequence[int], longest: int = MAX_APPLIED) -> list[int]:
    """The keys in which chords stand that the search has in `keys`: a short excursion stays in the key around it.

    An excursion is a run of at most `longest` chords in other keys after which the key before it comes back.
    """
    local = list(keys)
    place = 1
    while place < len(local):
        if keys[place] != local[place - 1]:
            back = next(
                (n for n in range(place, min(place + longest + 1, len(keys))) if keys[n] == local[place - 1]), 0
            )
            if back:
                local[place:back] = [local[place - 1]] * (back - place)
                place = back
        place += 1
    return local


def labels_of(reading: Reading, confidence: Floats, ticks: Ints) -> list[HarmonyLabel]:
    """A reading as labels; `ticks` [O + 1] are its onsets and the end."""
    local = local_keys(reading.key.tolist())
    labels = []
    for place, (begin, end, chord, index) in enumerate(
        zip(reading.begin.tolist(), reading.end.tolist(), reading.chord.tolist(), reading.key.tolist())
    ):
        root, quality, inversion = chord_of_index(chord)
        key, tonicised = key_of_index(local[place]), key_of_index(index)
        numeral = figure_of(key, tonicised, root, quality, inversion)
        labels.append(
            HarmonyLabel(
                int(ticks[begin]), int(ticks[end]), key, numeral, tonicised, root, quality, inversion,
                float(confidence[place]),
            )
        )  # fmt: skip
    return labels


def _absolute(relative: NDArray[np.floating], tonic: int, reduction: str) -> Floats:
    """Probabilities of relative chords as ones of the 1,540 that are in reach of the tonic; they sum to 1."""
    index = np.arange(NUM_CHORDS)
    root, inverted = index // vectors.NUM_INVERTED + pitch.MIN_FIFTHS, index % vectors.NUM_INVERTED
    near = np.abs(root - tonic) <= vectors.REACH
    place = vectors.relative_chord(root[near], inverted[near], np.full(int(near.sum()), tonic), reduction)
    sharing = np.bincount(vectors.REDUCED_OF[reduction])[vectors.REDUCED_OF[reduction][inverted[near]]]
    chords = np.zeros(NUM_CHORDS)
    chords[near] = relative[place] / sharing
    return np.asarray(chords / max(chords.sum(), 1e-12))
