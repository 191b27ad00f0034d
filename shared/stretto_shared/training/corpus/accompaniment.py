"""Accompaniments made from chord symbols: held, struck, broken or strummed chords, in beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stretto_shared.training.corpus.scores import Chord, Notes, sorted_notes

STYLES = ("held", "struck", "broken", "offbeat")
_BROKEN_ORDERS = ((0, 1, 2, 1), (0, 2, 1, 2), (0, 1, 2, 3), (3, 2, 1, 0))
_VELOCITY = 76.0


def accompany(chords: Sequence[Chord], style: str, centre: float, rng: np.random.Generator) -> Notes:
    """Play the chords in one style around a pitch, as notes in beats."""
    step = float(rng.choice([0.5, 0.5, 1.0])) if style == "broken" else float(rng.choice([1.0, 2.0]))
    order = _BROKEN_ORDERS[int(rng.integers(len(_BROKEN_ORDERS)))]
    rows: list[tuple[float, float, float, float]] = []
    for chord in chords:
        pitches = voicing(chord.pitch_classes, centre)
        length = chord.end_beat - chord.start_beat
        if style == "held":
            rows += [(chord.start_beat, length, pitch, _VELOCITY) for pitch in pitches]
        elif style == "broken":
            four = [*pitches, pitches[0] + 12.0][:4]
            for index in range(int(length / step)):
                pitch = four[order[index % 4] % len(four)]
                rows.append(
                    (chord.start_beat + index * step, 1.5 * step, pitch, _VELOCITY + (8 if index % 4 == 0 else 0))
                )
        else:
            shift = 0.5 if style == "offbeat" else 0.0
            for index in range(max(1, int(length / step))):
                onset = chord.start_beat + index * step + shift
                if onset < chord.end_beat:
                    held = 0.4 if style == "offbeat" else 0.9 * step
                    rows += [(onset, held, pitch, _VELOCITY + (6 if index % 2 == 0 else 0)) for pitch in pitches]
    return sorted_notes(rows)


def voicing(pitch_classes: Sequence[int], centre: float) -> list[float]:
    """The pitch classes, each in the octave nearest to the centre, from low to high."""
    return sorted(float(pc + 12 * round((centre - pc) / 12.0)) for pc in pitch_classes[:4])


def roots(chords: Sequence[Chord], rng: np.random.Generator) -> Notes:
    """A bass line: the root of each chord, held or repeated."""
    step = float(rng.choice([1.0, 2.0, 4.0]))
    rows: list[tuple[float, float, float, float]] = []
    for chord in chords:
        onset = chord.start_beat
        while onset < chord.end_beat:
            length = min(step, chord.end_beat - onset)
            rows.append((onset, 0.95 * length, float(36 + (chord.pitch_classes[0] - 4) % 12 + 4), 88.0))
            onset += step
    return sorted_notes(rows)
