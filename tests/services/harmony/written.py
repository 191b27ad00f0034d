"""Small scores that the tests of the harmony service write down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from stretto_harmony.scores import pitch
from stretto_harmony.scores.score import TICKS_PER_QUARTER, TICKS_PER_WHOLE, Score


def score_of(
    notes: Sequence[tuple[float, float, str, int]],
    num_measures: int = 2,
    metre: tuple[int, int] = (4, 4),
    pickup_quarters: float = 0.0,
) -> Score:
    """Notes as onset and duration in quarters, name and octave; bars from a pickup, numbered 0, on."""
    numerator, denominator = metre
    bar = numerator * TICKS_PER_WHOLE // denominator
    pickup = round(pickup_quarters * TICKS_PER_QUARTER)
    lengths = np.array(([pickup] if pickup else []) + [bar] * num_measures)
    spelled = [(onset, length, pitch.from_name(name), octave) for onset, length, name, octave in notes]
    ticks = TICKS_PER_QUARTER
    rows = sorted(
        (round(onset * ticks), pitch.midi_of(fifths, octave), round(length * ticks), fifths)
        for onset, length, fifths, octave in spelled
    )
    onset, midi, duration, fifths = np.array(rows, np.int64).reshape(-1, 4).T
    count = len(lengths)
    return Score(
        onset=onset,
        duration=duration,
        midi=midi,
        fifths=fifths,
        staff=np.zeros(len(rows), np.int64),
        voice=np.zeros(len(rows), np.int64),
        measure_start=np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        measure_length=lengths,
        measure_offset=np.array([bar - pickup if pickup and not place else 0 for place in range(count)]),
        numerator=np.full(count, numerator),
        denominator=np.full(count, denominator),
        key_signature=np.zeros(count, np.int64),
        measure_number=tuple(str(place + (0 if pickup else 1)) for place in range(count)),
    )
