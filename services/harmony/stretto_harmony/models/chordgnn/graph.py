"""A score as a graph of its notes, after Karystinaios and Widmer (2023), built without a loop over notes.

Nodes are notes in the score's order (onset, then pitch). Relations, from note i to note j:

- onset: both begin together; both ways, no note with itself
- consecutive: j begins where i ends
- during: j begins while i sounds, after i began
- rest: nothing begins where i ends, and j begins at the next onset

The network adds the reverse of the last three. Departures: the paper's builder compares all notes with all others; a
note that ends after the last onset has no rest relation here. Beside the relations stand what pooling needs: the onset
that each note begins on, the notes that sound at each onset, and the lowest of them; and the lowest of its beat and of
its measure, since a chord's bass is seldom struck again at each of its onsets.

Legend: N notes, O onsets, E edges, P pairs of a note and an onset that it sounds at, S spans (`BASS_SPANS`). Times are
ticks. Knows no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stretto_harmony.scores.score import BEAT, BELOW, DOWNBEAT, SUB_BEAT, TICKS_PER_QUARTER, TICKS_PER_WHOLE, Score

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

RELATIONS = ("onset", "consecutive", "during", "rest")
BASS_SPANS = ("beat", "measure")
NUM_NOTE_FEATURES = 15
NUM_ONSET_FEATURES = 13


@dataclass(frozen=True)
class ScoreGraph:
    """The notes of a score, how they relate, and its onsets.

    Args:
        fifths: Spelling of each note on the line of fifths [N].
        midi: Pitch of each note [N].
        features: What else is known of each note [N, NUM_NOTE_FEATURES].
        edges: For each of `RELATIONS`, source and target notes [2, E], sources ascending.
        onset: The onset each note begins on [N].
        sounding: Pairs [2, P] of a note and an onset at which it sounds, notes ascending.
        bass: The lowest note that sounds at each onset [O].
        span_bass: The lowest note that sounds at an onset of the same beat, and of the same measure [S, O].
        onset_time: When each onset is [O], ascending, each once.
        onset_features: What is known of each onset [O, NUM_ONSET_FEATURES].
        key_signature: The key signature at each onset [O], in fifths.
    """

    fifths: Ints
    midi: Ints
    features: Floats
    edges: dict[str, Ints]
    onset: Ints
    sounding: Ints
    bass: Ints
    span_bass: Ints
    onset_time: Ints
    onset_features: Floats
    key_signature: Ints

    @property
    def num_notes(self) -> int:
        return len(self.fifths)

    @property
    def num_onsets(self) -> int:
        return len(self.onset_time)


def build_graph(score: Score) -> ScoreGraph:
    """The graph of a score with one note or more.

    Raises:
        ValueError: The score has no notes.
    """
    if not len(score.onset):
        raise ValueError("The score has no notes. Give one with at least a note.")
    begin, end = score.onset, score.offset
    times, onset = np.unique(begin, return_inverse=True)
    bounds = np.searchsorted(begin, np.append(times, times[-1] + 1))
    edges = {
        "onset": _onset_edges(onset, bounds),
        "consecutive": _edges_at_end(times, end, bounds, rest=False),
        "during": _ranges_from(np.searchsorted(begin, begin, "right"), np.searchsorted(begin, end)),
        "rest": _edges_at_end(times, end, bounds, rest=True),
    }
    sounding = _ranges_from(onset, np.searchsorted(times, end))
    bass = _lowest(sounding, score.midi)
    place = _places(score, times)
    return ScoreGraph(
        fifths=score.fifths,
        midi=score.midi,
        features=_note_features(score, place[onset], onset, bounds, bass),
        edges=edges,
        onset=onset,
        sounding=sounding,
        bass=bass,
        span_bass=_lowest_of_spans(score, times, bass),
        onset_time=times,
        onset_features=_onset_features(place, times, bounds, np.bincount(sounding[1], minlength=len(times))),
        key_signature=score.key_signature[score.measure_of(times)],
    )


def _ranges_from(first: Ints, after: Ints) -> Ints:
    """Pairs [2, E] of each i with each of first[i], ..., after[i] - 1."""
    counts = np.maximum(after - first, 0)
    source = np.repeat(np.arange(len(first)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([source, np.repeat(first, counts) + within])


def _onset_edges(onset: Ints, bounds: Ints) -> Ints:
    pairs = _ranges_from(bounds[onset], bounds[onset + 1])
    return pairs[:, pairs[0] != pairs[1]]


def _edges_at_end(times: Ints, end: Ints, bounds: Ints, *, rest: bool) -> Ints:
    """From each note to those of the first onset from its end on: where that is its end, or only where it is not."""
    found = np.searchsorted(times, end)
    there = np.minimum(found, len(times) - 1)
    taken = (found < len(times)) & ((times[there] != end) == rest)
    return _ranges_from(bounds[there], np.where(taken, bounds[there + 1], bounds[there]))


def _lowest(sounding: Ints, midi: Ints) -> Ints:
    order = np.lexsort((midi[sounding[0]], sounding[1]))
    notes, onsets = sounding[:, order]
    lowest: Ints = notes[np.append(True, onsets[1:] != onsets[:-1])]
    return lowest


def _lowest_of_spans(score: Score, times: Ints, bass: Ints) -> Ints:
    """The lowest [S, O] of the onsets' basses [O] in each onset's beat and measure; the first where some are alike."""
    measure = score.measure_of(times)
    beat = score.beat_position(times) // score.beat_length(measure)
    rows = []
    new_measure = np.diff(measure) != 0
    for begins in (new_measure | (np.diff(beat) != 0), new_measure):
        span = np.append(0, np.cumsum(begins))
        order = np.lexsort((score.midi[bass], span))
        first = np.append(True, span[order][1:] != span[order][:-1])
        rows.append(bass[order[first]][span])
    return np.stack(rows)


def _places(score: Score, times: Ints) -> Floats:
    """Where in its measure each onset is [O, 9]: two waves of the measure, its length, the metrical level."""
    measure = score.measure_of(times)
    length = np.maximum(score.measure_length + score.measure_offset, 1)[measure]
    turn = 2 * np.pi * score.beat_position(times) / length
    level = score.metrical_level(times)
    columns = [np.sin(turn), np.cos(turn), np.sin(2 * turn), np.cos(2 * turn), length / TICKS_PER_WHOLE]
    columns += [level == each for each in (DOWNBEAT, BEAT, SUB_BEAT, BELOW)]
    return np.stack(columns, axis=1).astype(np.float32)


def _note_features(score: Score, place: Floats, onset: Ints, bounds: Ints, bass: Ints) -> Floats:
    notes = np.arange(len(onset))
    quarters = score.duration / TICKS_PER_QUARTER
    staff = score.staff / max(int(score.staff.max()), 1)
    columns = [
        np.log2(np.maximum(quarters, 1 / 32)) / 4,
        np.minimum(quarters / 4, 2),
        staff,
        notes == bounds[onset],
        notes == bounds[onset + 1] - 1,
        notes == bass[onset],
    ]
    return np.concatenate([place, np.stack(columns, axis=1).astype(np.float32)], axis=1)


def _onset_features(place: Floats, times: Ints, bounds: Ints, num_sounding: Ints) -> Floats:
    gaps = np.log2(np.maximum(np.diff(times) / TICKS_PER_QUARTER, 1 / 32)) / 4
    columns = [np.append(0.0, gaps), np.append(gaps, 0.0), np.diff(bounds) / 8, np.minimum(num_sounding, 16) / 8]
    return np.concatenate([place, np.stack(columns, axis=1).astype(np.float32)], axis=1)
